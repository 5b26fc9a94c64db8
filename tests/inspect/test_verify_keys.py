"""`verify` on keys that stand twice: each loader takes one of them, and says nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.findings import Finding
from liontool.inspect.structure_torch import pickle_findings
from liontool.inspect.verify import verify
from support.finding_files import changed_records, records, torch_file, zipped


def _spelled(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def twins(path: Path) -> list[Finding]:
    return [finding for finding in verify(path).findings if finding.id == "duplicate-key"]


def tree() -> dict[str, Any]:
    return {"a": torch.ones(2), "epoch": 3, "best": 4, "deep": [{"x": 1, "y": 2}]}


def test_keys_of_a_zip(tmp_path: Path) -> None:
    """A key that is set twice is named, and torch takes the last value."""
    path = torch_file(tmp_path / "a.pt", tree())
    assert not twins(path)
    zipped(
        path,
        [
            (
                n,
                d.replace(_spelled("best"), _spelled("epoch")).replace(
                    _spelled("y"), _spelled("x")
                ),
            )
            for n, d in records(path)
        ],
    )
    assert torch.load(path)["epoch"] == 4
    assert {(f.where, f.text) for f in twins(path)} == {
        ("a/data.pkl", f"'{key}' stands twice in one mapping; loaders take the last")
        for key in ("epoch", "x")
    }


def test_keys_of_a_legacy_file(tmp_path: Path) -> None:
    """The same in the other container of torch."""
    path = torch_file(tmp_path / "a.pt", tree(), legacy=True)
    assert not twins(path)
    path.write_bytes(path.read_bytes().replace(_spelled("best"), _spelled("epoch")))
    assert next(f.text for f in twins(path)).startswith("'epoch' stands twice")


@pytest.mark.parametrize(
    "code",
    [
        b"}(K\x01K\x02K\x01K\x03u",  # SETITEMS
        b"}K\x01K\x02sK\x01K\x03s",  # two SETITEM
        b"(K\x01K\x02K\x01K\x03d",  # DICT
        b"}K\x01K\x02s\x88K\x03s",  # True is 1
        b"}q\x00K\x01K\x02s0h\x00K\x01K\x03s",  # later, out of the memo
        b"ca\nB\n)R(K\x01K\x02K\x01K\x03u",  # an object that is filled like a dict
        b"ccollections\nOrderedDict\n)R(K\x01K\x02K\x01K\x03u",
    ],
)
def test_every_spelling(code: bytes, tmp_path: Path) -> None:
    """However a pickle sets a key again."""
    path = pickled(tmp_path, code)
    changed = changed_records(
        tmp_path / "a.pt",
        lambda entries: [
            (n, path.read_bytes() if n.endswith("data.pkl") else d) for n, d in entries
        ],
    )
    assert len(twins(changed)) == 1


def test_bare_pickles(tmp_path: Path) -> None:
    """The same in a pickle that is in no container."""
    found = list(pickle_findings(pickled(tmp_path, b"}(K\x01K\x02K\x01K\x03u"), "a.pkl"))
    assert [(f.id, f.where) for f in found] == [("duplicate-key", "a.pkl")]


def pickled(folder: Path, code: bytes) -> Path:
    path = folder / "a.pkl"
    path.write_bytes(b"\x80\x02" + code + b".")
    return path


def test_honest_mappings(tmp_path: Path) -> None:
    """Keys that only look alike, and equal keys of several mappings, are fine."""
    keys = {1: 0, "1": 0, (1,): 0, 1.5: 0, None: 0, False: 0, 2**70: 0, 2**70 + 1: 0}
    path = torch_file(tmp_path / "a.pt", {"a": torch.ones(1), "b": [keys, dict(keys)]})
    assert not twins(path)


def test_json(tmp_path: Path) -> None:
    """A name that an object of a JSON file has twice is named, however deep it is."""
    home = tmp_path / "run"
    home.mkdir()
    torch_file(home / "a.pt")
    text = json.dumps({"global_step": 3, "log": [{"loss": 1}, {"loss": 2}]})
    (home / "trainer_state.json").write_text(text)
    assert not twins(home)
    text = text.replace('"loss": 2', '"loss": 2, "loss": 3').replace("{", '{"global_step": 9, ', 1)
    (home / "trainer_state.json").write_text(text)
    assert {(f.where, f.text) for f in twins(home)} == {
        (
            "trainer_state.json",
            f"'{name}' stands 2 times in one object; most readers take the last",
        )
        for name in ("loss", "global_step")
    }


def test_records_alike(tmp_path: Path) -> None:
    """Records whose names differ in case alone: torch takes the wrong one."""
    names = ["a/dAta.pkl", "a/daTa.pkl", "a/datA.pkl"]
    others = [(name, b"\x80\x02K\x07.") for name in names]
    path = changed_records(tmp_path / "a.pt", lambda entries: [*others, *entries])
    assert torch.load(path) == 7
    findings = [f for f in verify(path).findings if f.id == "duplicate-record"]
    assert [f.where for f in findings] == [*names[1:], "a/data.pkl"]
    text = "differs from 'a/dAta.pkl' in case alone, and torch takes either"
    assert {f.text for f in findings} == {text}
