"""Whether all that a conversion must leave alone is as it was: values and files, but no tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint import formats
from liontool.checkpoint.document import Document, Place, Value
from liontool.checkpoint.frameworks import torch_layout
from liontool.checkpoint.frameworks.run import class_place
from liontool.checkpoint.learning_rates import walk
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.readable import whole
from liontool.checkpoint.run_folder.layout import COMMIT
from liontool.checkpoint.source import Source
from liontool.checkpoint.writing import PROVENANCE_FILE
from liontool.errors import ReadError
from liontool.inspect.checksums import Advance
from liontool.inspect.equality import differences
from liontool.inspect.findings import Finding
from liontool.inspect.listing import TENSOR_FILES
from liontool.inspect.opening import Opened
from liontool.inspect.places import at, short

_BLOCK = 1 << 20
_OWN = "provenance"


def is_state_alone(ours: Opened, theirs: Opened) -> bool:
    """Whether the result is the state of one optimizer, without all that was around it."""
    if ours.checkpoint is None or ours.source.is_folder:
        return False
    if ours.checkpoint.framework == "liontool-state":
        return True
    if any(_path(optimizer) != () for optimizer in ours.checkpoint.optimizers):
        return False
    if theirs.source.is_folder or ours.source.path.suffix != theirs.source.path.suffix:
        return True
    before = () if theirs.checkpoint is None else theirs.checkpoint.optimizers
    return all(_path(optimizer) != () for optimizer in before)


@dataclass(frozen=True)
class Elsewhere:
    """What the proof looks at itself.

    Attributes:
        places: What the rule rewrites: states, groups and schedulers.
        told: Tensors, by their `id`, that were found to be only in one of the two.
    """

    places: Sequence[Place]
    told: Collection[int]


def rest(ours: Opened, theirs: Opened, elsewhere: Elsewhere, advance: Advance) -> Iterator[Finding]:
    """What is not as it was outside of the optimizers and their schedulers.

    Args:
        ours: The result.
        theirs: The source.
        elsewhere: What is not to be looked at here.
        advance: Called with the bytes of each block.
    """
    if is_state_alone(ours, theirs):
        yield from _around_state(ours)
        return
    if not ours.source.is_folder or not theirs.source.is_folder:
        if ours.source.is_folder != theirs.source.is_folder:
            yield Finding("file-differs", "", "one is a file and the other is a folder")
            return
        yield from _document(ours.source.document(), theirs.source.document(), elsewhere)
        return
    names = set(ours.source.names()), set(theirs.source.names())
    for name in sorted(names[1] - names[0] - {PROVENANCE_FILE}):
        yield Finding("file-differs", at(name), "is in the source and not here")
    for name in sorted(names[0] - names[1] - {PROVENANCE_FILE}):
        yield Finding("file-differs", at(name), "is here and not in the source")
    told = {PROVENANCE_FILE, *map(formats.index_of, names[1])}  # an index is read with its parts
    if theirs.source.is_of_run and ours.source.is_of_run:
        told.add(COMMIT)  # each speaks of its own files
    for name in sorted((names[0] & names[1]) - told):
        yield from _file(name, ours.source, theirs.source, elsewhere, advance)


def _around_state(ours: Opened) -> Iterator[Finding]:
    """A torch file of nothing but state has two keys."""
    tree = ours.source.document().tree
    if ours.checkpoint is None or ours.checkpoint.framework == "liontool-state":
        return
    for key in tree:
        if key not in ("state", "param_groups"):
            yield Finding("value-differs", short(str(key)), "is here and not in the source")


def _path(optimizer: Optimizer) -> tuple[Value, ...] | None:
    """The path of an optimizer in its file, as far as one is known."""
    place = optimizer.groups[0].fields.place if optimizer.groups else None
    return None if place is None else place.path[:-2]


def rewritten_places(theirs: Checkpoint, converted: Sequence[Optimizer]) -> Iterator[Place]:
    """Where the rule is at work: states and groups, and schedulers of no known optimizer too."""
    for optimizer in converted:
        group = optimizer.groups[0].fields.place
        if group is not None:
            yield Place(group.document, (*group.path[:-2], "state"))
            yield Place(group.document, (*group.path[:-2], "param_groups"))
        if optimizer.class_name:
            yield class_place(optimizer)
    schedulers = [scheduler for optimizer in converted for scheduler in optimizer.schedulers]
    for scheduler in walk([*schedulers, *theirs.loose_schedulers]):
        if scheduler.fields.place is not None:
            yield scheduler.fields.place


def _document(ours: Document, theirs: Document, elsewhere: Elsewhere) -> Iterator[Finding]:
    """Values of a file; tensors have been compared by their names."""
    exempt: set[tuple[int, int]] = set()
    held: list[Value] = []
    for place in elsewhere.places:
        if place.document == theirs.name:
            pair = torch_layout.at(ours.tree, place.path), torch_layout.at(theirs.tree, place.path)
            held += pair
            if all(isinstance(value, (Mapping, Sequence)) for value in pair):
                exempt.add((id(pair[0]), id(pair[1])))
    for where, text in differences(ours.tree, theirs.tree, exempt=exempt, told=elsewhere.told):
        yield Finding("value-differs", at(ours.name, where), text)
    if ours.container == theirs.container == "safetensors":
        for where, text in differences(_facts(ours), _facts(theirs)):
            yield Finding("value-differs", at(ours.name, f"metadata {where}"), text)


def _facts(document: Document) -> dict[str, str]:
    """The metadata less what a conversion says of itself."""
    return {key: text for key, text in document.facts.items() if _OWN not in key}


def _file(
    name: str, ours: Source, theirs: Source, elsewhere: Elsewhere, advance: Advance
) -> Iterator[Finding]:
    """A file of a folder: its values where it holds tensors or what is changed, else its bytes."""
    is_changed = any(place.document == name for place in elsewhere.places)
    pair = _read(name, ours, is_changed), _read(name, theirs, is_changed)
    if pair[0] is not None and pair[1] is not None:
        yield from _document(pair[0], pair[1], elsewhere)
        return
    offset = _first_difference(ours.path / name, theirs.path / name, advance)
    if offset is not None:
        text = f"has other bytes than the source's, from byte {offset:,} on"
        yield Finding("file-differs", at(name), text)


def _read(name: str, source: Source, is_changed: bool) -> Document | None:
    if not is_changed and not name.endswith(TENSOR_FILES):
        return None
    try:
        return whole(source, name)
    except ReadError:
        return None


def _first_difference(first: Path, second: Path, advance: Advance) -> int | None:
    """Where two files differ; None if they do not."""
    try:
        with first.open("rb") as a, second.open("rb") as b:
            offset = 0
            while True:
                pair = a.read(_BLOCK), b.read(_BLOCK)
                advance(len(pair[0]))
                if pair[0] != pair[1]:
                    return offset + _common(*pair)
                if not pair[0]:
                    return None
                offset += len(pair[0])
    except OSError as error:
        raise ReadError(f"{error.filename}: cannot be read: {error.strerror}") from error


def _common(first: bytes, second: bytes) -> int:
    """How many bytes two blocks begin with that are the same."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
