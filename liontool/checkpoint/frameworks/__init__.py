"""Where frameworks keep optimizers, schedulers and steps: one lens, one small file, each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.document import Document, Place, Value
from liontool.checkpoint.frameworks import (
    folders,
    hf_trainer,
    lightning,
    liontool_state,
    plain,
    run,
    sharded,
    torch_layout,
)
from liontool.checkpoint.frameworks.framework import Framework, Target
from liontool.checkpoint.frameworks.pairing import pair
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.run_folder.layout import tree_name
from liontool.checkpoint.source import Source
from liontool.errors import LayoutError, MissingOptimizerError

__all__ = ["FRAMEWORKS", "Framework", "Target", "find", "named"]

# In the order of asking: `plain` takes every file.
FRAMEWORKS = (
    hf_trainer.FRAMEWORK,
    run.FRAMEWORK,
    lightning.FRAMEWORK,
    liontool_state.FRAMEWORK,
    plain.FRAMEWORK,
)


def named(name: str) -> Framework:
    """The framework that `--framework` calls so.

    Raises:
        LayoutError: There is none of this name.
    """
    for framework in FRAMEWORKS:
        if framework.name == name:
            return framework
    names = ", ".join(framework.name for framework in FRAMEWORKS)
    raise LayoutError(f"unknown framework '{name}'; choose from: {names}")


@paused_collector()
def find(
    source: Source, name: str | None = None, optimizer_paths: Sequence[str] = ()
) -> tuple[Framework, Checkpoint]:
    """Find out which framework wrote a checkpoint, and what is in it.

    Args:
        source: The file or folder.
        name: The framework, where guessing is not wanted.
        optimizer_paths: Take these optimizers only, wherever they are.

    Raises:
        ReadError: A file is damaged, unfinished or unsafe.
        LayoutError: Nothing was recognised, or more than one checkpoint.
    """
    choice = (named(name),) if name is not None else FRAMEWORKS
    sharded.refuse(source)
    try:
        framework, checkpoint = _first(source, choice)
    except MissingOptimizerError as error:
        if not optimizer_paths or not isinstance(error.checkpoint, Checkpoint):
            raise
        framework, checkpoint = named(error.checkpoint.framework), error.checkpoint
    if optimizer_paths:
        checkpoint = _only(source, checkpoint, optimizer_paths)
    return framework, checkpoint


def _first(source: Source, choice: Sequence[Framework]) -> tuple[Framework, Checkpoint]:
    for framework in choice:
        checkpoint = framework.find(source)
        if checkpoint is not None:
            return framework, checkpoint
    raise _nothing(source, choice)


def _nothing(source: Source, choice: Sequence[Framework]) -> LayoutError:
    """No framework knows the source."""
    several = folders.several(source) if source.is_folder and len(choice) > 1 else None
    if several is not None:
        return several
    sharded.refuse_inside(source)
    looked = "; or ".join(framework.looks_for for framework in choice)
    if source.is_folder:
        found = f"a folder with {folders.listing(source.listing())}"
    else:
        found = plain.describe(source.document().tree)
    way_out = "; leave --framework out" if len(choice) == 1 else ""
    return LayoutError(f"{source.path}: looked for {looked}; found {found}{way_out}")


def _only(source: Source, checkpoint: Checkpoint, paths: Sequence[str]) -> Checkpoint:
    """The checkpoint with the optimizers at `paths` and the schedulers that are theirs."""
    known = {optimizer.label: optimizer for optimizer in checkpoint.optimizers}
    chosen: dict[str, Optimizer] = {}
    loose = checkpoint.loose_schedulers
    for path in paths:
        optimizer = known.get(path) or _at(source, path, known)
        if optimizer.label not in known:
            (optimizer,), loose = pair([optimizer], loose)
        chosen[optimizer.label] = optimizer
    return replace(checkpoint, optimizers=tuple(chosen.values()), loose_schedulers=loose)


def _at(source: Source, dotted: str, known: Mapping[str, Optimizer]) -> Optimizer:
    """The optimizer at a path: a known one by another of its paths, or one of the user's own."""
    document, rest = _document(source, dotted)
    path = None if document is None else torch_layout.follow(document.tree, rest)
    value = None if document is None or path is None else torch_layout.at(document.tree, path)
    if document is None or path is None or value is None or not torch_layout.is_optimizer(value):
        what = "leads nowhere" if path is None else f"leads to {plain.describe(value)}"
        others = f"; optimizers found: {', '.join(known)}" if known else ""
        raise LayoutError(
            f"{source.path}: --optimizer {dotted} {what}, not to an optimizer's state "
            f"{plain.SHAPE}{others}"
        )
    found = torch_layout.optimizer(value, Place(document.name, path))
    same = (one for one in known.values() if _value(source, one) is value)
    return next(same, found)


def _value(source: Source, optimizer: Optimizer) -> Value:
    """The mapping that an optimizer was read from."""
    place = optimizer.groups[0].fields.place
    tree = None if place is None else source.document(place.document).tree
    return None if place is None else torch_layout.at(tree, place.path[:-2])


def _document(source: Source, dotted: str) -> tuple[Document | None, str]:
    """In a folder a path begins with the name of a file, but in that of a run."""
    if not source.is_folder:
        return source.document(), dotted
    names = [n for n in source.listing() if dotted == n or dotted.startswith(f"{n}.")]
    name = max(names, key=len, default=None)
    if name:
        return source.document(name), dotted[len(name) + 1 :]
    return (source.document(tree_name()) if source.is_of_run else None), dotted
