"""Optimizers and schedulers that were saved as objects, which are refused wherever they are.

A state dict beside such an object shares the states of its parameters with it, and a scheduler
contains its optimizer: what is taken out of the one is gone from the other, and neither loads.
"""

from __future__ import annotations

from collections.abc import Mapping

from liontool.checkpoint.document import Document, Opaque, Place, Value
from liontool.checkpoint.frameworks import torch_layout
from liontool.checkpoint.frameworks.resume_text import subscripts
from liontool.errors import LayoutError

_TORCH_SCHEDULERS = "torch.optim.lr_scheduler."


def refuse(document: Document, *, keeps_layout: bool = False) -> None:
    """See that no optimizer and no scheduler of the file is an object.

    Args:
        document: The file.
        keeps_layout: Whether a file laid out otherwise would be of no use.

    Raises:
        LayoutError: One is. The message has the lines that save `state_dict()` in its place; they
            run where the file was made, for only there can the object be restored.
    """
    found = list(torch_layout.nodes(document, is_leaf=_is_whole))
    objects = {place: value for place, value in found if is_optimizer(value) or is_scheduler(value)}
    if not objects:
        return
    beside = keeps_layout or any(torch_layout.is_optimizer(value) for _, value in found)
    in_place = beside or len(objects) > 1
    lines = _in_place(document, objects) if in_place else _single(document, objects)
    names = ", ".join(dict.fromkeys(value.name for value in objects.values()))
    raise LayoutError(
        f"{document.path}: holds a pickled {names} object instead of its state_dict(), and to "
        f"restore one means to run code; in the script's own environment: {lines}"
    )


def is_optimizer(value: Value) -> bool:
    """Whether `value` is a pickled optimizer rather than its `state_dict()`."""
    if not isinstance(value, Opaque) or not isinstance(value.state, Mapping):
        return False
    return {"state", "param_groups"} <= value.state.keys()


def is_scheduler(value: Value) -> bool:
    """Whether `value` is a pickled scheduler rather than its `state_dict()`."""
    if not isinstance(value, Opaque) or not isinstance(value.state, Mapping):
        return False
    if value.name.startswith(_TORCH_SCHEDULERS) and value.state:
        return True
    return torch_layout.is_scheduler(value.state) and "optimizer" in value.state


def _is_whole(value: Value) -> bool:
    return torch_layout.is_optimizer(value) or is_optimizer(value) or is_scheduler(value)


def _single(document: Document, objects: Mapping[Place, Opaque]) -> str:
    """Two lines that save the state of the only object, and of the optimizer of a scheduler."""
    ((place, value),) = objects.items()
    name, saved = "optimizer", "optimizer.state_dict()"
    if not is_optimizer(value):
        name = "scheduler"
        saved = (
            "{'optimizer': scheduler.optimizer.state_dict(), 'scheduler': scheduler.state_dict()}"
        )
    where = subscripts(place.path, torch_layout.class_names(document.tree))
    return f"{name} = {_load(document)}{where}; torch.save({saved}, {_result(document, name)})"


def _in_place(document: Document, objects: Mapping[Place, Opaque]) -> str:
    """Lines that save the same file with the state of each object in place of the object."""
    classes = torch_layout.class_names(document.tree)
    places = [f"checkpoint{subscripts(place.path, classes)}" for place in objects]
    lines = [f"checkpoint = {_load(document)}"]
    lines += [f"{place} = {place}.state_dict()" for place in places]
    return "; ".join([*lines, f"torch.save(checkpoint, {_result(document, 'states')})"])


def _load(document: Document) -> str:
    return f"torch.load({str(document.path)!r}, weights_only=False)"


def _result(document: Document, what: str) -> str:
    path = document.path
    return repr(str(path.with_name(f"{path.stem}-{what}{path.suffix or '.pt'}")))
