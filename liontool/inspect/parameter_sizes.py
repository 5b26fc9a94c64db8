"""How many elements each parameter of an optimizer has, by its state or by the weights beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.encoding import is_float
from liontool.checkpoint.frameworks.torch_layout import is_optimizer, nodes
from liontool.checkpoint.frameworks.weights import weights_by_name
from liontool.checkpoint.model import Optimizer, Slot
from liontool.checkpoint.source import Source
from liontool.inspect.listing import documents, is_weights
from liontool.inspect.matching import MatchError, match
from liontool.inspect.model_order import is_in_order, parameters_of, positions
from liontool.states import MOMENT

Sizes = dict[int | str, int]

# State with an element for each of the parameter, in the type that a Lion's momentum would have.
_PER_ELEMENT = (
    MOMENT,
    "exp_avg_sq",
    "momentum_buffer",
    "square_avg",
    "sum",
    "prev",
    "ax",
    "state1",
)


def per_element(slot: Slot) -> TensorRef | None:
    """A state tensor that has as many elements as its parameter, and may be as large as a moment.

    Quantized state is none: what it takes beside its elements depends on the quantizer.
    """
    states = (slot.state.get(name) for name in _PER_ELEMENT)
    floats = (one for one in states if isinstance(one, TensorRef) and is_float(one.dtype))
    return next(floats, None)


def parameter_sizes(source: Source, optimizer: Optimizer) -> Sizes:
    """Elements by key; a parameter whose size nothing tells is left out.

    The weights are asked only where state does not tell: it is frozen, factored or not kept at all.
    """
    keys = [key for group in optimizer.groups for key in group.params]
    found = {key: size for key in keys if (size := _by_state(optimizer.slots.get(key))) is not None}
    if len(found) < len(keys):
        found = {**_by_weights(source, optimizer), **found}
    largest = ((key, _largest(optimizer.slots.get(key))) for key in keys if key not in found)
    return {**found, **{key: size for key, size in largest if size}}


def _by_state(slot: Slot | None) -> int | None:
    if slot is None:
        return None
    if slot.shape is not None:
        return prod(slot.shape)
    tensor = per_element(slot)
    return None if tensor is None else tensor.numel


def _largest(slot: Slot | None) -> int:
    """Elements of the largest state tensor, in an optimizer of which nothing else is known."""
    tensors = () if slot is None else slot.tensors()
    return max((tensor.numel for name, tensor in tensors if name != "step"), default=0)


def _by_weights(source: Source, optimizer: Optimizer) -> Sizes:
    holders = list(_holders(source))
    return _by_name(holders, optimizer) or _by_order(holders, source, optimizer)


def _holders(source: Source) -> Iterator[Mapping[str, TensorRef]]:
    """Every mapping of weights by name."""
    for document in documents(source):
        for _, value in nodes(document, is_leaf=is_optimizer):
            if is_weights(value) and isinstance(value, Mapping):
                yield {k: v for k, v in value.items() if isinstance(v, TensorRef)}


def _by_name(holders: list[Mapping[str, TensorRef]], optimizer: Optimizer) -> Sizes:
    named = [group for group in optimizer.groups if group.names]
    names = [pair for one in named for pair in zip(one.params, one.names, strict=True)]
    found = weights_by_name([name for _, name in names], holders)
    return {key: found[name].numel for key, name in names if name in found}


def _by_order(
    holders: list[Mapping[str, TensorRef]], source: Source, optimizer: Optimizer
) -> Sizes:
    """Sizes by the place in the model's order, where all models that fit agree in them."""
    wanted = positions(optimizer)
    keys = [key for group in optimizer.groups for key in group.params]
    results: list[Sizes] = []
    for holder in holders:
        pairs = list(holder.items())
        named = [(name, tensor.shape) for name, tensor in parameters_of(pairs)]
        try:
            groups = match(wanted, named, ordered=is_in_order(pairs, source)).names
        except MatchError:
            continue
        names = [name for group in groups for name in group]
        sizes = [holder[name].numel for name in names]
        results.append(dict(zip(keys, sizes, strict=True)))
    return results[0] if results and all(one == results[0] for one in results) else {}
