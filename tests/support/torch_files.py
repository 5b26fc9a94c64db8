"""Torch files of every kind, and what it means that two of them are the same."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import pathlib
import pickletools
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from liontool.checkpoint import copying, formats
from liontool.checkpoint.document import Document, Edit, TensorRef

FILE_DTYPES = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex128",
    "complex64", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool",
]  # fmt: skip


class Config:
    """A class of the user's own, as Lightning keeps among the hyperparameters."""

    def __init__(self) -> None:
        self.lr = 0.1
        self.layers = [1, 2]
        self.me = self


class Colour(enum.Enum):
    RED = 1


def model_and_optimizer(**options: Any) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A small model and an AdamW that has made three steps."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **options)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def whole_checkpoint() -> Any:
    model, optimizer = model_and_optimizer(amsgrad=True)
    schedulers = torch.optim.lr_scheduler
    parts = [schedulers.CosineAnnealingLR(optimizer, 10), schedulers.StepLR(optimizer, 3)]
    sequence = schedulers.SequentialLR(optimizer, parts, [5])
    return {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [
            sequence.state_dict(),
            schedulers.MultiStepLR(optimizer, [2, 4]).state_dict(),
        ],
    }


def shared() -> Any:
    base = torch.arange(60.0)
    twice = [1, 2]
    parameter = torch.nn.Parameter(base)
    return {
        "base": base,
        "view": base[10:20],
        "matrix": base.view(6, 10).t(),
        "strided": base[::3],
        "expanded": torch.ones(1).expand(4, 3),
        "parameter": parameter,
        "same": [parameter, parameter, base],
        "lists": [twice, twice],
        "zero": torch.zeros(0),
        "zero2": torch.zeros(3, 0, 2),
        "scalar": torch.tensor(3.5),
        "gradient": torch.ones(2, requires_grad=True),
    }


def oddities() -> Any:
    recursive: list[Any] = [1]
    recursive.append(recursive)
    return {
        "namespace": argparse.Namespace(lr=0.1, names=["a"]),
        "config": Config(),
        "enum": Colour.RED,
        "numpy": [np.float64(1.5), np.int64(3), np.bool_(True), np.arange(4)],
        "counter": collections.Counter("abca"),
        "default": collections.defaultdict(list, {"a": [1]}),
        "deque": collections.deque([1, 2], maxlen=5),
        "set": {1, 2},
        "frozen": frozenset({3}),
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "complex": 1 + 2j,
        "big": 2**100,
        "text": "ü\ud83d\ude00\n".encode("utf-16", "surrogatepass").decode("utf-16"),
        "recursive": recursive,
        "path": pathlib.PurePosixPath("/a/b"),
        "date": datetime.date(2024, 2, 29),
        "size": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "tuple": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        5: None,
        1.5: True,
        None: False,
        (1, "a"): -0.0,
    }


def every_dtype() -> Any:
    return {
        name: torch.arange(24).reshape(4, 6).to(getattr(torch, name)).t() for name in FILE_DTYPES
    }


KINDS: dict[str, Callable[[], Any]] = {
    "adamw": lambda: model_and_optimizer()[1].state_dict(),
    "checkpoint": whole_checkpoint,
    "model": lambda: model_and_optimizer()[0].state_dict(),
    "module": lambda: model_and_optimizer()[0],
    "optimizer object": lambda: model_and_optimizer()[1],
    "shared": shared,
    "oddities": oddities,
    "dtypes": every_dtype,
    "tensor": lambda: torch.arange(3.0),
    "storage": lambda: [torch.arange(3.0).untyped_storage(), torch.arange(2).untyped_storage()],
    "number": lambda: 5,
    "conjugate": lambda: torch.arange(3).to(torch.complex64).conj(),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "many": lambda: [torch.full((3,), float(i)) for i in range(300)],
}
"""What to save, by name."""


def write(pieces: Sequence[copying.Piece], path: Path) -> Path:
    """Put pieces into a file, and see that their length was foretold."""
    with path.open("wb") as file:
        copying.write(pieces, file.fileno())
    assert path.stat().st_size == copying.total(pieces)
    return path


