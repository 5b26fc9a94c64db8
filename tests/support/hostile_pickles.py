"""Pickles made to harm, in torch zips, in legacy torch files and bare."""

from __future__ import annotations

import pickletools
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from support import hostile_lies as lies
from support import hostile_trees as trees
from support.hostile_containers import (
    TREES,
    Name,
    damaged,
    honest,
    legacy,
    put,
    torch_records,
    torch_zip,
    zip_of,
)
from support.hostile_trees import Storages, pickled


def _in_zip(rng: Random, folder: Path, pickle: bytes, storages: Storages | None = None) -> Name:
    data = zip_of(torch_records(pickle, (storages or Storages()).data))
    return put(folder, rng.choice(["a.pt", "a.ckpt", "a.bin"]), data)


def pickle_bytes(rng: Random, folder: Path, marker: str) -> Name:
    """A good zip around a pickle whose bytes were changed."""
    tree, storages = honest(rng)
    return _in_zip(rng, folder, damaged(pickled(tree, rng.randrange(6)), rng), storages)


def pickle_opcodes(rng: Random, folder: Path, marker: str) -> Name:
    """Opcodes exchanged, doubled, put in or left out, with arguments whole."""
    steps = list(_steps(rng.choice(TREES).__name__, rng.randrange(6)))
    for _ in range(rng.choice([1, 1, 2, 4, 12])):
        at, other = rng.randrange(len(steps)), rng.randrange(len(steps))
        what = rng.choice(["swap", "gone", "twice", "put", "put", "code"])
        if what == "swap":
            steps[at], steps[other] = steps[other], steps[at]
        elif what == "gone":
            del steps[at]
        elif what == "twice":
            steps.insert(at, steps[other])
        elif what == "put":
            steps.insert(at, rng.choice(_OPCODES))
        else:
            steps[at] = bytes([rng.choice(_CODES)]) + steps[at][1:]
    storages = Storages()
    for count in (1, 6, 6, 1, 3, 3, 1, 2, 2):
        storages.tensor(count)
    return _in_zip(rng, folder, b"".join(steps), storages)


@cache
def _steps(name: str, protocol: int) -> tuple[bytes, ...]:
    """A pickle, cut into its opcodes."""
    data = pickled(getattr(trees, name)(Storages()), protocol)
    starts = [at for _, _, at in pickletools.genops(data) if at is not None]
    return tuple(data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True))


_CODES = [ord(opcode.code) for opcode in pickletools.opcodes]
_OPCODES = (
    b"0", b"1", b"2", b"(", b")", b"]", b"}", b"l", b"t", b"d", b"a", b"e", b"s", b"u", b"o", b"b",
    b"R", b"Q", b"\x81", b"\x85", b"\x86", b"\x87", b"\x88", b"\x8f", b"\x90", b"\x91", b"\x92",
    b"\x93", b"\x94", b"\x97", b"\x98", b".", b"N", b"h\0", b"h\xff", b"j\xff\xff\xff\xff", b"q\0",
    b"r\xff\xff\xff\x7f", b"r\xff\xff\xff\xff", b"g0\n", b"g-1\n", b"p99999999\n", b"p-5\n",
    b"\x82\x01", b"\x83\xff\xff", b"\x84\xff\xff\xff\xff", b"Pevil\n", b"\x80\x00", b"\x80\xff",
    b"\x95" + b"\xff" * 8, b"\x95" + b"\0" * 8, b"\x8a\xff" + b"\x7f" * 255, b"\x8a\0",
    b"\x8b\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\xff", b"I" + b"9" * 5000 + b"\n", b"I01\n", b"Ix\n",
    b"L1L\n", b"L0x10L\n", b"F1e999\n", b"Fnan\n", b"F_\n", b"G" + b"\x7f\xf0" + b"\0" * 6,
    b"T\xff\xff\xff\xff", b"X\xff\xff\xff\xff", b"B\xff\xff\xff\xff", b"\x8d" + b"\xff" * 8,
    b"\x8e" + b"\xff" * 8, b"\x96" + b"\xff" * 8, b"X\x02\0\0\0\xed\xa0",
    b"X\x03\0\0\0\xed\xa0\x80",
    b"V\\ud800\n", b"V\\u12\n", b"S'x\n", b"S'\\x4'\n", b"cos\nsystem\n", b"c\n\n",
    b"ios\nsystem\n",
    b"c\xff\n\xfe\n", b"\x8c\x02os\x8c\x06system\x93", b"NN\x93", b"]]\x93",
)  # fmt: skip


