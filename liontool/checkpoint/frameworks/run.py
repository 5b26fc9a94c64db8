"""Checkpoints of `liontool.resume.Run`: a folder of a run, or one of the checkpoints in it.

The state is one tree; run.json has the classes, and the names of the optimizer's parameters. Run
opens only what has the classes that it was built with, so that a conversion changes them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from liontool.checkpoint import model
from liontool.checkpoint.document import Document, Edit, Place, Replace, Value
from liontool.checkpoint.frameworks import resume_text, torch_layout
from liontool.checkpoint.frameworks.framework import Framework, Target
from liontool.checkpoint.frameworks.pairing import pair
from liontool.checkpoint.model import Checkpoint, Optimizer, ParamGroup, Scheduler
from liontool.checkpoint.run_folder.facts import read_facts
from liontool.checkpoint.run_folder.layout import COMMIT, FACTS, tree_name
from liontool.checkpoint.source import Source
from liontool.errors import FormatError, LayoutError, MissingOptimizerError

_PARTS = ("optimizer", "scheduler", "extras")
_CLASSES, _NAMES = "classes", "param_names"
_EXTRAS = "extras."
_SHOWN = ("level", "reasons", "data")


def find(source: Source) -> Checkpoint | None:
    """The optimizers and schedulers of a run; None where the source is none.

    Raises:
        ReadError: The checkpoint is unfinished or damaged, as far as names and sizes tell.
        LayoutError: Another version, or several processes, wrote it.
        MissingOptimizerError: The run had no optimizer that keeps its state as torch's do.
    """
    commit = source.commit if source.is_folder else None
    if commit is None:
        return None
    facts = _facts(source.path)
    document = source.document(tree_name())
    if document.container != "run state":
        raise FormatError(f"{document.path}: is no state of a run")
    found = torch_layout.search(document, [(part,) for part in _PARTS])
    schedulers = [_called(scheduler) for scheduler in found.schedulers]
    optimizers, loose = pair([_called(one) for one in found.optimizers], schedulers)
    checkpoint = Checkpoint(
        "run",
        tuple(_named(optimizer, facts, document) for optimizer in optimizers),
        loose,
        step=commit.step,
        epoch=commit.epoch,
        facts=_shown(facts, document),
    )
    _check_step(source, checkpoint, facts, document.tree)
    if not optimizers:
        raise MissingOptimizerError(
            f"{document.path}: holds no optimizer's state, in {_listed(document)}; if it is there "
            "all the same, say where: --optimizer PATH.IN.TREE",
            checkpoint,
        )
    return checkpoint


_Labelled = TypeVar("_Labelled", Optimizer, Scheduler)


def _called(found: _Labelled) -> _Labelled:
    """By what the script passed it to Run as; one file has them all."""
    return replace(found, label=found.label.removeprefix(f"{tree_name()}."))


def _facts(checkpoint: Path) -> Mapping[str, Any]:
    """What run.json says, as far as it is needed here."""
    path, facts = checkpoint / FACTS, read_facts(checkpoint)
    classes = facts.get(_CLASSES)
    if not isinstance(classes, dict) or not all(isinstance(one, str) for one in classes.values()):
        raise FormatError(f"{path}: '{_CLASSES}' must be an object of names")
    if facts.get("ranks") != 1:
        raise LayoutError(
            f"{path}: {facts.get('ranks')!r:.40} processes saved it, and this version "
            "reads what one process saved"
        )
    return facts


def _check_step(
    source: Source, checkpoint: Checkpoint, facts: Mapping[str, Any], tree: Mapping[str, Any]
) -> None:
    """COMMIT, run.json and the state must speak of one step."""
    position = tree.get("run")
    told = {FACTS: facts.get("step")}
    told[tree_name()] = position.get("step") if isinstance(position, Mapping) else None
    for name, step in told.items():
        if step != checkpoint.step:
            raise FormatError(
                f"{source.path}: {name} is that of step {step!r:.40}, and {COMMIT} that of step "
                f"{checkpoint.step}; take another checkpoint"
            )


def _listed(document: Document) -> str:
    parts = [str(part) for part in document.tree]
    return ", ".join(f"'{part:.40}'" for part in parts[:8]) or "an empty tree"


def _shown(facts: Mapping[str, Any], document: Document) -> dict[str, Any]:
    """What else people may want to know, and what `resume_code` must name."""
    parts = [
        part for part in ("model", "optimizer", "scheduler", "loader") if part in document.tree
    ]
    extras = document.tree.get("extras")
    names = list(map(str, extras)) if isinstance(extras, Mapping) else []
    shown = {name: facts[name] for name in _SHOWN if facts.get(name)}
    return {"parts": (*parts, *names), _CLASSES: facts[_CLASSES], **shown}


# --- classes and names --------------------------------------------------------------------------


def _key(optimizer: Optimizer) -> str:
    """What run.json calls the optimizer: "optimizer", "extras.discriminator"."""
    place = optimizer.groups[0].fields.place
    return "" if place is None else ".".join(map(str, place.path[:-2]))


def _named(optimizer: Optimizer, facts: Mapping[str, Any], document: Document) -> Optimizer:
    """The optimizer with its class and the names of its parameters."""
    key = _key(optimizer)
    optimizer = replace(optimizer, class_name=facts[_CLASSES].get(key, ""))
    names = facts.get(_NAMES)
    groups = _with_names(optimizer.groups, names.get(key) if isinstance(names, dict) else None)
    if groups == optimizer.groups:
        return optimizer
    known = {k: n for group in groups for k, n in zip(group.params, group.names, strict=False)}
    slots = {k: replace(slot, name=known.get(k)) for k, slot in optimizer.slots.items()}
    return torch_layout.with_shapes(replace(optimizer, groups=groups, slots=slots), document)


def _with_names(groups: tuple[ParamGroup, ...], names: Value) -> tuple[ParamGroup, ...]:
    """The groups with names, where there is one for every parameter."""
    if not isinstance(names, list) or len(names) != len(groups):
        return groups
    pairs = list(zip(groups, names, strict=True))
    if not all(_fit(group, own) for group, own in pairs):
        return groups
    return tuple(replace(group, names=tuple(own)) for group, own in pairs)


def _fit(group: ParamGroup, names: Value) -> bool:
    return (
        isinstance(names, list)
        and len(names) == len(group.params)
        and all(isinstance(name, str) and name for name in names)
    )


def class_place(optimizer: Optimizer) -> Place:
    """Where the class of an optimizer stands."""
    return Place(FACTS, (_CLASSES, _key(optimizer)))


# --- writing ------------------------------------------------------------------------------------


def plan(before: Checkpoint, after: Checkpoint) -> list[Edit]:
    """The edits of the state, and of run.json where classes or names are others."""
    edits = model.plan(before, after)
    for old, new in zip(before.optimizers, after.optimizers, strict=True):
        edits.extend(_facts_edits(old, new))
    return edits


def _facts_edits(old: Optimizer, new: Optimizer) -> Iterator[Edit]:
    key = _key(old)
    if old.class_name != new.class_name:
        yield Replace(class_place(old), new.class_name)
    names = [list(group.names) for group in new.groups]
    if names != [list(group.names) for group in old.groups]:
        yield Replace(Place(FACTS, (_NAMES, key)), names)


def output_name(path: Path) -> str:
    """ "exp1" gives "exp1.lion", a run of its own."""
    return f"{path.name}.lion"


def resume_code(checkpoint: Checkpoint, target: Target, output: Path) -> str:
    """The optimizers anew, and `Run` in the new folder with all that it had."""
    parts = [p for p in checkpoint.facts["parts"] if not (target.constant_lr and p == "scheduler")]
    arguments = {part: part for part in (*parts, "steps")}
    lines = [target.import_line, "from liontool.resume import Run", ""]
    for index, optimizer in enumerate(checkpoint.optimizers):
        lines += [resume_text.construct(checkpoint.optimizers, target, "model.parameters()", index)]
        arguments[_key(optimizer).removeprefix(_EXTRAS)] = f"optimizer{resume_text.suffix(index)}"
    if "scheduler" in parts:
        lines += ["scheduler = ...  # as before, on this optimizer"]
    given = ", ".join(f"{name}={value}" for name, value in arguments.items())
    lines += [f"run = Run({str(output)!r}, {given})", "# and save_every, keep and config as before"]
    return "\n".join([*lines, *resume_text.constant_lr_note(target, "Run gets no scheduler")])


FRAMEWORK = Framework(
    name="run",
    looks_for=f"a folder of liontool.resume.Run with {tree_name()}, {FACTS} and {COMMIT}",
    find=find,
    resume_code=resume_code,
    output_name=output_name,
    plan=plan,
)
