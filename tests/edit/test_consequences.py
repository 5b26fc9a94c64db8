"""Edits that would stop the optimizer are refused, all words taken together."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool import edit_checkpoint
from liontool.errors import EditError
from support.edited_runs import save_plain


@pytest.fixture
def run(tmp_path):
    """A named AdamW with two groups."""
    return save_plain(tmp_path / "run.pt")


def test_amsgrad_needs_its_state(run):
    """torch fails at the step after it, so the edit is refused."""
    with pytest.raises(EditError, match=r"would break the optimizer: .* lack max_exp_avg_sq"):
        edit_checkpoint(run, ["amsgrad=true"])
    assert [path.name for path in run.parent.iterdir()] == ["run.pt"]


def test_words_are_weighed_together(run):
    """What one word would break another one may make whole."""
    report = edit_checkpoint(run, ["amsgrad=true", "strip"])
    assert Path(report.output).exists()
