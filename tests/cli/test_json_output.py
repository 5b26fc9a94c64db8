"""JSON that every reader takes."""

from __future__ import annotations

import json

import pytest

from liontool.cli.json_output import strict, write


def test_strict_values() -> None:
    """What JSON lacks becomes text, what it has stays."""
    value = {
        1: (1.5, float("nan"), float("-inf")),
        "b": {
            True,
        },
        "c": b"x",
        "d": None,
    }
    assert strict(value) == {"1": [1.5, "nan", "-inf"], "b": [True], "c": "b'x'", "d": None}


def test_write_is_one_ascii_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in it reaches the terminal raw, and it reads back the same."""
    write({"name": "\x1b[2J\u202e"})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"name": "\x1b[2J\u202e"}