def rewritten(
    document: Document,
    path: Path,
    edits: Sequence[Edit] = (),
    scan: Sequence[TensorRef] = (),
    provenance: dict[str, Any] | None = None,
) -> Path:
    """`formats.rewrite` into a file."""
    return write(formats.rewrite(document, edits, scan=scan, provenance=provenance), path)


def pickle_of(path: Path) -> bytes:
    """The data.pkl of a zip file."""
    with zipfile.ZipFile(path) as file:
        return file.read(next(n for n in file.namelist() if n.endswith("/data.pkl")))


def opcodes(pickle: bytes | BinaryIO) -> list[tuple[str, Any]]:
    """Opcodes and arguments, memo slots numbered as they are filled, frames left out."""
    found: list[tuple[str, Any]] = []
    slots: dict[Any, int] = {}
    filled = 0
    for opcode, argument, _ in pickletools.genops(pickle):
        name = opcode.name
        if name == "FRAME":
            continue
        if "PUT" in name or name == "MEMOIZE":
            slots[filled if name == "MEMOIZE" else argument] = filled
            name, argument, filled = "PUT", None, filled + 1
        elif "GET" in name:
            name, argument = "GET", slots[argument]
        found.append((name, argument))
    return found


def assert_same(first: Any, second: Any) -> None:
    """Equal objects, and where one has an alias the other has it too."""
    pairs = [(first, second, "")]
    forth: dict[Any, Any] = {}
    back: dict[Any, Any] = {}
    keep: list[Any] = []  # so that no id is used twice
    while pairs:
        a, b, path = pairs.pop()
        assert type(a) is type(b), path
        if isinstance(a, _ATOMS) or (type(a) is tuple and not a):
            assert repr(a) == repr(b), path
            continue
        keep += [a, b]
        known = id(a) in forth
        for x, y in _identities(a, b):
            assert (forth.setdefault(x, y), back.setdefault(y, x)) == (y, x), f"aliases at {path}"
        if not known:
            pairs += [(x, y, f"{path}.{name}") for x, y, name in _parts(a, b, path)]


_ATOMS = (
    type(None), int, float, complex, str, bytes, bytearray, type, set, frozenset, enum.Enum,
    np.generic, torch.dtype, torch.device, torch.Size, pathlib.PurePath, datetime.date,
)  # fmt: skip


def _identities(a: Any, b: Any) -> list[tuple[Any, Any]]:
    """What must be shared in both or in neither: the object, and a tensor's storage."""
    found = [(id(a), id(b))]
    if isinstance(a, torch.Tensor) and a.layout is torch.strided and a.untyped_storage().nbytes():
        found.append(
            (("storage", a.untyped_storage()._cdata), ("storage", b.untyped_storage()._cdata))
        )
    return found


def _parts(a: Any, b: Any, path: str) -> list[tuple[Any, Any, str]]:
    if isinstance(a, torch.Tensor):
        _assert_same_tensors(a, b, path)
        return []
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, path
        assert np.array_equal(a, b), path
        return []
    if isinstance(a, torch.UntypedStorage):
        assert bytes(a) == bytes(b), path
        return []
    parts = []
    if isinstance(a, dict):
        assert list(map(repr, a)) == list(map(repr, b)), path
        parts += [(x, y, str(k)) for (k, x), y in zip(a.items(), b.values(), strict=True)]
    elif isinstance(a, (list, tuple, collections.deque)):
        assert len(a) == len(b), path
        parts += [(x, y, str(i)) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    if hasattr(a, "__dict__"):
        parts.append((vars(a), vars(b), "__dict__"))
    return parts


def _assert_same_tensors(a: torch.Tensor, b: torch.Tensor, path: str) -> None:
    assert (a.dtype, a.shape, a.requires_grad) == (b.dtype, b.shape, b.requires_grad), path
    assert a.layout is b.layout, path
    if a.layout is not torch.strided:
        assert torch.equal(a.to_dense(), b.to_dense()), path
        return
    assert (a.stride(), a.storage_offset()) == (b.stride(), b.storage_offset()), path
    assert a.is_conj() == b.is_conj(), path
    assert _bytes(a) == _bytes(b), path


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().resolve_conj().contiguous().clone().untyped_storage())
