"""What pickles name: told without importing, and as torch's own unpickler judges it."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._weights_only_unpickler import _get_allowed_globals

from liontool.checkpoint.source import open_source
from liontool.inspect.code import PickleCode, code
from liontool.inspect.code_classes import ALLOWED, DANGEROUS, PLAIN, REBUILD, UNKNOWN, class_of
from liontool.inspect.verify import verify
from support.finding_files import found, pickled, torch_file
from support.torch_files import KINDS


class Evil:
    """Runs a program when it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


def test_allowed_names_are_torchs() -> None:
    """The table of names that weights_only=True takes is that of the installed torch."""
    theirs = set(_get_allowed_globals())
    assert not theirs - ALLOWED
    assert not {name for name in ALLOWED - theirs if not name.startswith("torch.cuda")}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", KINDS)
def test_answer_is_torchs(kind: str, legacy: bool, tmp_path: Path) -> None:
    """Whether torch.load(weights_only=True) takes a file is foretold."""
    if legacy and kind in ("dtypes", "storage"):
        pytest.skip("torch writes legacy files of these that it cannot load at all")
    path = torch_file(tmp_path / "a.pt", KINDS[kind](), legacy=legacy)
    foretold = all(one.weights_only for one in code(open_source(path)))
    try:
        torch.load(path, weights_only=True)
    except pickle.UnpicklingError:
        assert not foretold
    else:
        assert foretold


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_dangerous_names(protocol: int, tmp_path: Path) -> None:
    """A program in a pickle is named, in every protocol, and not run."""
    (tmp_path / "a.pt").write_bytes(pickled(pickle.dumps({"a": Evil()}, protocol)))
    before = os.listdir()
    (one,) = code(open_source(tmp_path / "a.pt"))
    assert [(n.kind, n.called) for n in one.names] == [(DANGEROUS, True)]
    assert one.runs_code
    assert not one.weights_only
    assert "names posix.system" in found(tmp_path / "a.pt", code=True)["dangerous-global"].text
    assert os.listdir() == before


def test_unknown_names_are_not_imported(tmp_path: Path) -> None:
    """A class of somebody's is named; its module stays out."""
    (tmp_path / "a.pt").write_bytes(pickled(b"cno_such_module\nThing\n)\x81."))
    finding = found(tmp_path / "a.pt", code=True)["unknown-global"]
    assert finding.where == "a/data.pkl"
    assert "names no_such_module.Thing" in finding.text
    assert "no_such_module" not in sys.modules
    assert "unknown-global" not in found(tmp_path / "a.pt")


def test_damaged_pickle(tmp_path: Path) -> None:
    """What stands before the damage may still be run, and is named."""
    (tmp_path / "a.pt").write_bytes(pickled(b"cos\nsystem\n(U\x01xtR\xff"))
    (one,) = code(open_source(tmp_path / "a.pt"))
    assert [named.name for named in one.names] == ["os.system"]
    assert "opcode 0xff" in one.damage
    assert not one.weights_only


REFUSALS = {
    b"cos\nsystem\n.": "names os.system",
    b"\x80\x04N.": "is written in protocol 4",
    b"I5\n.": "has the opcode INT",
    b"K\5.": "",
    b"]I5\na.": "has the opcode INT",
    b"ctorch\nSize\n)R)R.": "calls something that it computes",
    b"(U\x06moduletQ.": "refers to something that is no storage",
}


@pytest.mark.parametrize("data", REFUSALS)
def test_refusals(data: bytes, tmp_path: Path) -> None:
    """Why weights_only=True refuses is said."""
    (tmp_path / "a.pt").write_bytes(pickled(data))
    assert code(open_source(tmp_path / "a.pt"))[0].refusal == REFUSALS[data]


def test_every_pickle_of_a_folder(tmp_path: Path) -> None:
    """Each file and each record is told apart; files without pickles are left out."""
    torch_file(tmp_path / "a.pt")
    torch_file(tmp_path / "b.bin", legacy=True)
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({1, 2}, 2))
    (tmp_path / "d.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    places = [(one.file, one.record) for one in code(open_source(tmp_path))]
    legacy = [("b.bin", f"pickle {number}") for number in range(1, 6)]
    assert places == [("a.pt", "a/data.pkl"), *legacy, ("c.pkl", "")]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("collections.OrderedDict", PLAIN),
        ("__builtin__.set", PLAIN),
        ("numpy._core.multiarray.scalar", REBUILD),
        ("copy_reg._reconstructor", REBUILD),
        ("argparse.Namespace", UNKNOWN),
        ("osprey.system", UNKNOWN),
        ("os.path.join", DANGEROUS),
        ("torch.storage._load_from_bytes", DANGEROUS),
        ("__builtin__.eval", DANGEROUS),
        ("io.open", DANGEROUS),
        ("_io.FileIO", DANGEROUS),
        ("codecs.open", DANGEROUS),
        ("torch.os.system", DANGEROUS),
        ("omegaconf.types.Node", UNKNOWN),
    ],
)
def test_classes(name: str, kind: str) -> None:
    """Names are classed by their modules, those of Python 2 by what they are today."""
    assert class_of(name) == kind


def test_dict() -> None:
    """As JSON, absent reasons are null."""
    document = PickleCode("", "a/data.pkl", 2, (), "", "").to_dict()
    assert (document["refusal"], document["damage"], document["weights_only"]) == (None, None, True)


def test_verify_without_code(tmp_path: Path) -> None:
    """Pickles are looked into only where asked."""
    assert verify(torch_file(tmp_path / "a.pt")).code is None
