"""JSON that every reader takes."""

from __future__ import annotations

import json

import pytest

from liontool.cli.json_output import write


def test_write_is_one_ascii_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in it reaches the terminal raw, and it reads back the same."""
    write({"name": "\x1b[2J\u202e"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"name": "\x1b[2J\u202e"}
