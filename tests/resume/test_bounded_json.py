"""JSON of checkpoints is read within bounds, and nothing beyond them is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder import bounded_json
from liontool.checkpoint.run_folder.bounded_json import MAX_BYTES, MAX_VALUES, encoded, load
from liontool.checkpoint.run_folder.facts import read_facts
from liontool.errors import FormatError, LayoutError, LimitError, ReadError, StateTypeError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.json"


def test_there_and_back(file: Path) -> None:
    """What is written is read: long integers, text of any kind, small floats."""
    value = {"a": [1, -(10**60), 0.1, None, True, "\u00e4\u2028\0"], "": {}}
    file.write_bytes(encoded(value, "it"))
    assert load(file) == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"is not valid JSON: Expecting value"),
        (b"\xff\xfe", r"is not valid JSON: "),
        (b'{"a": NaN}', r"is not valid JSON: NaN is no number"),
        (b"[-Infinity]", r"is not valid JSON: -Infinity is no number"),
        (b'{"a": 1, "a": 2}', r"is not valid JSON: a name stands there twice"),
        (b"1" * 5000, r"is not valid JSON: a number has 5,000 digits"),
        (b"[" * 100_000, r"its JSON is nested too deeply"),
        (b"[" + b"0," * MAX_VALUES, r"has more than 1,000,000 values of JSON, more than is ever"),
        (b" " * (MAX_BYTES + 1), r"has more than 33,554,432 bytes of JSON, more than is ever"),
    ],
    ids=["empty", "no text", "nan", "infinity", "twice", "digits", "deep", "many", "large"],
)
def test_refused(file: Path, data: bytes, message: str) -> None:
    """Whatever is not written is refused in one line that names the file."""
    file.write_bytes(data)
    with pytest.raises((FormatError, LimitError), match=rf"run\.json: {message}"):
        load(file)


def test_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be read again is refused when it is saved."""
    monkeypatch.setattr(bounded_json, "MAX_VALUES", 10)
    assert len(json.loads(encoded([0] * 10, "the state"))) == 10
    with pytest.raises(StateTypeError, match=r"the state has more than 10 values .* tensors"):
        encoded([0] * 11, "the state")


def test_unreadable(tmp_path: Path) -> None:
    """A file that is not there is an error of reading."""
    with pytest.raises(ReadError, match=r"run\.json: cannot be read: No such file"):
        read_facts(tmp_path)


@pytest.mark.parametrize("data", [b"[]", b"{}", b"3"])
def test_no_facts(file: Path, data: bytes) -> None:
    """A run.json must say that it is one."""
    file.write_bytes(data)
    with pytest.raises(FormatError, match=r"must be an object with 'liontool\.run'"):
        read_facts(file.parent)


def test_newer_facts(file: Path) -> None:
    """The layout of a newer liontool is said, with the way out."""
    file.write_bytes(b'{"liontool.run": 2}')
    with pytest.raises(LayoutError, match=r"layout 2 is newer than this liontool; .* pip install"):
        read_facts(file.parent)
