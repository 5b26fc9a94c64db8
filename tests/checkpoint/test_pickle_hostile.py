"""Pickles made to harm: they run nothing, and end soon in an error or in inert nodes."""

from __future__ import annotations

import builtins
import collections
import pickle
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint.document import (
    Delete,
    Edit,
    Insert,
    Opaque,
    Place,
    Replace,
    TensorRef,
    Value,
    tensors,
)
from liontool.checkpoint.formats.pickle_emit import emit
from liontool.checkpoint.formats.pickle_parse import parse
from liontool.checkpoint.formats.pickle_tree import MappingView, Tree, collect_storages
from liontool.errors import FormatError
from support.pickles import data_of, tree_of


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def number(value: int) -> bytes:
    return value.to_bytes(4, "little")


def everything(tree: Tree) -> list[Value]:
    """Every value below a tree, opaque arguments and states included, each once."""
    found: dict[int, Value] = {}
    todo = [tree.value]
    while todo:
        value = todo.pop()
        if id(value) in found:
            continue
        found[id(value)] = value
        if isinstance(value, MappingView):
            todo.extend([*value, *value.values()])
        elif isinstance(value, Opaque):
            todo.extend([value.arguments, value.state])
        elif hasattr(value, "kind"):
            todo.extend(value)
    return list(found.values())


def use(data: bytes) -> Tree:
    """All that can be done with a pickle."""
    tree = tree_of(data)
    collect_storages(tree.root)
    everything(tree)
    collections.deque(tensors(tree.value), maxlen=0)
    value = tree.value
    if isinstance(value, MappingView) and len(value):
        key = next(iter(value))
        edits: list[Edit] = [Delete(Place("", (key,))), Replace(Place("", (key,)), value)]
        edits.append(Insert(Place("", ("new key",)), value))
        for edit in edits:
            with tree.edited([edit]) as root:
                parse(emit(root, 2), where="edited")
    parse(emit(tree.root, 4), where="again")
    return tree


def imported_by(monkeypatch: pytest.MonkeyPatch, data: bytes) -> list[str]:
    """Names of the modules that are imported while a pickle is used."""
    imported: list[str] = []
    original = builtins.__import__

    def watch(name: str, *args: Any, **options: Any) -> Any:
        imported.append(name)
        return original(name, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(builtins, "__import__", watch)
        use(data)
    return imported


class Attack:
    """Reduces to a call of something dangerous."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def attacks(command: str) -> dict[str, bytes]:
    """Pickles that run `command`, or code that does the same, if they are unpickled."""
    import os

    code = f"__import__('os').system({command!r})"
    line = command.encode()
    text = b"X" + number(len(line)) + line
    made = {f"system, protocol {p}": pickle.dumps(Attack(os.system, command), p) for p in range(6)}
    made |= {f"eval, protocol {p}": pickle.dumps(Attack(eval, code), p) for p in range(6)}
    made |= {
        "INST": b"(S" + repr(command).encode() + b"\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text + b"o.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n" + text + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04cos\nsystem\n" + text + b"\x85}\x92.",
        "STACK_GLOBAL": short("posix") + short("system") + b"\x93" + text + b"\x85R.",
        "STACK_GLOBAL by way of the memo": (
            short("system") + b"\x940" + short("posix") + b"\x940h\x01h\x00\x93" + text + b"\x85R."
        ),
        "dotted name": short("os") + short("path.os.system") + b"\x93" + text + b"\x85R.",
        "dropped before the object": b"cos\nsystem\n" + text + b"\x85R0}.",
        "dropped inside of a mark": b"](cos\nsystem\n" + text + b"\x85R1.",
        "state": b"cargparse\nNamespace\n)Rcos\nsystem\n" + text + b"\x85Rb.",
        "key": b"}(cos\nsystem\n" + text + b"\x85RNu.",
        "computed function": b"cbuiltins\ngetattr\ncos\nsystem\n" + short("__call__") + b"\x86R"
        + text + b"\x85R.",
        "overwritten memo": b"Nq\x000cos\nsystem\nq\x000h\x00" + text + b"\x85R.",
        "tensor function": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n"
        + text + b"\x85NtR.",
        "numpy scalar": b"cnumpy.core.multiarray\nscalar\ncos\nsystem\n" + text + b"\x85R"
        + text + b"\x86R.",
        "persistent id": b"cos\nsystem\n" + text + b"\x85RQ.",
        "set state of a class": b"cos\nPathLike\n}" + short("x") + b"Nsb.",
        "import": b"cantigravity\nfly\n)R.",
    }  # fmt: skip
    return made


@pytest.mark.parametrize("name", attacks("true"))
def test_nothing_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles that would run a command are read, shown and written, and nothing happens."""
    mark = tmp_path / "mark"
    data = attacks(f"touch {mark}")[name]
    imported = imported_by(monkeypatch, data)
    assert not mark.exists()
    assert not {"posix", "os", "antigravity", "numpy", "torch", "argparse"} & set(imported)
    assert "antigravity" not in sys.modules


def test_attack_is_shown_by_name() -> None:
    """What would be called is there to be seen."""
    view = tree_of(attacks("echo")["STACK_GLOBAL"]).value
    assert (view.name, list(view.arguments)) == ("posix.system", ["echo"])


def test_attack_is_carried_along() -> None:
    """Calls made for their effect are written again at the same place."""
    for name in ("dropped before the object", "dropped inside of a mark"):
        data = attacks("echo")[name]
        assert emit(parse(data, where="x")[0], 1) == data


def laughs(depth: int) -> bytes:
    """Lists of ten times the list before: 10**depth values in a few bytes."""
    made = b"\x80\x02]q\x000"
    for i in range(depth):
        made += b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1])
        made += b"0" if i < depth - 1 else b""
    return made + b"."


