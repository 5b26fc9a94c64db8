"""Where the result of a conversion goes, and what kind of file it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any

from liontool.checkpoint import formats, state_file
from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.document import Edit, TensorRef
from liontool.checkpoint.formats import safetensors_file
from liontool.checkpoint.model import Checkpoint
from liontool.checkpoint.run_folder.choosing import checkpoints
from liontool.checkpoint.run_folder.lock import holder
from liontool.checkpoint.source import Source
from liontool.checkpoint.writing import PROVENANCE_FILE, Output, as_run, rewritten
from liontool.errors import AmbiguousError, OutputExistsError, PublishError

_TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")


class Kind(Enum):
    """What is written."""

    SAME = "the whole checkpoint in its own container"
    TORCH_STATE = "the optimizer's state dict alone, a torch file"
    SAFETENSORS_STATE = "the optimizer's state alone, safetensors"


@dataclass(frozen=True)
class Destination:
    """A path, and what is written there."""

    path: Path
    kind: Kind


def destination(
    source: Source, output: str | PathLike[str] | None, default_name: str
) -> Destination:
    """Decide by the suffix: the source's own keeps all, another one takes the state alone.

    Args:
        source: What is converted.
        output: What the user asked for, or None for `default_name` beside the source.
        default_name: Name that the framework proposes.

    Raises:
        PublishError: `output` is or lies inside the source, or has a suffix that nothing writes.
    """
    path = beside(source.home, default_name) if output is None else Path(output)
    keep_off(source.home, path)
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return Destination(path, Kind.SAFETENSORS_STATE)
    if output is None or suffix == source.path.suffix.lower():
        return Destination(path, Kind.SAFETENSORS_STATE if _is_state_file(source) else Kind.SAME)
    if suffix in _TORCH_SUFFIXES:
        return Destination(path, Kind.TORCH_STATE)
    if source.is_folder:
        return Destination(path, Kind.SAME)
    raise PublishError(
        f"{path}: cannot tell what to write; end it in '{source.path.suffix}' for the whole "
        "checkpoint, or in .safetensors or .pt for the optimizer's state alone"
    )


def _is_state_file(source: Source) -> bool:
    """Whether the source is safetensors, which as a whole checkpoint holds nothing but state."""
    return not source.is_folder and source.document().container == "safetensors"


def beside(source: Path, name: str) -> Path:
    """`name` in the folder that the source lies in."""
    # A path such as "." or "run/.." has no name of its own to put something beside.
    return (source if source.name not in ("", "..") else source.resolve()).with_name(name)


def keep_off(source: Path, output: Path) -> None:
    """Refuse an output that is the source, or that lies in it or around it.

    Raises:
        PublishError: It does.
    """
    # Path.resolve() cannot take a link that leads to itself.
    real_source, real_output = Path(os.path.realpath(source)), Path(os.path.realpath(output))
    if real_output == real_source:
        raise PublishError(
            f"{output}: is the source itself, which is never touched; choose another -o"
        )
    if real_source in real_output.parents and source.is_dir():
        raise PublishError(f"{output}: lies inside the source {source}; choose a place outside")
    if real_output in real_source.parents:
        raise PublishError(f"{output}: the source {source} lies in it; choose another -o")


def check_own_folder(path: Path, *, is_run: bool = False) -> None:
    """A folder in the way is only replaced if liontool wrote it: `--force` is no `rm -r`.

    Args:
        path: The folder.
        is_run: The output is the folder of a run: then all checkpoints in it must be such outputs,
            since what was trained from one is nowhere else.

    Raises:
        OutputExistsError: It is somebody else's.
    """
    if not path.is_dir():
        return
    who = holder(path) if is_run else None
    if who is not None:
        raise OutputExistsError(f"{path}: {who} trains in it; choose another -o")
    for one in (checkpoints(path) if is_run else ()) or [path]:
        if not (one / PROVENANCE_FILE).is_file():
            what = "a folder" if one == path else "the folder of a run, and holds a checkpoint"
            raise OutputExistsError(
                f"{one}: is {what} that liontool did not write, and is not replaced; "
                "remove it yourself or choose another -o"
            )


@paused_collector()
def contents(
    source: Source,
    kind: Kind,
    plan: Callable[[], Sequence[Edit]],
    after: Checkpoint,
    *,
    class_name: str,
    scan: Collection[TensorRef],
    provenance: Mapping[str, Any],
) -> Output:
    """What is going to be written.

    Args:
        source: What is converted.
        kind: How much of it is written, and as what.
        plan: What changes in the files of the source; not asked where only state is written.
        after: What the optimizers are afterwards.
        class_name: Class and version of the optimizer that will load the result.
        scan: Tensors in which NaN or infinity stops the writing.
        provenance: The record about itself.

    Raises:
        AmbiguousError: A state file holds one optimizer, and there are several.
    """
    if kind is Kind.SAME:
        made = rewritten(source, plan(), scan=scan, provenance=provenance)
        return as_run(source, made)
    if len(after.optimizers) != 1:
        labels = ", ".join(optimizer.label for optimizer in after.optimizers)
        raise AmbiguousError(
            f"{source.path}: holds several optimizers and a state file holds one; "
            f"choose it with --optimizer: {labels}"
        )
    optimizer = after.optimizers[0]
    if kind is Kind.TORCH_STATE:
        state = state_file.state_dict(optimizer)
        return Output({"": formats.create_torch(state, scan=scan, provenance=provenance)}, {})
    pieces = safetensors_file.pieces(
        state_file.tensors(optimizer),
        state_file.metadata(optimizer, class_name, provenance),
        scan=frozenset(scan),
    )
    return Output({"": pieces}, {})
