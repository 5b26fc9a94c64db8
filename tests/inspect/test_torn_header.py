"""A header that an edit in place left half written, as other commands see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool import convert_checkpoint, edit_checkpoint, read_checkpoint
from liontool.checkpoint import state_file
from liontool.checkpoint.formats.safetensors_file import pieces
from liontool.inspect.summary import summarise
from liontool.inspect.verify import verify
from support.edited_runs import save_plain, tear
from support.torch_files import write


@pytest.fixture
def torn(tmp_path: Path) -> Path:
    """AdamW's state in liontool's own layout, torn."""
    (optimizer,) = read_checkpoint(save_plain(tmp_path / "run.ckpt")).optimizers
    metadata = state_file.metadata(optimizer, "torch.optim.AdamW", {})
    path = write(pieces(state_file.tensors(optimizer), metadata), tmp_path / "state.safetensors")
    edit_checkpoint(path, ["meta.author=me"], in_place=True)
    tear(path)
    return path


def test_every_command_reads_the_old_one_and_says_so(torn: Path) -> None:
    """And none that only reads writes anything."""
    before = torn.read_bytes()
    for findings in (summarise(torn).findings, verify(torn).findings):
        found = {one.id: one.text for one in findings}
        assert "an edit of its header broke off" in found["torn-header"]
    report = convert_checkpoint(torn, lr_ratio=3)
    assert report.notices[0].id == "torn-header"
    assert Path(report.output).is_file()
    assert torn.read_bytes() == before


def test_a_header_that_was_mended_is_as_good_as_any(torn: Path) -> None:
    """After an edit in place nobody speaks of it any more."""
    edit_checkpoint(torn, ["meta.title=x"], in_place=True)
    assert "torn-header" not in {one.id for one in summarise(torn).findings}
    assert "torn-header" not in {one.id for one in verify(torn).findings}