BOMBS = {
    "billion laughs": b"\x80\x02N0" + laughs(60)[2:],
    "doubled by DUP": b"\x80\x02]" + b"2\x86" * 200 + b".",
    "dict shared by calls": b"\x80\x02}("
    + b"".join(b"K\x01J" + number(i) for i in range(3000))
    + b"uq\x000]("
    + b"ccollections\nOrderedDict\nh\x00\x85R" * 3000
    + b"e.",
    "arguments shared by calls": b"\x80\x02("
    + b"N" * 5000
    + b"tq\x000]("
    + b"ccollections\nOrderedDict\nh\x00R" * 3000
    + b"cx\ny\nh\x00R" * 3000
    + b"e.",
    "text shared by calls": b"\x80\x02X"
    + number(1 << 20)
    + b"a" * (1 << 20)
    + b"q\x000]("
    + b"c_codecs\nencode\nh\x00\x8c\x06latin1\x86R" * 3000
    + b"e.",
    "keys that collide": b"\x80\x02}("
    + b"".join(
        b"\x8a\x0c" + (i * ((1 << 61) - 1)).to_bytes(12, "little") + b"N" for i in range(20_000)
    )
    + b"u.",
    "dropped one after the other": b"\x80\x02]" + b"N0" * 50_000 + b".",
    "dropped before the object": b"\x80\x02" + b"N0" * 50_000 + b"].",
    "marks dropped": b"\x80\x02" + b"(0" * 30_000 + b"].",
    "state of itself": b"\x80\x02cx\ny\n)Rq\x00h\x00b.",
    "key of itself": b"\x80\x02ccollections\nOrderedDict\n)Rq\x00h\x00Ns.",
    "list of itself": b"\x80\x02]q\x00(h\x00h\x00e.",
    "sparse memo": b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xff.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    """Nothing costs more than the bytes that ask for it."""
    data = BOMBS[name]
    assert len(emit(use(data).root, 2)) <= 4 * len(data) + 100


def test_sizes_shared_by_tensors() -> None:
    """Thousands of tensors with one huge tuple of sizes are refused at the first."""
    pid = b"(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010NK\x01tQ"
    one = b"ctorch._utils\n_rebuild_tensor\n(" + pid + b"K\x00h\x00h\x00tR"
    with pytest.raises(FormatError, match="whole numbers"):
        use(b"\x80\x02(" + b"K\x01" * 20_000 + b"tq\x000](" + one * 3000 + b"e.")


@pytest.fixture(scope="module")
def honest() -> list[bytes]:
    """What torch writes, of several kinds."""
    weights = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))]
    optimizer = torch.optim.AdamW(weights, amsgrad=True)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    tied = torch.nn.Linear(2, 2)
    return [
        data_of(optimizer.state_dict()),
        data_of({"optimizer": optimizer.state_dict(), "lr": scheduler.state_dict()}),
        data_of({"weights": weights, "again": weights, "model": tied.state_dict()}),
        data_of(tied),
    ]


def test_mutated_files_of_torch(honest: list[bytes]) -> None:
    """Damaged data.pkl end in a FormatError of one line, or can be read, edited and written."""
    rng = random.Random(1)
    outcomes = collections.Counter[str]()
    for _ in range(1500):
        data = bytearray(rng.choice(honest))
        for _ in range(rng.randint(1, 6)):
            _damage(data, rng)
        try:
            use(bytes(data))
        except FormatError as error:
            outcomes["refused"] += 1
            outcomes["several lines"] += "\n" in str(error)
        else:
            outcomes["fine"] += 1
    assert outcomes["refused"] > 300
    assert outcomes["fine"] > 100
    assert not outcomes["several lines"]


def _damage(data: bytearray, rng: random.Random) -> None:
    at, other = rng.randrange(len(data)), rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at] = rng.choice(b"h}](tuaesbR\x85\x86\x87K\x88NQ02.")
    elif kind == 2:
        data[at:at] = data[other : other + rng.randint(1, 40)]
    elif kind == 3:
        del data[at : at + rng.randint(1, 10)]
    else:  # another memo entry than the one that is meant
        found = data.find(b"h", at)
        if 0 <= found < len(data) - 1:
            data[found + 1] = rng.randrange(40)


def test_random_bytes() -> None:
    """Random bytes behind a proper start are no pickle, and say so."""
    rng = random.Random(2)
    refused = 0
    for _ in range(2000):
        data = b"\x80\x02" + bytes(rng.choice(OPCODES) for _ in range(rng.randint(1, 60))) + b"."
        try:
            use(data)
        except FormatError:
            refused += 1
    assert refused > 500


OPCODES = b"N)]}(0123\x85\x86\x87tlaesudb\x88\x89Rh\x00q\x01\x8f\x90\x91\x94\x8f2K2"


def test_tensors_among_mutated_files_lie_in_their_storages(honest: list[bytes]) -> None:
    """Whatever tensor comes out of a damaged file lies inside of its storage."""
    rng = random.Random(3)
    checked = 0
    for _ in range(300):
        data = bytearray(honest[0])
        data[rng.randrange(len(data))] = rng.randrange(12)
        try:
            found = [value for value in everything(tree_of(bytes(data))) if _is_tensor(value)]
        except FormatError:
            continue
        for tensor in found:
            source = tensor.source
            last = sum((n - 1) * s for n, s in zip(tensor.shape, source.stride, strict=True))
            size = source.storage.span.length // 4
            assert not tensor.numel or source.offset + last < size
            checked += 1
    assert checked > 1000


def _is_tensor(value: Value) -> bool:
    return isinstance(value, TensorRef) and value.dtype == "float32"
