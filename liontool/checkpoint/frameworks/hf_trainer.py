"""Checkpoint folders of transformers.Trainer: `checkpoint-500/` with optimizer.pt and scheduler.pt.

Its loader reads both with weights_only=True, and reads neither where one of them is missing. It
deletes old checkpoints by their names, and writes trainer_state.json last.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from liontool.checkpoint.document import Opaque, Value
from liontool.checkpoint.frameworks import folders, pickled_objects, resume_text, torch_layout
from liontool.checkpoint.frameworks.framework import Framework, Target
from liontool.checkpoint.frameworks.pairing import pair
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Checkpoint, Optimizer, ParamGroup
from liontool.checkpoint.plain_values import plain
from liontool.checkpoint.source import Source
from liontool.errors import (
    AmbiguousError,
    FormatError,
    LayoutError,
    LiontoolError,
    MissingOptimizerError,
    UnfinishedError,
)

_OPTIMIZER, _SCHEDULER = "optimizer.pt", "scheduler.pt"
_STATE, _ARGUMENTS = "trainer_state.json", "training_args.bin"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")

# Arguments that say where the learning rate comes from, in the order to show them.
_SHOWN_ARGUMENTS = (
    "optim", "learning_rate", "weight_decay", "lr_scheduler_type", "lr_scheduler_kwargs",
    "warmup_steps", "warmup_ratio", "max_grad_norm",
)  # fmt: skip


def find(source: Source) -> Checkpoint | None:
    """The optimizer and scheduler of a checkpoint folder; None where the folder is something else.

    Raises:
        UnfinishedError: The folder has no trainer_state.json.
        AmbiguousError: The folder holds checkpoint folders.
        LayoutError: The optimizer's or the scheduler's file is missing, or holds a pickled object.
        MissingOptimizerError: The optimizer's file holds none.
    """
    if not source.is_folder:
        return None
    files = set(source.listing())
    _refuse_parent(source, files)
    if not _is_checkpoint(source.path, files):
        return None
    _check_complete(source.path, files)
    source.names()
    for name in (_OPTIMIZER, _SCHEDULER):
        pickled_objects.refuse(source.document(name), keeps_layout=True)
    found = torch_layout.search(source.document(_OPTIMIZER))
    schedulers = torch_layout.search(source.document(_SCHEDULER)).schedulers
    optimizers, loose = pair(found.optimizers, schedulers)
    step, epoch, last = _progress(source)
    facts = _arguments(source, files) | ({} if last is None else {"max_steps": last})
    checkpoint = Checkpoint("hf-trainer", optimizers, loose, step, epoch, facts)
    if not optimizers:
        raise MissingOptimizerError(
            f"{source.path / _OPTIMIZER}: holds nothing that optimizer.state_dict() gives; "
            f"if it is there all the same, say where: --optimizer {_OPTIMIZER}.PATH.IN.TREE",
            checkpoint,
        )
    return checkpoint


def _refuse_parent(source: Source, files: Collection[str]) -> None:
    """A run's folder holds several checkpoints; which one is meant is not for us to say."""
    if _OPTIMIZER in files:
        return
    names = {name.split("/")[0] for name in files if "/" in name}
    steps = {name: int(m[1]) for name in names if (m := _CHECKPOINT.fullmatch(name))}
    if not steps:
        return
    newest = sorted(steps, key=lambda name: steps[name], reverse=True)
    finished = [name for name in newest if f"{name}/{_STATE}" in files]
    shown = [name if name in finished else f"{name} (unfinished)" for name in newest]
    best = source.path / (finished or newest)[0]
    raise AmbiguousError(
        f"{source.path}: is the folder of a run; its checkpoints, newest first: "
        f"{folders.shown(shown)}; name one, such as {folders.argument(best)}"
    )


def _is_checkpoint(path: Path, files: Collection[str]) -> bool:
    if _STATE in files or _ARGUMENTS in files:
        return True
    named = _SCHEDULER in files or _CHECKPOINT.fullmatch(path.name) is not None
    return _OPTIMIZER in files and named


def _check_complete(path: Path, files: Collection[str]) -> None:
    if _STATE not in files and (_OPTIMIZER in files or _SCHEDULER in files):
        raise UnfinishedError(
            f"{path}: has no {_STATE}, which Trainer writes last, so the checkpoint is unfinished; "
            "take an older one"
        )
    if _OPTIMIZER not in files:
        also = (
            "; a scheduler is never converted without its optimizer" if _SCHEDULER in files else ""
        )
        raise LayoutError(
            f"{path}: has no {_OPTIMIZER}; was it saved with save_only_model=True, or by "
            f"save_model()? Found: {folders.listing(files)}{also}"
        )
    if _SCHEDULER not in files:
        raise LayoutError(
            f"{path}: has {_OPTIMIZER} but no {_SCHEDULER}, and Trainer loads neither without both"
            f"; to take the one file alone, name it: {folders.argument(path / _OPTIMIZER)}"
        )


