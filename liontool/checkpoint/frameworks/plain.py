"""Any file that holds torch's optimizer state: a bare state dict, or a training loop's own dict.

torch.save(optimizer.state_dict(), path)
torch.save({"model": ..., "optimizer": ..., "scheduler": ..., "step": 500}, path)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from liontool.checkpoint.document import Document, Key, Opaque, TensorRef, Value
from liontool.checkpoint.frameworks import pickled_objects, resume_text, sharded, torch_layout
from liontool.checkpoint.frameworks.framework import Framework, Target
from liontool.checkpoint.frameworks.pairing import pair
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Checkpoint, Optimizer, Scheduler
from liontool.checkpoint.source import Source
from liontool.errors import MissingOptimizerError

_STEP_KEYS = ("step", "global_step", "iter_num", "iteration", "iter", "num_updates", "steps")
SHAPE = "{'state': ..., 'param_groups': ...}"
_SHOWN_KEYS = 8


def find(source: Source) -> Checkpoint | None:
    """Every optimizer of the file, wherever it is; None for a folder.

    Raises:
        LayoutError: An optimizer or a scheduler is a pickled object.
        MissingOptimizerError: There is none.
    """
    if source.is_folder:
        return None
    document = source.document()
    sharded.refuse_document(document)
    pickled_objects.refuse(document)
    found = torch_layout.search(document)
    optimizers, loose = pair(found.optimizers, found.schedulers)
    checkpoint = Checkpoint(
        "plain",
        optimizers,
        loose,
        step=_step(document.tree, optimizers),
        epoch=_told(document.tree, ("epoch",)),
        facts=torch_layout.object_facts(document),
    )
    if not optimizers:
        raise MissingOptimizerError(_missing(document, found), checkpoint)
    return checkpoint


def _told(tree: Value, keys: Sequence[str]) -> float | None:
    """The first number that the top of the tree keeps under one of `keys`."""
    if not isinstance(tree, Mapping):
        return None
    numbers = (number(tree.get(key)) for key in keys)
    return next((value for value in numbers if value is not None), None)


def told_step(tree: Value) -> float | None:
    """How many steps the file itself says were made."""
    return _told(tree, _STEP_KEYS)


def _step(tree: Value, optimizers: Sequence[Optimizer]) -> int | None:
    """What the file says, or else what the first parameter with state says."""
    step = told_step(tree)
    if step is None:
        slots = (slot for optimizer in optimizers for slot in optimizer.slots.values())
        step = next((number(slot.state.get("step")) for slot in slots), None)
    return torch_layout.count(step)


def _missing(document: Document, found: torch_layout.Found) -> str:
    if found.schedulers:
        return (
            f"{document.path}: holds the state of a scheduler but no optimizer's {SHAPE}; a "
            "scheduler is never converted without its optimizer"
        )
    return (
        f"{document.path}: looked for an optimizer's state {SHAPE}, found "
        f"{describe(document.tree)}; if it is there all the same, say where: "
        "--optimizer PATH.IN.TREE"
    )


def describe(tree: Value) -> str:
    """What a tree is at its top, in a few words."""
    if not isinstance(tree, Mapping):
        what = tree.name if isinstance(tree, Opaque) else type(tree).__name__
        return f"one value of type {what}"
    if tree and all(isinstance(value, TensorRef) for value in tree.values()):
        return f"{len(tree)} tensors by name, as of a model's weights"
    keys = [repr(key) for key in list(tree)[:_SHOWN_KEYS]]
    more = ", ..." if len(tree) > _SHOWN_KEYS else ""
    return f"the keys {', '.join(keys)}{more}" if keys else "an empty mapping"


def resume_code(checkpoint: Checkpoint, target: Target, output: Path) -> str:
    """`load_state_dict` of each optimizer and each scheduler, from where they lie in the file."""
    objects = checkpoint.facts.get("objects", ())
    options = ", weights_only=False" if objects else ""
    lines = ["import torch", target.import_line, "", *resume_text.trust_note(objects)]
    lines += [f'checkpoint = torch.load({str(output)!r}, map_location="cpu"{options})']
    schedulers = 0
    for index, optimizer in enumerate(checkpoint.optimizers):
        driving = () if target.constant_lr else optimizer.schedulers
        names = [
            f"scheduler{resume_text.suffix(schedulers + nth)}" for nth, _ in enumerate(driving)
        ]
        schedulers += len(names)
        optimizer_name = f"optimizer{resume_text.suffix(index)}"
        lines += [resume_text.construct(checkpoint.optimizers, target, "model.parameters()", index)]
        lines += [f"{name} = {_AS_BEFORE}" for name in names]
        lines += [_load(optimizer_name, _optimizer_path(optimizer), objects)]
        lines += [
            _load(name, _scheduler_path(scheduler), objects)
            for name, scheduler in zip(names, driving, strict=True)
        ]
    note = resume_text.constant_lr_note(target, "leave the scheduler out of the loop")
    return "\n".join([*lines, *note])


# Schedulers set learning rates when they are made; the states that are loaded next undo it.
_AS_BEFORE = "...  # as before, on this optimizer, before its state is loaded"


def _load(name: str, path: tuple[Key, ...], objects: Collection[str]) -> str:
    return f"{name}.load_state_dict(checkpoint{resume_text.subscripts(path, objects)})"


def _optimizer_path(optimizer: Optimizer) -> tuple[Key, ...]:
    place = optimizer.groups[0].fields.place
    return () if place is None else place.path[:-2]


def _scheduler_path(scheduler: Scheduler) -> tuple[Key, ...]:
    place = scheduler.fields.place
    return () if place is None else place.path


FRAMEWORK = Framework(
    name="plain",
    looks_for=f"a file with {SHAPE} anywhere in it",
    find=find,
    resume_code=resume_code,
)
