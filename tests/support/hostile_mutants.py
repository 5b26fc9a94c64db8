"""Honest checkpoints of each container, changed a little: bits, runs of bytes, numbers, headers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from support.hostile_containers import damaged
from support.hostile_honest import FILES, honest

Mutator = Callable[[bytearray, Random], None]


def mutant(container: str, number: int) -> tuple[str, bytes]:
    """The name and the bytes of a mutated file; the same ones in every run."""
    rng = Random(f"{container} {number}")
    whole = honest(container)
    name = whole.targets[number // len(_MUTATORS) % len(whole.targets)]
    changed = bytearray(whole.files[name])
    _MUTATORS[number % len(_MUTATORS)](changed, rng)
    return name, bytes(changed)


def _flips(data: bytearray, rng: Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cuts(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data))
    what = rng.choice(["end", "end", "begin", "middle", "more", "twice"])
    if what == "end":
        del data[at:]
    elif what == "begin":
        del data[: rng.choice([1, 2, 8, at])]
    elif what == "middle":
        del data[at : at + rng.choice([1, 2, 4, 8, 64])]
    elif what == "more":
        place = rng.choice([0, at, len(data)])
        data[place:place] = rng.randbytes(rng.choice([1, 4, 64]))
    else:
        data += bytes(data)


def _splices(data: bytearray, rng: Random) -> None:
    """Runs of bytes of the same file, or of another container's, at other places."""
    other = honest(rng.choice(FILES))
    donor = rng.choice([bytes(data), other.files[other.name]])
    for _ in range(rng.choice([1, 1, 3])):
        length = rng.choice([4, 8, 16, 46, 200])
        start, at = rng.randrange(len(donor)), rng.randrange(len(data))
        end = at + (length if rng.random() < 0.6 else 0)
        data[at:end] = donor[start : start + length]


def _lengths(data: bytearray, rng: Random) -> None:
    """Numbers of a header exchanged for those that readers stumble over."""
    marks = [m for m in _MARKS if m in data] or [bytes(data[:1])]
    for _ in range(rng.choice([1, 1, 2])):
        places = _all(data, rng.choice(marks))
        at = rng.choice(places) + rng.randrange(46) if places else 0
        at = rng.choice([at, 0]) if len(marks) == 1 else at
        width = rng.choice([1, 2, 4, 8])
        value = rng.choice([0, 1, 8, 0xFFFF, 2**31, 2**32 - 1, 2**62, 2**64 - 1, len(data), at])
        data[at : at + width] = (value % 256**width).to_bytes(width, "little")


_MARKS = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04", b"\x06\0\0\0\0\0\0\0")


def _all(data: bytearray, mark: bytes) -> list[int]:
    return [at for at in range(len(data)) if data.startswith(mark, at)]


def _headers(data: bytearray, rng: Random) -> None:
    """Words and digits of pickles and JSON exchanged for others."""
    words = [word for word in _WORDS if word in data]
    for _ in range(rng.choice([1, 1, 2, 5])):
        if not words:
            return
        places = _all(data, rng.choice(words))
        if places:
            at, new = rng.choice(places), rng.choice(_WORDS)
            same = rng.random() < 0.5  # else every length after it is wrong
            data[at : at + len(new)] = new if same else new + b" "


_WORDS = (
    b"state", b"exp_avg", b"exp_avg_sq", b"step", b"params", b"param_groups", b"lr", b"betas",
    b"base_lrs", b"last_epoch", b"data.pkl", b"version", b"byteorder", b"little", b"data/0",
    b"F32", b"I64", b"BF16", b"shape", b"dtype", b"data_offsets", b"[2]", b"[]", b"[0, 8]",
    b"__metadata__", b"liontool.schema", b"liontool.param_groups", b"weight_map", b"metadata",
    b"FloatStorage", b"HalfStorage", b"torch", b"posix", b"_rebuild_tensor_v2", b"{", b"}",
    b"m-00001-of-00001.safetensors", b"../", b"\x1b[2J", b"null", b"NaN", b"1e999", b"-1", b"true",
    b"}q", b"]q", b"(", b"tR", b"u.", b"\x85", b"0", b"9999999999999999999",
)  # fmt: skip


def _damage(data: bytearray, rng: Random) -> None:
    data[:] = damaged(bytes(data), rng)


_MUTATORS: tuple[Mutator, ...] = (_flips, _cuts, _splices, _lengths, _headers, _damage)
