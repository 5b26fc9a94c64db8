"""Indices of shards in a folder, which say in which file each weight is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from liontool.checkpoint.document import Delete, Edit, Place, Rename, Replace, Value
from liontool.checkpoint.formats.json_file import JsonDocument
from liontool.edit.draft import Draft, Weight, Weights

_Weights = Mapping[str, Weight]

INDEX = ".index.json"
"""How the name of an index ends."""

_MAP, _TOTAL = "weight_map", ("metadata", "total_size")


def index_edits(before: Draft, after: Draft) -> Iterator[Edit]:
    """What has to change in the indices of a folder, so that they list the weights of `after`."""
    pairs = zip(before.weights, after.weights, strict=True)
    changed = {
        old.place.document: (_by_key(old), _by_key(new)) for old, new in pairs if old is not new
    }
    for name in before.source.listing() if changed else ():
        # As a document of its source it would be all tensors of its shards.
        tree = JsonDocument(before.source.path / name).tree if name.endswith(INDEX) else None
        if isinstance(tree, dict) and isinstance(tree.get(_MAP), dict):
            yield from _edits(name, tree, changed)


def _edits(
    index: str, tree: Mapping[str, Value], changed: Mapping[str, tuple[_Weights, _Weights]]
) -> Iterator[Edit]:
    folder, gone = PurePosixPath(index).parent, 0
    for key, shard in tree[_MAP].items():
        pair = changed.get(str(folder / str(shard)))
        if pair is None or key not in pair[0]:
            continue
        new = pair[1].get(key)
        if new is None:
            gone += pair[0][key].tensor.nbytes
            yield Delete(Place(index, (_MAP, key)))
        elif new.name != key:
            yield Rename(Place(index, (_MAP, key)), new.name)
    total = tree.get("metadata", {}).get("total_size") if gone else None
    if isinstance(total, int):
        yield Replace(Place(index, _TOTAL), total - gone)


def _by_key(weights: Weights) -> _Weights:
    return {weight.key: weight for weight in weights.weights}
