"""The weights of a model and the parameters of an optimizer as lists of shapes, to be matched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from liontool.checkpoint.document import Stored, TensorRef
from liontool.checkpoint.encoding import is_float
from liontool.checkpoint.model import Optimizer, Slot
from liontool.checkpoint.source import Source
from liontool.inspect.matching import Positions, Shape
from liontool.states import MOMENT

# Float tensors that modules of torch and transformers register as buffers.
_BUFFERS = frozenset({"running_mean", "running_var", "inv_freq", "masked_bias", "total_ops"})

NamedTensor = tuple[str, TensorRef]


def parameters_of(weights: Iterable[NamedTensor]) -> Iterator[NamedTensor]:
    """Without buffers, and tied weights once: the optimizer has them under the first name."""
    seen: set[object] = set()
    for name, tensor in weights:
        place = _elements(tensor)
        is_buffer = name.rpartition(".")[2] in _BUFFERS
        if is_float(tensor.dtype) and not is_buffer and place not in seen:
            seen.add(place)
            yield name, tensor


def is_in_order(weights: Sequence[NamedTensor], source: Source) -> bool:
    """Whether weights lie in the order of the model; safetensors sorts by type, then by name."""
    pairs = pairwise(weights)
    is_sorted = all(a[0] < b[0] for a, b in pairs if a[1].dtype == b[1].dtype)
    return not (is_sorted and _is_safetensors(source))


def positions(optimizer: Optimizer) -> Positions:
    """The shapes of each group's parameters in order, as far as their state tells them."""
    return [
        [_shape(optimizer.slots.get(key)) for key in group.params] for group in optimizer.groups
    ]


def _is_safetensors(source: Source) -> bool:
    if source.is_folder:
        return any(name.endswith(".safetensors") for name in source.listing())
    return source.document().container == "safetensors"


def _elements(tensor: TensorRef) -> object:
    source = tensor.source
    if not isinstance(source, Stored) or not tensor.numel:
        return id(tensor)
    return source.storage.span, source.offset, source.stride, tensor.shape


def _shape(slot: Slot | None) -> Shape | None:
    """The shape of a parameter as its state tells it."""
    if slot is None:
        return None
    if slot.shape is not None:
        return slot.shape
    moment = slot.state.get(MOMENT)
    if isinstance(moment, TensorRef):
        return moment.shape
    shapes = {tensor.shape for name, tensor in slot.tensors() if name != "step"}
    return shapes.pop() if len(shapes) == 1 else None
