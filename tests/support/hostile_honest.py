"""One good checkpoint of each container and of each kind of folder, in bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from support import hostile_trees as trees
from support.hostile_containers import legacy, put, safetensors, torch_zip
from support.hostile_safetensors import state_file
from support.hostile_trees import Storages


@dataclass(frozen=True)
class Honest:
    """A checkpoint.

    Attributes:
        name: Of the file or folder.
        files: Every file by its name, those beside `name` too.
        targets: Names of the files that are damaged in turn.
    """

    name: str
    files: Mapping[str, bytes]
    targets: Sequence[str]

    @property
    def is_folder(self) -> bool:
        return self.name not in self.files

    def put(self, folder: Path, prefix: str = "") -> str:
        """Write it all, with `prefix` before its name; returns the name."""
        for name, data in self.files.items():
            place = prefix + name if name.startswith(self.name) else name
            (folder / place).parent.mkdir(exist_ok=True)
            put(folder, place, data)
        return prefix + self.name


FILES = ("torch-zip", "legacy", "safetensors", "index")
FOLDERS = ("trainer-folder", "pickles-folder", "shards-folder")


@cache
def honest(container: str) -> Honest:
    """One good checkpoint, by the name of its container."""
    zipped, old = Storages(), Storages((None,))
    if container == "torch-zip":
        return _file("a.ckpt", torch_zip(trees.lightning(zipped), zipped))
    if container == "legacy":
        return _file("a.pt", legacy(trees.loop(old), old))
    if container == "safetensors":
        return _file("a.safetensors", safetensors(*state_file()))
    if container == "index":
        name, shard = "m.safetensors.index.json", "m-00001-of-00001.safetensors"
        names = [name for name in state_file()[0] if name.startswith("state.")]
        files = {name: _index(dict.fromkeys(names, shard)), shard: safetensors(*state_file())}
        return Honest(name, files, [name])
    files = dict({"trainer-folder": _trainer, "pickles-folder": _pickles}.get(container, _shards)())
    return Honest(container, {f"{container}/{n}": d for n, d in files.items()},
                  [f"{container}/{n}" for n in files])  # fmt: skip


def _file(name: str, data: bytes) -> Honest:
    return Honest(name, {name: data}, [name])


def _index(weight_map: Mapping[str, str], size: int = 48) -> bytes:
    return json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}).encode()


def _trainer() -> Iterator[tuple[str, bytes]]:
    """What transformers' Trainer writes, with weights in shards."""
    storages, state = Storages(), {"global_step": 30, "epoch": 1.5, "max_steps": 100}
    yield "optimizer.pt", torch_zip(trees.adamw(storages), storages)
    yield "scheduler.pt", torch_zip(trees.scheduler(0), Storages())
    kind = trees.Global("transformers.training_args", "TrainingArguments")
    arguments = trees.Call(kind, (), "newobj", {"learning_rate": 9e-4, "optim": "adamw_torch"})
    yield "training_args.bin", torch_zip(arguments, Storages())
    yield "trainer_state.json", json.dumps(state).encode()
    yield from _shards()


def _pickles() -> Iterator[tuple[str, bytes]]:
    """Weights in pickles, as torch wrote them and as it writes them."""
    old, zipped = Storages((None,)), Storages()
    weights = {"a.w": old.tensor(2, 3), "a.step": old.tensor(3)}
    yield "pytorch_model-00001-of-00002.bin", legacy(weights, old)
    weights = {"b.w": zipped.tensor(2, 3), "b.step": zipped.tensor(3)}
    yield "pytorch_model-00002-of-00002.bin", torch_zip(weights, zipped)


def _shards() -> Iterator[tuple[str, bytes]]:
    names = {f"model-0000{i + 1}-of-00002.safetensors": (f"{i}.w", f"{i}.step") for i in range(2)}
    yield from ((shard, _weights(*held)) for shard, held in names.items())
    index = {name: shard for shard, held in names.items() for name in held}
    yield "model.safetensors.index.json", _index(index, 32)


def _weights(*names: str) -> bytes:
    """A tensor of two floats by each name."""
    header = {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]}
        for i, name in enumerate(names)
    }
    return safetensors(header, struct.pack("<2f", 0.5, -1.5) * len(names))
