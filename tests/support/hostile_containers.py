"""Trees in files, true to their formats; and what damage does to bytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

from support import hostile_trees as trees
from support.hostile_trees import Storages, pickled

Name = str
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4, "long": 4}}
_INTERESTING = (0, 1, 2, 3, 7, 8, 9, 0x2E, 0x7F, 0x80, 0xFE, 0xFF)


def zip_of(records: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in records.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return file.getvalue()


def torch_records(pickle: bytes, storages: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        "archive/data.pkl": pickle,
        "archive/byteorder": b"little",
        **{f"archive/data/{key}": data for key, data in storages.items()},
        "archive/version": b"3\n",
    }


def torch_zip(tree: Any, storages: Storages, protocol: int = 2) -> bytes:
    return zip_of(torch_records(pickled(tree, protocol), storages.data))


def legacy(tree: Any, storages: Storages, keys: Any = None) -> bytes:
    parts = (MAGIC, VERSION, SYSTEM, tree, list(storages.data) if keys is None else keys)
    counted = ((len(data) // 4).to_bytes(8, "little") + data for data in storages.data.values())
    return b"".join(map(pickled, parts)) + b"".join(counted)


def safetensors(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


TREES = (trees.plain, trees.loop, trees.lightning)


def honest(rng: Random, ending: tuple[Any, ...] = ()) -> tuple[Any, Storages]:
    storages = Storages(ending)
    return rng.choice(TREES)(storages), storages


def damaged(data: bytes, rng: Random) -> bytes:
    """The bytes with one to four of them, or runs of them, not as they were."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        _damage(found, rng)
    return bytes(found)


def _damage(data: bytearray, rng: Random) -> None:
    at = rng.randrange(len(data) or 1)
    length = rng.choice([1, 1, 2, 4, 8, 30, 200])
    what = rng.choice(["flip", "flip", "byte", "byte", "number", "cut", "gone", "more", "twice"])
    if what == "flip" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif what == "byte" and data:
        data[at] = rng.choice(_INTERESTING)
    elif what == "number":
        width = rng.choice([1, 2, 4, 8])
        value = rng.choice([0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**62, len(data), at])
        data[at : at + width] = (value % 256**width).to_bytes(width, "little")
    elif what == "cut":
        del data[at:]
    elif what == "gone":
        del data[at : at + length]
    elif what == "more":
        data[at:at] = rng.randbytes(length)
    else:
        other = rng.randrange(len(data) or 1)
        data[at:at] = data[other : other + length]


def put(folder: Path, name: str, data: bytes) -> Name:
    (folder / name).write_bytes(data)
    return name
