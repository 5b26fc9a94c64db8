"""Two checkpoints compared: hyperparameters and schedulers, structure, values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from os import PathLike
from typing import Any

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.plain_values import json_value
from liontool.checkpoint.readable import whole
from liontool.inspect.diff_fields import FieldDifference, compare_fields, has_plain
from liontool.inspect.diff_matching import Matching, matched
from liontool.inspect.diff_names import Renames
from liontool.inspect.diff_parameters import Partners, partners
from liontool.inspect.diff_tensors import (
    RESHAPED,
    Progress,
    TensorDifference,
    compared,
)
from liontool.inspect.diff_values import Tolerance, Values
from liontool.inspect.listing import STATE, TENSOR_FILES, Item, listed
from liontool.inspect.opening import Opened, opened, shown_path

SCHEMA = 1
"""Version of the JSON of `to_dict`; grows by one when a field changes its meaning or goes."""


@dataclass(frozen=True)
class Side:
    """One of the two checkpoints.

    Attributes:
        path: As it was given; of a run, the checkpoint.
        framework: What wrote it; None where no optimizer was found.
        containers: The formats of its files.
        tensors: How many it holds.
        bytes: Size of the file, or of all files of the folder.
    """

    path: str
    framework: str | None
    containers: tuple[str, ...]
    tensors: int
    bytes: int


@dataclass(frozen=True)
class LoneTensor:
    """A tensor that one side alone has.

    Attributes:
        name: Its name.
        label: Where it lies.
        role: "weight", "state" or "other".
        dtype: Its element type.
        shape: Its shape.
        bytes: Its size.
    """

    name: str
    label: str
    role: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Diff:
    """All that differs between two checkpoints.

    Attributes:
        a: The first.
        b: The second.
        fields: Hyperparameters and schedulers.
        groups: How many pairs of parameter groups were compared.
        only_a: Tensors that B lacks.
        only_b: Tensors that A lacks.
        moved: Names of parameters whose order differs.
        tensors: All tensors that both sides have, in A's order, identical ones too.
        tolerance: What counted as the same.
        values_compared: False where headers alone were read.
        complete: False where comparing stopped at the first difference.
        notes: How things were matched, where that is not plain.
    """

    a: Side
    b: Side
    fields: tuple[FieldDifference, ...]
    groups: int
    only_a: tuple[LoneTensor, ...]
    only_b: tuple[LoneTensor, ...]
    moved: tuple[str, ...]
    tensors: tuple[TensorDifference, ...]
    tolerance: Tolerance
    values_compared: bool
    complete: bool = True
    notes: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs, as far as it was looked at."""
        return not self.fields and not self.structure_differs and not self.differing

    @property
    def structure_differs(self) -> bool:
        """Whether there are other tensors, or tensors of another shape, dtype or order."""
        return bool(self.only_a or self.only_b or self.moved or self.reshaped or self.recast)

    @property
    def reshaped(self) -> tuple[TensorDifference, ...]:
        """Tensors of another shape."""
        return tuple(one for one in self.tensors if one.verdict == RESHAPED)

    @property
    def recast(self) -> tuple[TensorDifference, ...]:
        """Tensors of another element type."""
        return tuple(one for one in self.tensors if one.is_recast)

    @property
    def differing(self) -> tuple[TensorDifference, ...]:
        """Tensors whose values differ beyond the tolerance, in A's order."""
        return tuple(one for one in self.tensors if one.differs)

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first.

        NaN and infinities become "nan", "inf" and "-inf".
        """
        shallow = {one.name: getattr(self, one.name) for one in dataclass_fields(self)}
        found: dict[str, Any] = json_value(
            {
                "schema": SCHEMA,
                "same": self.same,
                **shallow,
                "a": asdict(self.a),
                "b": asdict(self.b),
                "tolerance": asdict(self.tolerance),
                "fields": [{**asdict(one), "factor": one.factor} for one in self.fields],
                "only_a": [asdict(one) for one in self.only_a],
                "only_b": [asdict(one) for one in self.only_b],
                "tensors": [_tensor_dict(one) for one in self.tensors],
            }
        )
        return found


def _tensor_dict(one: TensorDifference) -> dict[str, Any]:
    found = asdict(one)
    values = one.values
    if values is not None and values.sums is not None:
        found["values"] |= {
            "relative_l2": values.sums.relative_l2,
            "cosine": values.sums.cosine,
            "sign_agreement": values.sums.sign_agreement,
        }
    return found


@paused_collector()
def diff(
    a: str | PathLike[str],
    b: str | PathLike[str],
    *,
    framework: str | tuple[str | None, str | None] | None = None,
    atol: float = 0.0,
    rtol: float = 0.0,
    renames: Sequence[str] = (),
    filters: Sequence[str] = (),
    values: bool = True,
    first_only: bool = False,
    progress: Progress | None = None,
) -> Diff:
    """Compare two checkpoints, of whatever containers and frameworks.

    Args:
        a: The one before: a file or a folder that a training framework wrote.
        b: The one after.
        framework: The name of both, or of each, where it should not be found out.
        atol: Elements count as the same if ``|a - b| <= atol + rtol * |b|``.
        rtol: See `atol`.
        renames: What is called otherwise in B: "old=new", see `Renames`.
        filters: Look at these tensors alone: patterns for names or places in the file.
        values: Whether to read values; else headers alone are compared.
        first_only: Stop at the first difference; the result is not complete then.
        progress: Called with the bytes read so far, and the bytes of all.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe.
        AmbiguousError: Several checkpoints fit.
        LayoutError: `framework` was given and does not fit.
        ValueError: A rename or a filter fits nothing.
    """
    tolerance, rules = Tolerance(atol, rtol), Renames(renames)
    names = framework if isinstance(framework, tuple) else (framework, framework)
    looks = opened(a, names[0]), opened(b, names[1])
    items_a, items_b = map(_items, looks)
    models = looks[0].checkpoint, looks[1].checkpoint
    pairs = _partners(models, rules)
    fields = compare_fields(*models, pairs)
    found = matched(items_a, items_b, models, pairs, rules)
    rules.check_used()
    found = _without_plain(found, models, pairs).filtered(filters)
    moved = tuple(name for pair in pairs for name in pair.moved)
    early = first_only and bool(fields.differences or moved or _differs_in_header(found))
    tensors = compared(
        found.pairs, tolerance, read=values and not early, first_only=first_only, progress=progress
    )
    return Diff(
        a=_side(a, looks[0], items_a),
        b=_side(b, looks[1], items_b),
        fields=fields.differences,
        groups=fields.groups,
        only_a=tuple(map(_lone, found.only_a)),
        only_b=tuple(map(_lone, found.only_b)),
        moved=moved,
        tensors=tensors,
        tolerance=tolerance,
        values_compared=values,
        complete=not first_only,
        notes=(*fields.notes, *found.notes, *(note for pair in pairs for note in pair.notes)),
    )


def _items(look: Opened) -> tuple[Item, ...]:
    """All tensors; unlike `inspect`, a file that cannot be read is an error here."""
    source = look.source
    for name in source.names() if source.is_folder else ():
        if name.endswith(TENSOR_FILES):
            whole(source, name)
    return listed(look)


def _partners(
    models: tuple[Checkpoint | None, Checkpoint | None], rules: Renames
) -> tuple[Partners, ...]:
    a, b = models
    if a is None or b is None:
        return ()
    optimizers = zip(a.optimizers, b.optimizers, strict=False)
    return tuple(partners(old, new, rules) for old, new in optimizers)


def _without_plain(
    found: Matching,
    models: tuple[Checkpoint | None, Checkpoint | None],
    pairs: Sequence[Partners],
) -> Matching:
    """Leave out tensors whose counterpart is a plain number: they are among the fields."""
    a, b = models
    if a is None or b is None or not pairs:
        return found
    plain: set[int] = set()
    for old, new, pair in zip(a.optimizers, b.optimizers, pairs, strict=False):
        plain |= _beside_plain(old, new, pair.keys)
    only_a, only_b = (
        tuple(item for item in items if item.role != STATE or id(item.tensor) not in plain)
        for items in (found.only_a, found.only_b)
    )
    return Matching(found.pairs, only_a, only_b, found.notes)


def _beside_plain(a: Optimizer, b: Optimizer, keys: Mapping[int | str, int | str]) -> set[int]:
    """Identities of the state tensors that the other side keeps as plain numbers."""
    found: set[int] = set()
    for old_key, new_key in keys.items():
        old, new = a.slots.get(old_key), b.slots.get(new_key)
        if old is not None and new is not None:
            for mine, other in ((old.state, new.state), (new.state, old.state)):
                found |= {
                    id(value)
                    for name, value in mine.items()
                    if isinstance(value, TensorRef) and has_plain(name, other)
                }
    return found


def _differs_in_header(found: Matching) -> bool:
    return bool(found.only_a or found.only_b) or any(
        (a.tensor.shape, a.tensor.dtype) != (b.tensor.shape, b.tensor.dtype) for a, b in found.pairs
    )


def _side(path: str | PathLike[str], look: Opened, items: Sequence[Item]) -> Side:
    source = look.source
    names = source.names() if source.is_folder else ("",)
    holding = [n for n in names if not n or n.endswith(TENSOR_FILES)]
    containers = dict.fromkeys(source.document(name).container for name in holding)
    framework = look.checkpoint.framework if look.checkpoint else None
    return Side(shown_path(path, source), framework, tuple(containers), len(items), source.size)


def _lone(item: Item) -> LoneTensor:
    tensor = item.tensor
    return LoneTensor(item.name, item.label, item.role, tensor.dtype, tensor.shape, tensor.nbytes)


def worst_first(tensors: Sequence[TensorDifference]) -> list[TensorDifference]:
    """By relative L2, those with non-finite differences before all others."""
    return sorted(tensors, key=_badness, reverse=True)


def _badness(one: TensorDifference) -> tuple[bool, float, float]:
    values = one.values or Values(0, True)
    distance = values.sums.relative_l2 if values.sums else 0.0
    size = math.inf if distance is None else distance
    return values.nonfinite_differing > 0, size, values.largest or 0.0
