"""Whether the optimizer's parameters are those of the model beside it, by shape and by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import prod

from liontool.checkpoint.document import TensorRef, is_list
from liontool.checkpoint.model import Optimizer
from liontool.inspect.diff_names import Renames, paired_names
from liontool.inspect.findings import Finding
from liontool.inspect.group_checks import group_label
from liontool.inspect.listing import WEIGHT, Item
from liontool.inspect.matching import Shape
from liontool.inspect.model_order import is_in_order, parameters_of, positions
from liontool.inspect.opening import Opened
from liontool.inspect.state_checks import some

Model = Sequence[tuple[str, TensorRef]]


def check_weights(opened: Opened, items: Sequence[Item]) -> Iterator[Finding]:
    """Compare each optimizer with the models beside it; without one there is nothing to say.

    Args:
        opened: The checkpoint.
        items: Its tensors.
    """
    models = _models(items)
    for optimizer in opened.checkpoint.optimizers if opened.checkpoint else ():
        yield from _lists_of_names(optimizer)
        if not models:
            continue
        if any(group.names for group in optimizer.groups):
            yield from _names(optimizer, models)
        else:
            yield from _shapes(optimizer, models, opened)


def _models(items: Sequence[Item]) -> Mapping[str, Model]:
    """Weights by the mapping that holds them."""
    found: dict[str, list[tuple[str, TensorRef]]] = {}
    for item in items:
        if item.role == WEIGHT:
            holder = item.label.removesuffix(item.name)
            found.setdefault(holder, []).append((item.name, item.tensor))
    return found


def _shapes(optimizer: Optimizer, models: Mapping[str, Model], opened: Opened) -> Iterator[Finding]:
    groups = positions(optimizer)
    # Some optimizers keep one number for a parameter, or none.
    known = (shape for group in groups for shape in group if shape is not None)
    wanted = Counter(shape for shape in known if prod(shape) > 1)
    every = Counter(tensor.shape for model in models.values() for _, tensor in model)
    lacking = wanted - every
    if lacking:
        shape, count = next(iter(lacking.items()))
        text = f"{count} more moments of shape {list(shape)} than weights beside them: of another"
        yield Finding("moment-without-weight", optimizer.label, f"{text} model, or damaged")
        return
    fitting = [model for model in models.values() if _has(model, wanted)]
    if len(fitting) == 1 and is_in_order(fitting[0], opened.source):
        shapes = [tensor.shape for _, tensor in parameters_of(fitting[0])]
        for index, group in enumerate(groups):
            position = _out_of_order(group, shapes)
            if position is not None:
                text = f"the moments of position {position}, {list(group[position] or ())}, do not"
                text = f"{text} follow there in the order of the model: swapped?"
                yield Finding("moment-order", group_label(optimizer, index), text)


def _has(model: Model, wanted: Counter[Shape]) -> bool:
    return not wanted - Counter(tensor.shape for _, tensor in model)


def _out_of_order(group: Sequence[Shape | None], shapes: Sequence[Shape]) -> int | None:
    """The first position that finds no weight of its shape behind those before it."""
    rest = iter(shapes)
    for position, wanted in enumerate(group):
        if wanted is not None and wanted not in rest:
            return position
    return None


def _lists_of_names(optimizer: Optimizer) -> Iterator[Finding]:
    """A list of another length says nothing to anybody, and a name is one parameter's."""
    for index, group in enumerate(optimizer.groups):
        where, listed = group_label(optimizer, index), group.fields.get("param_names")
        if is_list(listed) and len(listed) != len(group.params):
            text = f"has {len(listed):,} param_names for {len(group.params):,} parameters"
            yield Finding("parameter-names", where, text)
    counts = Counter(name for group in optimizer.groups for name in group.names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        text = f"{some(twice)} are the names of more than one parameter"
        yield Finding("parameter-names", optimizer.label, text)


def _names(optimizer: Optimizer, models: Mapping[str, Model]) -> Iterator[Finding]:
    """Names that no weight has, where most others are those of a model."""
    names = [name for group in optimizer.groups for name in group.names]
    paired = (paired_names(names, [n for n, _ in model], Renames()) for model in models.values())
    known = max((found.pairs for found in paired), key=len)
    strange = [name for name in names if name not in known]
    if strange and 2 * len(known) >= len(names):
        text = f"{some(strange)} are names of no weight beside them: renamed on one side only?"
        yield Finding("parameter-names", optimizer.label, text)
