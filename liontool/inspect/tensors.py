"""The tensors of a checkpoint, from headers alone: as a list, or as a tree of their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.document import Stored, TensorRef
from liontool.checkpoint.plain_values import json_value
from liontool.inspect.globs import matcher
from liontool.inspect.listing import Item, listed
from liontool.inspect.opening import opened, shown_path
from liontool.inspect.sharing import shared
from liontool.inspect.templates import is_index

SCHEMA = 1
"""Version of the JSON of `to_dict`; grows by one when a field changes its meaning or goes."""

ORDERS = ("file", "name", "size")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor.

    Attributes:
        name: By which it is found in another checkpoint of the run, whatever its container.
        label: Where it lies: the file in a folder, and the path in its tree.
        role: "weight", "state" or "other".
        dtype: Element type.
        shape: Sizes of the dimensions.
        elements: How many it has.
        bytes: What they take.
        file: The file of a folder, or of an index, that they lie in; "" for a single file.
        parameter: Name, or position, of the parameter that state belongs to.
        field: Which state it is: "exp_avg".
        optimizer: Index of the optimizer that state belongs to.
        group: Index of the parameter group that state belongs to.
        shares: Name of the tensor whose bytes these are too; None for bytes of its own.
    """

    name: str
    label: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    file: str
    parameter: str | None
    field: str | None
    optimizer: int | None
    group: int | None
    shares: str | None


@dataclass(frozen=True)
class TensorList:
    """Tensors that were asked for.

    Attributes:
        path: As it was asked for.
        total: How many tensors there are.
        matched: How many of them are listed.
        elements: Of the listed ones; those that share their bytes count once.
        bytes: Likewise.
        tensors: In the order asked for.
        unread: A sentence for each file of a folder that cannot be read, and is left out.
    """

    path: str
    total: int
    matched: int
    elements: int
    bytes: int
    tensors: tuple[TensorEntry, ...]
    unread: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        found: dict[str, Any] = json_value({"schema": SCHEMA, **asdict(self)})
        return found


@paused_collector()
def list_tensors(
    path: str | PathLike[str],
    framework: str | None = None,
    filters: Sequence[str] = (),
    order: str = "file",
    optimizers: Sequence[str] = (),
) -> TensorList:
    """List the tensors of a checkpoint.

    Args:
        path: A file or a folder that a training framework wrote.
        framework: Its name where it should not be found out; then it must fit.
        filters: Globs of the tensors to list, by name or label; `!` before one excludes.
        order: "file", "name" (numbers in names count as numbers) or "size", largest first.
        optimizers: Take these alone, by their paths in the file, wherever they are.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe.
        AmbiguousError: Several checkpoints fit.
        LayoutError: `framework` was given and does not fit.
        ValueError: A filter is empty, or there is no such order.
    """
    if order not in ORDERS:
        raise ValueError(f"unknown order '{order}', choose from: {', '.join(ORDERS)}")
    unread: list[str] = []
    look = opened(path, framework, optimizers)
    fits, every = matcher(filters), listed(look, unread)
    chosen = [item for item in every if fits(item.name) or fits(item.label)]
    sharing = shared(chosen)
    entries = [_entry(item, sharing.get(id(item.tensor)), look.source.path) for item in chosen]
    if order == "name":
        entries.sort(key=lambda entry: natural(entry.name))
    elif order == "size":
        entries.sort(key=lambda entry: -entry.bytes)
    own = [entry for entry in entries if entry.shares is None]
    return TensorList(
        path=shown_path(path, look.source),
        total=len(every),
        matched=len(entries),
        elements=sum(entry.elements for entry in own),
        bytes=sum(entry.bytes for entry in own),
        tensors=tuple(entries),
        unread=tuple(unread),
    )


def _entry(item: Item, owner: Item | None, path: Path) -> TensorEntry:
    tensor = item.tensor
    return TensorEntry(
        name=item.name,
        label=item.label,
        role=item.role,
        dtype=tensor.dtype,
        shape=tensor.shape,
        elements=tensor.numel,
        bytes=tensor.nbytes,
        file=_file(tensor, path),
        parameter=item.parameter,
        field=item.field,
        optimizer=item.optimizer,
        group=item.group,
        shares=owner.name if owner else None,
    )


def _file(tensor: TensorRef, path: Path) -> str:
    if not isinstance(tensor.source, Stored):
        return ""
    file = tensor.source.storage.span.file
    if file == path:
        return ""
    return file.relative_to(path).as_posix() if file.is_relative_to(path) else file.name


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `h.2` before `h.10`."""
    return [(int(part), "") if is_index(part) else (-1, part) for part in name.split(".")]
