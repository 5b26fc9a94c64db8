"""Folders made to harm, and files that are odd in themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

from support import hostile_lies as lies
from support import hostile_trees as trees
from support.hostile_containers import (
    MAGIC,
    SYSTEM,
    VERSION,
    Name,
    damaged,
    honest,
    put,
    safetensors,
    torch_zip,
)
from support.hostile_safetensors import json_with_lies
from support.hostile_trees import Global, Raw, Storages, pickled


def hf_folders(rng: Random, folder: Path, marker: str) -> Name:
    """Trainer's folders with lies in their files, links that lead out, pipes, and parts missing."""
    home = folder / "checkpoint-30"
    home.mkdir()
    storages = Storages()
    optimizer: Any = trees.adamw(storages)
    state: Any = {"global_step": 30, "epoch": 1.5, "log_history": [{"loss": 1.0}]}
    arguments: Any = trees.Call(
        Global("transformers.training_args", "TrainingArguments"),
        (),
        "newobj",
        {"learning_rate": 1e-3},
    )
    schedule: Any = trees.scheduler(0)
    liar = rng.randrange(6)
    if liar == 0:
        optimizer = lies.with_lies(optimizer, rng, marker)
    elif liar == 1:
        schedule = lies.with_lies(schedule, rng, marker)
    elif liar == 2:
        arguments = trees.Call(arguments.what, (), "newobj", lies.with_lies(
            {"learning_rate": 1e-3, "optim": "adamw", "warmup_steps": 5}, rng, marker))  # fmt: skip
    elif liar == 3:
        state = rng.choice([json_with_lies(state, rng), lies.json_lie(rng)])
    put(home, "optimizer.pt", torch_zip(optimizer, storages))
    put(home, "scheduler.pt", torch_zip(schedule, Storages()))
    put(home, "training_args.bin", torch_zip(arguments, Storages()))
    put(home, "trainer_state.json", json.dumps(state).encode())
    put(home, "model.safetensors", safetensors({}, b""))
    if liar > 3:
        _spoil_folder(home, rng)
    return home.name


_TEXTS = (
    b"{" * 10**5, b'{"a":' * 10**4, b"[]", b"\xff", b"NaN", b"1e999", b"9" * 5000, b'"\\ud800"',
)  # fmt: skip


def _spoil_folder(home: Path, rng: Random) -> None:
    victim = home / rng.choice(["optimizer.pt", "scheduler.pt", "training_args.bin",
                                "trainer_state.json", "model.safetensors"])  # fmt: skip
    data = victim.read_bytes()
    victim.unlink()
    way = rng.choice(["gone", "link", "near", "loop", "pipe", "folder", "damaged", "empty", "text",
                      "name", "moved"])  # fmt: skip
    if way == "link":
        victim.symlink_to(rng.choice(["/etc/passwd", "../../x", "nothing", "/dev/zero", "..", "/"]))
    elif way == "near":
        put(home, "real", data)
        victim.symlink_to("real")
    elif way == "loop":
        victim.symlink_to(victim.name)
    elif way == "pipe":
        os.mkfifo(victim)
    elif way == "folder":
        victim.mkdir()
        put(victim, "x", data)
    elif way == "damaged":
        victim.write_bytes(damaged(data, rng))
    elif way == "empty":
        victim.write_bytes(b"")
    elif way == "text":
        victim.write_bytes(rng.choice(_TEXTS))
    elif way == "name":
        victim.write_bytes(data)
        put(home, rng.choice(["\x1b[2J.pt", "a\nb.safetensors", "\udcff.bin", "-x.pt"]), b"x")
    elif way == "moved":
        inner = home / rng.choice(["checkpoint-5", "checkpoint-" + "9" * 200, "checkpoint-٣"])
        inner.mkdir()
        put(inner, victim.name, data)


_HEADS = (
    b"", b"\0", b"P", b"PK\x03\x04", b"PK\x05\x06", b"PK\x05\x06" + b"\0" * 18, b"\x80",
    b"\x80\x02",
    b"{", b"[", b"{}", b"null", b"L", b"\x1f\x8b", b"GGUF", b"version https://git-lfs", b"<html>",
    b" " * 9, b"\0" * 999, b"\xff" * 99, b"\x08\0\0\0\0\0\0\0{}      ", b"\xff" * 7 + b"\x7f{",
    b"\x02\0\0\0\0\0\0\0{}", b"\x80\x02\x8a\x0alF\xf9\x20j\xa8P\x19", b"[" * 10**5, b"[]",
    b'{"a":1}',
    pickled(MAGIC) + pickled(VERSION) + pickled(SYSTEM), pickled(MAGIC) + pickled(1),
    pickled(MAGIC) + pickled(VERSION) + pickled(SYSTEM) + b"}." * 2,
    pickled(MAGIC) + pickled(VERSION) + pickled({"little_endian": Raw(b"]")}) + b"}." * 2,
)  # fmt: skip
_FILES = (
    "a.pt", "a", "a.ckpt", "-x.pt", "--force", "a\nb.pt", "\x1b[2J.pt", "\u202e.ckpt", "\udcff.pt",
    "a b.pt", "'.pt", "$(touch x).pt", "[red].pt", "%s.pt", "a.safetensors", ".pt",
    "...", "x" * 250,
)  # fmt: skip


def odd_files(rng: Random, folder: Path, marker: str) -> Name:
    """Empty files, single bytes, heads of every format, sparse giants, things that are no files."""
    name = rng.choice(_FILES)
    path = folder / name
    what = rng.choice(["head", "head", "tail", "sparse", "good", "good", "no file"])
    if what == "no file":
        return _no_file(rng, folder, name)
    if what == "good":
        return put(folder, name, torch_zip(*honest(rng)))
    path.write_bytes(
        rng.choice(_HEADS) + (rng.randbytes(rng.randrange(600)) if what == "tail" else b"")
    )
    if what == "sparse":
        os.truncate(path, rng.choice([2**20, 2**30, 2**42]))
        if rng.random() < 0.3:
            with path.open("ab") as file:
                file.write(torch_zip(*honest(rng))[-22:])
    return name


def _no_file(rng: Random, folder: Path, name: Name) -> Name:
    path = folder / name
    what = rng.choice(["pipe", "loop", "dangling", "device", "folder", "nothing", "full"])
    if what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(name)
    elif what == "dangling":
        path.symlink_to("nowhere")
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what in ("folder", "full"):
        path.mkdir()
        if what == "full":
            for other in rng.sample(_FILES, 5):
                put(path, other, rng.choice(_HEADS))
    return name