def _progress(source: Source) -> tuple[int | None, float | None, int | None]:
    """Steps and epochs so far, and steps in all."""
    state = source.document(_STATE).tree
    if not isinstance(state, Mapping):
        raise FormatError(f"{source.path / _STATE}: is not a JSON object")
    steps, last = (torch_layout.count(state.get(name)) for name in ("global_step", "max_steps"))
    return steps, number(state.get("epoch")), last


def _arguments(source: Source, files: Collection[str]) -> dict[str, Any]:
    """What training_args.bin says of the learning rate; the pickled object is read, never made."""
    if _ARGUMENTS not in files:
        return {}
    try:
        arguments = source.document(_ARGUMENTS).tree
    except LiontoolError as error:
        return {_ARGUMENTS: f"cannot be read: {error}"}
    state = arguments.state if isinstance(arguments, Opaque) else arguments
    if not isinstance(state, Mapping):
        return {}
    shown = {name: _plain(state.get(name)) for name in _SHOWN_ARGUMENTS}
    return {name: value for name, value in shown.items() if value is not None}


def _plain(value: Value) -> Any:
    """An enum member is pickled as its class called with its value."""
    if isinstance(value, Opaque) and len(value.arguments) == 1:
        value = value.arguments[0]
    return plain(value)


def output_name(path: Path) -> str:
    """ "checkpoint-500" gives "lion-checkpoint-500", which rotation leaves alone."""
    return f"lion-{path.name}"


def output_warning(path: Path) -> str | None:
    """Rotation deletes old folders whose name begins with `checkpoint-`."""
    if not path.name.startswith("checkpoint-"):
        return None
    return (
        f"'{path.name}' begins with 'checkpoint-': Trainer deletes such folders in its output_dir "
        f"when there are more than save_total_limit; a safe name: {output_name(path)}"
    )


def resume_code(checkpoint: Checkpoint, target: Target, output: Path) -> str:
    """A Trainer that builds the Lion itself, and the call that resumes."""
    optimizer = checkpoint.optimizers[0]
    lines = [target.import_line, "", *_trainer(optimizer, target)]
    lines += [f"trainer.train(resume_from_checkpoint={str(output)!r})", "", *_FOLDER_NOTE]
    note = resume_text.constant_lr_note(target, _constant_setting(optimizer)) or _RATE_NOTE
    return "\n".join([*lines, *note])


_FOLDER_NOTE = (
    "# Give TrainingArguments a new output_dir: in the old one resume_from_checkpoint=True finds",
    "# the checkpoints of AdamW again.",
)
_RATE_NOTE = (
    "# The learning rate of the checkpoint wins. In TrainingArguments leave learning_rate and",
    "# min_lr (in lr_scheduler_kwargs) both as they are, or divide both.",
)


def _constant_setting(optimizer: Optimizer) -> str:
    """Trainer's own constant schedule is a LambdaLR, and loads the state of no other class."""
    if any("lr_lambdas" in scheduler.fields for scheduler in optimizer.schedulers):
        return 'TrainingArguments(lr_scheduler_type="constant", ...)'
    return "leave lr_scheduler_type as it is, the checkpoint holds the rate"


def _trainer(optimizer: Optimizer, target: Target) -> list[str]:
    """Trainer makes two groups, with and without weight decay; other groups are the user's own."""
    if not _are_trainers(optimizer.groups):
        statement = resume_text.construct([optimizer], target, "model.parameters()")
        return [statement, "trainer = Trainer(model, args, ..., optimizers=(optimizer, None))"]
    arguments = resume_text.hyperparameters(optimizer, target)
    if not target.highest_lrs:
        arguments["lr"] = "args.learning_rate"
    items = ", ".join(f'"{name}": {text}' for name, text in arguments.items())
    return [
        "trainer = Trainer(",
        "    model, args, ...,  # as before, and",
        f"    optimizer_cls_and_kwargs=({target.name}, {{{items}}}),",
        ")",
    ]


def _are_trainers(groups: Sequence[ParamGroup]) -> bool:
    """Whether Trainer made them: one learning rate, and weight decay in the first or nowhere."""
    if len(groups) != 2:
        return False
    first, second = (group.fields for group in groups)
    lr = "initial_lr" if "initial_lr" in first else "lr"
    return (
        number(first.get(lr)) == number(second.get(lr)) and number(second.get("weight_decay")) == 0
    )


FRAMEWORK = Framework(
    name="hf-trainer",
    looks_for=f"a folder with {_OPTIMIZER}, {_SCHEDULER} and {_STATE}",
    find=find,
    resume_code=resume_code,
    output_name=output_name,
    output_warning=output_warning,
)
