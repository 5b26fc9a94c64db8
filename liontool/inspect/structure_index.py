"""An index of safetensors shards against the shards that are there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from liontool.checkpoint.formats.safetensors_file import MAX_HEADER
from liontool.inspect.findings import Finding
from liontool.inspect.places import at, leads_out, odd_name, short
from liontool.inspect.structure_safetensors import Pairs, parsed, tensor_sizes, twice

SUFFIX = ".safetensors.index.json"

_SHARD = re.compile(r"(.*)-\d+-of-\d+\.safetensors")


def walk(path: Path, file: str) -> tuple[list[Finding], list[Path]]:
    """All findings of an index, and its shards that are there."""
    if path.stat().st_size > MAX_HEADER:
        return [Finding("header-size", at(file), f"is larger than {MAX_HEADER:,} bytes")], []
    index, fault = parsed(path.read_bytes())
    if index is None:
        return [Finding("bad-json", at(file), fault)], []
    found = list(twice(index, at(file)))
    weight_map = dict(index).get("weight_map")
    if not isinstance(weight_map, Pairs):
        found.append(Finding("bad-json", at(file), "has no weight_map of file names by tensor"))
        return found, []
    found += twice(weight_map, at(file, "weight_map"))
    shards, faults = _shards(path, file, weight_map)
    found += faults
    sizes = {name: tensor_sizes(shard) for name, shard in shards.items()}
    found += _tensors(weight_map, sizes, file)
    found += _strangers(path, file, shards)
    found += _total(dict(index).get("metadata"), weight_map, sizes, file)
    return found, list(shards.values())


def _shards(path: Path, file: str, weight_map: Pairs) -> tuple[dict[str, Path], list[Finding]]:
    """The shards that are there by their names, and what is wrong with the others."""
    shards: dict[str, Path] = {}
    found: list[Finding] = []
    names = dict.fromkeys(name for _, name in weight_map if isinstance(name, str))
    if len({type(name) for _, name in weight_map} - {str}):
        found.append(Finding("bad-json", at(file), "has shards whose names are no strings"))
    for name in names:
        where = at(file, name)
        found += odd_name(where, name)
        if not name or "\0" in name or leads_out(name) or not _is_below(path.parent, name):
            found.append(Finding("unsafe-name", where, "the shard leads out of the folder"))
        elif not _is_file(path.parent / name):
            found.append(Finding("missing-shard", where, "the shard is missing; get it again"))
        else:
            shards[name] = path.parent / name
    return shards, found


def _is_below(folder: Path, name: str) -> bool:
    if "\0" in name or len(name) > os.pathconf("/", "PC_PATH_MAX"):
        return False
    inside = os.path.realpath(folder)
    return os.path.commonpath([inside, os.path.realpath(folder / PurePosixPath(name))]) == inside


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _tensors(
    weight_map: Pairs, sizes: dict[str, dict[str, int] | None], file: str
) -> Iterator[Finding]:
    """Tensors that the index and the shards do not agree on."""
    where: dict[str, Any] = dict(weight_map)
    for name, shard in where.items():
        there = sizes.get(shard) if isinstance(shard, str) else None
        if there is not None and name not in there:
            text = f"is not in its shard {short(shard)}"
            yield Finding("missing-tensor", at(file, name), text)
    for shard, there in sizes.items():
        for name in there or ():
            if where.get(name) != shard:
                text = f"is in the shard {short(shard)}, and the index says "
                text += f"{short(str(where[name]))}" if name in where else "nothing of it"
                yield Finding("unindexed-tensor", at(file, name), text)


def _strangers(path: Path, file: str, shards: dict[str, Path]) -> Iterator[Finding]:
    """Files named as the shards are that the index does not name."""
    stems = {match[1] for name in shards if (match := _SHARD.fullmatch(name))}
    for name in sorted(os.listdir(path.parent)):
        match = _SHARD.fullmatch(name)
        if match and match[1] in stems and name not in shards:
            text = f"is no shard of {path.name}; is it left from an earlier save?"
            yield Finding("unindexed-shard", at(name if file else "", "" if file else name), text)


def _total(
    metadata: Any, weight_map: Pairs, sizes: dict[str, dict[str, int] | None], file: str
) -> Iterator[Finding]:
    """The sum of all sizes, which writers put into the index."""
    told = dict(metadata).get("total_size") if isinstance(metadata, Pairs) else None
    names = {shard for _, shard in weight_map if isinstance(shard, str)}
    if not isinstance(told, (int, float)) or any(sizes.get(name) is None for name in names):
        return
    total = sum(sum(there.values()) for there in sizes.values() if there is not None)
    if told != total:
        text = f"says {told:,} bytes in all, and the shards have {total:,}"
        yield Finding("index-size", at(file, "metadata"), text)