def pickle_made(rng: Random, folder: Path, marker: str) -> Name:
    """Pickles that claim, nest, repeat, or would run something."""
    what = rng.choice(_MADE)
    data = what(rng, marker) if callable(what) else what
    if rng.random() < 0.2:
        return put(folder, "a.pkl", data if data[:1] == b"\x80" else b"\x80\x02" + data)
    return _in_zip(rng, folder, data)


def _put_opcode(index: int) -> bytes:
    return b"r" + index.to_bytes(4, "little")


_MADE: tuple[Any, ...] = (
    *[lambda rng, marker: pickled(lies.call(rng, marker), rng.randrange(6))] * 6,
    *[lambda rng, marker: pickled({"optimizer": lies.call(rng, marker)}, rng.randrange(6))] * 3,
    lambda rng, marker: b"]" * (n := rng.choice([10**3, 10**5, 10**6])) + b"a" * (n - 1) + b".",
    lambda rng, marker: b"(" * rng.choice([10**3, 10**6]) + b"t.",
    lambda rng, marker: b"(" * (n := rng.choice([10**3, 2 * 10**5])) + b"t" * n + b".",
    lambda rng, marker: b"N" + b"\x85" * rng.choice([10**3, 10**5]) + b".",
    lambda rng, marker: b"}" + b"".join(map(_put_opcode, range(10**5))) + b".",
    lambda rng, marker: b"}" + b"".join(map(_put_opcode, range(0, 4 * 10**8, 40_000))) + b".",
    lambda rng, marker: b"}" + b"q\0" * 10**5 + b".",
    lambda rng, marker: b"}" + b"\x94" * 10**5 + b".",
    lambda rng, marker: b"]q\0" + b"h\0a" * 10**5 + b".",
    lambda rng, marker: b"]q\0(" + b"h\0" * 10**5 + b"e.",
    lambda rng, marker: b"(" + b"N" * 10**5 + b"t" + b"2\x86" * 60 + b".",
    lambda rng, marker: b"]" + b"2a2a" * 30 + b".",
    lambda rng, marker: pickled(lies.laughs(), rng.randrange(6)),
    lambda rng, marker: pickled({"state": {}, "param_groups": lies.laughs({"params": []})}),
    lambda rng, marker: pickled({lies.CONTROL: lies.CONTROL, b"\xff": {(): []}}),
    lambda rng, marker: pickled({"a": 10**100_000}),
    lambda rng, marker: b"I" + b"7" * 10**6 + b"\n.",
    lambda rng, marker: b"L" + b"7" * 4000 + b"L\n.",
    lambda rng, marker: b"\x8b" + (10**6).to_bytes(4, "little") + b"\x55" * 10**6 + b".",
    lambda rng, marker: b"cos\nsystem\n" + b"b" * 9 + b".",
    lambda rng, marker: b"cos\nsystem\n(Utouch\ntR.",
    lambda rng, marker: b"(" + b"cos\nsystem\n" * 10**4 + b"o.",
    lambda rng, marker: b"ccollections\nOrderedDict\n)R" + b"Nb" * 10**4 + b".",
    lambda rng, marker: b"ccollections\nOrderedDict\nq\0)R" + b"(h\0)Rh\0)Ru" * 10**3 + b".",
    lambda rng, marker: b"(lp0\n(g0\ntp1\na(g1\ng0\nlp2\n.",
    b".", b"", b"N.", b"N.N.", b"}.", b"].", b")", b"NNNN.", b"0.", b"1.", b"\x80\x05.",
    b"\x80\x06N.",
    b"\x80\x04\x95\x01\0\0\0\0\0\0\0N.", b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    b"\x80", b"(dp0\n.", b"cfoo\nbar", b"Pos.system\n.", b"NQ.", b"(NQ.", b")Q.", b"}Q.",
)  # fmt: skip


