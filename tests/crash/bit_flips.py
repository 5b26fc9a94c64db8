"""A bit that has changed, or an end that is missing: the checkpoint is refused, and named."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from pathlib import Path

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.run_folder.layout import COMMIT, FACTS, tensors_name, tree_name
from liontool.errors import DamagedError, LiontoolError, UnfinishedError
from support.crash_part import Part

SMALL = (COMMIT, FACTS, tree_name())


def header_length(checkpoint: Path) -> int:
    """How many bytes of the file with the tensors come before the first of them."""
    with open(checkpoint / tensors_name(), "rb") as file:
        return 8 + int(struct.unpack("<Q", file.read(8))[0])


def flips(checkpoint: Path, chance: random.Random, share: float) -> Iterable[tuple[str, int]]:
    """Which bits of the small files and of the header to flip: (file, bit).

    Args:
        checkpoint: Its folder.
        chance: Random numbers.
        share: Which part of the bits, 1 for all; of COMMIT always all.
    """
    lengths = {name: (checkpoint / name).stat().st_size for name in SMALL}
    lengths[tensors_name()] = header_length(checkpoint)
    for name, length in lengths.items():
        for bit in range(length * 8):
            if name == COMMIT or chance.random() < share:
                yield name, bit


def payload_flips(checkpoint: Path, chance: random.Random, count: int) -> list[tuple[str, int]]:
    """Random bits of the tensors: (file, bit)."""
    begin = header_length(checkpoint)
    end = (checkpoint / tensors_name()).stat().st_size
    return [(tensors_name(), chance.randrange(begin * 8, end * 8)) for _ in range(count)]


def flipped(part: Part, checkpoint: Path, bits: Iterable[tuple[str, int]], kind: str) -> None:
    """Flip each bit alone; `check` must refuse the checkpoint and say which file it is."""
    for name, bit in bits:
        path = checkpoint / name
        byte, mask = bit // 8, 1 << bit % 8
        with open(path, "r+b", buffering=0) as file:
            file.seek(byte)
            old = file.read(1)
            file.seek(byte)
            file.write(bytes([old[0] ^ mask]))
            _refused(part, checkpoint, name, f"bit {bit} of {name}", kind)
            file.seek(byte)
            file.write(old)
    check(checkpoint)


def truncated(part: Part, checkpoint: Path, share: float, chance: random.Random) -> None:
    """Cut the small files off at every byte, and the tensors at every byte of the header."""
    for name in (*SMALL, tensors_name()):
        path = checkpoint / name
        whole = path.read_bytes()
        end = header_length(checkpoint) if name == tensors_name() else len(whole)
        for length in range(end):
            if name == COMMIT or chance.random() < share:
                path.write_bytes(whole[:length])
                _refused(part, checkpoint, name, f"{name} cut off at {length}", "cut off")
        path.write_bytes(whole)
    check(checkpoint)


def deleted(part: Part, checkpoint: Path) -> None:
    """Take each file away."""
    for name in (*SMALL, tensors_name()):
        path = checkpoint / name
        hidden = path.rename(checkpoint.parent / "elsewhere")
        _refused(part, checkpoint, name, f"{name} missing", "missing")
        hidden.rename(path)
    check(checkpoint)


def _refused(part: Part, checkpoint: Path, name: str, what: str, kind: str) -> None:
    part.counts[kind] += 1
    try:
        check(checkpoint)
    except (DamagedError, UnfinishedError) as error:
        if name not in str(error):
            part.problem(f"{what}: {name} is not named: {error}")
    except LiontoolError as error:
        part.problem(f"{what}: is not called damaged: {error!r}")
    else:
        part.problem(f"{what}: was not noticed")
    if part.counts[kind] % 50 == 1:
        _falls_back(part, checkpoint, what)


def _falls_back(part: Part, checkpoint: Path, what: str) -> None:
    """The one before it is chosen, and this one is told of."""
    part.counts["fell back to the one before"] += 1
    choice = choose(checkpoint.parent)
    if [one.path for one in choice.refused] != [checkpoint] or choice.chosen is None:
        part.problem(f"{what}: {choice}")


def all_flips(part: Part, checkpoint: Path, *, share: float, payload: int) -> None:
    """Everything above.

    Args:
        part: Where to count.
        checkpoint: The newest of a run that has one more.
        share: Which part of the bits and lengths of the small files to try, 1 for all.
        payload: How many bits of the tensors.
    """
    chance = random.Random(part.seed)
    flipped(part, checkpoint, flips(checkpoint, chance, share), "bits of the small files")
    flipped(part, checkpoint, payload_flips(checkpoint, chance, payload), "bits of the tensors")
    truncated(part, checkpoint, share, chance)
    deleted(part, checkpoint)


def bits_of_a_run(part: Part, folder: Path, payload: int) -> None:
    """The small files as a real run writes them, every bit and every length."""
    from crash.kills import training
    from support.crash_server import Child
    from support.crash_trainer import Plan, warm_up

    warm_up()
    plan = Plan(folder / "run", steps=4, save_every=2)
    child = Child(training(plan), folder / "errors")
    assert child.end() == 0, child.complaints()
    child.close()
    newest = choose(plan.folder).chosen
    assert newest is not None
    all_flips(part, newest, share=1, payload=payload)
