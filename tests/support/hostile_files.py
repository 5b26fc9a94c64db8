"""Files and folders made to harm, by kind; every one is made from a Random alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

from support import hostile_trees as trees
from support.hostile_containers import (
    Name,
    legacy,
    put,
    safetensors,
    torch_zip,
)
from support.hostile_pickles import (
    fields,
    legacy_files,
    pickle_bytes,
    pickle_made,
    pickle_opcodes,
    tensors,
    values,
)
from support.hostile_places import hf_folders, odd_files
from support.hostile_safetensors import safetensors_files, state_file, state_files
from support.hostile_trees import Storages
from support.hostile_zips import zip_bytes, zip_fields, zip_records

Maker = Callable[[Random, Path, str], Name]
"""Makes one source in a folder that is empty; the last argument is where a trap leaves its mark."""

KINDS: dict[str, Maker] = {
    make.__name__: make
    for make in (
        zip_bytes, zip_fields, zip_records, pickle_bytes, pickle_opcodes, pickle_made, tensors,
        values, fields, legacy_files, state_files, safetensors_files, hf_folders, odd_files,
    )
}  # fmt: skip


def honest_files(folder: Path) -> list[Name]:
    """One good file of each format."""
    storages = Storages()
    put(folder, "zip.ckpt", torch_zip(trees.lightning(storages), storages))
    storages = Storages((None,))
    put(folder, "legacy.pt", legacy(trees.loop(storages), storages))
    put(folder, "state.safetensors", safetensors(*state_file()))
    return ["zip.ckpt", "legacy.pt", "state.safetensors"]
