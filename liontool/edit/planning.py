"""What has to change in the files for one draft to become another."""

from __future__ import annotations

from collections.abc import Iterator

from liontool.checkpoint.document import Delete, Edit, Insert, Place, Rename, Replace
from liontool.checkpoint.formats.safetensors_file import METADATA
from liontool.checkpoint.frameworks import Framework
from liontool.edit.draft import Draft, Weights
from liontool.edit.shards import index_edits


def plan(before: Draft, after: Draft, lens: Framework | None) -> Iterator[Edit]:
    """The edits that turn the files of `before` into those of `after`."""
    if lens is not None and after.checkpoint is not before.checkpoint:
        yield from lens.plan(before.checkpoint, after.checkpoint)
    for old, new in zip(before.weights, after.weights, strict=True):
        if old is not new:
            yield from _weight_edits(old, new)
    yield from index_edits(before, after)
    if after.metadata is not before.metadata:
        yield from _metadata_edits(before, after)


def _weight_edits(before: Weights, after: Weights) -> Iterator[Edit]:
    left = {weight.key: weight for weight in after.weights}
    for weight in before.weights:
        place = before.place / weight.key
        if weight.key not in left:
            yield Delete(place)
        elif left[weight.key].name != weight.key:
            yield Rename(place, left[weight.key].name)


def _metadata_edits(before: Draft, after: Draft) -> Iterator[Edit]:
    old, new = before.metadata or {}, after.metadata or {}
    place = Place("", (METADATA,))
    yield from (Delete(place / key) for key in old if key not in new)
    for key, value in new.items():
        if key not in old:
            yield Insert(place / key, value)
        elif old[key] != value:
            yield Replace(place / key, value)
