"""How a list of tensors is shown: names last and never broken, so that lines can be searched."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from liontool import wording
from liontool.escape import safe
from liontool.inspect.tensors import TensorEntry, TensorList
from liontool.inspect.tree import tree

if TYPE_CHECKING:
    from liontool.inspect.statistics import Statistics

_INDENT = "  "


def show(found: TensorList, *, as_tree: bool = False) -> None:
    """Print all of it; a list of any length, as `ls` does.

    Args:
        found: The tensors.
        as_tree: Whether to fold names that differ in numbers alone.
    """
    if as_tree:
        _print(("tensors", "elements", "size", "name"), _branches(found), numbers=3)
    else:
        in_files = any(entry.file for entry in found.tensors)
        head = ("role", "dtype", "shape", "size", *(["file"] if in_files else []), "name")
        _print(head, (_cells(entry, in_files) for entry in found.tensors), right=3)
    sys.stdout.write(f"\n{_total(found)}\n")


def scope(found: TensorList | Statistics, filters: Sequence[str]) -> None:
    """Say on stderr what part of a checkpoint was looked at, and which files are left out."""
    if filters:
        total = wording.count(found.total, "tensor")
        print(f"matched {found.matched:,} of {total}", file=sys.stderr)
    for sentence in found.unread:
        print(f"liontool: warning: left out: {safe(sentence)}", file=sys.stderr)


def shape(sizes: Sequence[int]) -> str:
    """ "[768, 2304]"; a tensor without dimensions has "[]"."""
    return f"[{', '.join(map(str, sizes))}]"


def _total(found: TensorList) -> str:
    tensors = wording.count(found.matched, "tensor")
    elements = wording.count(found.elements, "element")
    return f"{tensors}, {elements}, {wording.size(found.bytes)}"


def _cells(entry: TensorEntry, in_files: bool) -> Iterator[str]:
    yield from (entry.role, entry.dtype, shape(entry.shape), wording.size(entry.bytes))
    if in_files:
        yield safe(entry.file)
    shares = f"  (the bytes of {safe(entry.shares)})" if entry.shares is not None else ""
    yield safe(entry.name) + shares


def _branches(found: TensorList) -> Iterator[tuple[str, ...]]:
    """A row for each branch; one that has a single way on stands with it in one row."""
    todo = [(part, branch, 0) for part, branch in reversed(tree(found.tensors).parts.items())]
    while todo:
        part, branch, depth = todo.pop()
        label = branch.label(part)
        while len(branch.parts) == 1 and not branch.entries:
            ((part, branch),) = branch.parts.items()
            label += f".{branch.label(part)}"
        name = _INDENT * depth + safe(label) + _ending(branch.entries)
        counts = wording.count(branch.tensors), wording.count(branch.elements)
        yield *counts, wording.size(branch.bytes), name
        todo.extend((p, b, depth + 1) for p, b in reversed(branch.parts.items()))


def _ending(entries: Sequence[TensorEntry]) -> str:
    """Element type and shape of the tensors that end at a branch."""
    kinds = dict.fromkeys((entry.dtype, tuple(entry.shape)) for entry in entries)
    if not kinds:
        return ""
    if len(kinds) > 1:
        return f"  {', '.join(dict.fromkeys(dtype for dtype, _ in kinds))}, {len(kinds)} shapes"
    ((dtype, sizes),) = kinds
    return f"  {dtype} {shape(sizes)}"


def _print(
    head: Sequence[str], rows: Iterable[Iterable[str]], *, numbers: int = 0, right: int = -1
) -> None:
    """Lines in columns, the last one as long as it is.

    Args:
        head: Names of the columns.
        rows: Safe cells.
        numbers: How many columns from the left are set to the right.
        right: One more that is.
    """
    table = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            f"{cell:>{width}}" if index < numbers or index == right else f"{cell:<{width}}"
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        cells[-1] = row[-1]
        sys.stdout.write(f"  {'  '.join(cells)}\n")