def tensors(rng: Random, folder: Path, marker: str) -> Name:
    """Optimizers whose tensors lie about size, stride, offset, count, dtype and storage."""
    tree, storages = honest(rng)
    slots = [slot for slot in lies.slots(tree) if isinstance(slot[0][slot[1]], trees.Tensor)]
    for holder, key in rng.sample(slots, rng.choice([1, 1, 2, 5])):
        holder[key] = lies.tensor(rng)
    return put(folder, "a.pt", torch_zip(tree, storages))


def values(rng: Random, folder: Path, marker: str) -> Name:
    """Groups, states and schedulers with parts of the wrong kind, missing, shared or recursive."""
    tree, storages = honest(rng)
    tree = lies.with_lies(tree, rng, marker)
    return put(folder, "a.ckpt", torch_zip(tree, storages, rng.choice([2, 2, 2, 3, 4, 5])))


_FIELDS = (
    "lr", "betas", "eps", "weight_decay", "initial_lr", "max_lr", "step", "exp_avg", "params",
    "param_names", "base_lrs", "_last_lr", "last_epoch", "_schedulers", "T_max", "eta_min",
    "_milestones", "state", "param_groups", "optimizer_states", "lr_schedulers", "global_step",
    "epoch", "pytorch-lightning_version", "maximize", "decoupled_weight_decay", "_step_count",
)  # fmt: skip


def fields(rng: Random, folder: Path, marker: str) -> Name:
    """The fields that a conversion reads, each with a lie in it."""
    tree, storages = honest(rng)
    for _ in range(rng.choice([1, 1, 1, 2])):
        wanted = rng.choice(_FIELDS)
        slots = [slot for slot in lies.slots(tree) if slot[1] == wanted]
        for holder, key in slots if rng.random() < 0.5 else slots[:1]:
            holder[key] = _twisted(holder[key], rng, marker)
    return put(folder, "a.ckpt", torch_zip(tree, storages))


def _twisted(value: Any, rng: Random, marker: str) -> Any:
    """Another value, or one that has the old one in it."""
    ways = [
        lambda: lies.lie(rng, marker), lambda: lies.lie(rng, marker), lambda: [value],
        lambda: (value,), lambda: (value, value, value), lambda: {"x": value}, lambda: str(value),
        lambda: [value, lies.lie(rng, marker)], lambda: lies.tensor(rng),
    ]  # fmt: skip
    if isinstance(value, (list, tuple)) and value:
        ways += [lambda: value[:1], lambda: [*value, *value], lambda: [lies.lie(rng, marker)] * 2]
    return rng.choice(ways)()


def legacy_files(rng: Random, folder: Path, marker: str) -> Name:
    """Files of old torch, with damage, lies, and lists of storages that do not fit."""
    tree, storages = honest(rng, rng.choice([(), (None,), (None,), (None,)]))
    keys: Any = None
    what = rng.choice(["bytes", "bytes", "lies", "lies", "keys"])
    if what == "lies":
        tree = lies.with_lies(tree, rng, marker)
    if what == "keys":
        keys = rng.choice([[], ["0"], ["0"] * 99, list(range(99)), lies.lie(rng, marker), {"0": 1}])
    data = legacy(tree, storages, keys)
    return put(folder, "a.pt", damaged(data, rng) if what == "bytes" else data)
