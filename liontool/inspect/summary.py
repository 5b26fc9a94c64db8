"""A checkpoint at a glance, from headers alone: what it is, and what a resume would find in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.document import Document, TensorRef, tensors
from liontool.checkpoint.frameworks.torch_layout import count
from liontool.checkpoint.learning_rates import describe
from liontool.checkpoint.model import Checkpoint, Optimizer, ParamGroup, Scheduler, Slot
from liontool.checkpoint.plain_values import json_value, plain
from liontool.checkpoint.source import Source
from liontool.errors import ReadError
from liontool.inspect.consistency import consistency
from liontool.inspect.findings import Finding
from liontool.inspect.listing import OTHER, TENSOR_FILES, Item
from liontool.inspect.lr_curve import Curve, remaining
from liontool.inspect.opening import opened, shown_path
from liontool.inspect.parameter_sizes import Sizes, parameter_sizes, per_element
from liontool.inspect.resume_outlook import outlook
from liontool.inspect.schedules.trainer import factor_of
from liontool.inspect.sharing import shared
from liontool.states import recognise

SCHEMA = 3
"""Version of the JSON of `to_dict`; grows by one when a field changes its meaning or goes."""


@dataclass(frozen=True)
class GroupSummary:
    """One parameter group.

    Attributes:
        parameters: How many parameters it has.
        elements: Elements of the parameters, as far as state or weights in the file tell them.
        unsized: How many parameters have neither, so that their elements are not counted.
        dtypes: Of the moments, sorted.
        bytes: Size of the state.
        fields: Every hyperparameter.
    """

    parameters: int
    elements: int
    dtypes: tuple[str, ...]
    bytes: int
    fields: Mapping[str, Any]
    unsized: int = 0


@dataclass(frozen=True)
class SchedulerSummary:
    """One learning-rate scheduler.

    Attributes:
        label: Its path in the file.
        kind: Its class, as far as its state tells.
        position: How often it was stepped, where known.
        length: Its own measure of how long it runs, where it has one.
        rates: The absolute learning rates that it holds, by field.
        children: The schedulers nested in it.
        curve: What remains of the learning rate's curve; None for one that is nested, or that
            belongs to no one optimizer.
    """

    label: str
    kind: str
    position: int | None
    length: float | None
    rates: Mapping[str, Any]
    children: tuple[SchedulerSummary, ...] = ()
    curve: Curve | None = None


@dataclass(frozen=True)
class OptimizerSummary:
    """One optimizer.

    Attributes:
        label: Its path in the file; "" where the file is the optimizer.
        kind: "AdamW", "Adam", "Lion", ...; "unknown" where no table fits.
        assumed: Whether "AdamW" is a guess: before torch 2.7 Adam's files look the same.
        groups: Parameter groups in order.
        without_state: How many parameters have none: frozen, or never used.
        bytes: Size of the state as it is.
        bytes_adamw: What the state takes under AdamW; None where no state tells it: factored,
            quantized, or none at all.
        bytes_lion: What it takes under Lion.
        schedulers: The schedulers that drive it.
        resume: What a resume will do, in sentences.
    """

    label: str
    kind: str
    assumed: bool
    groups: tuple[GroupSummary, ...]
    without_state: int
    bytes: int
    bytes_adamw: int | None
    bytes_lion: int | None
    schedulers: tuple[SchedulerSummary, ...]
    resume: tuple[str, ...]


@dataclass(frozen=True)
class FileSummary:
    """One file of the checkpoint that can hold tensors.

    Attributes:
        name: Below the folder; "" where the checkpoint is one file.
        container: "torch zip", "safetensors", ...; "" where it could not be read.
        bytes: Size on disk.
        tensors: How many.
        elements: In all of them; values that tensors share count once, as in `list_tensors`.
        tensor_bytes: Size of all of them, counted likewise.
        dtypes: Of these, the bytes of each element type, largest first.
        facts: What else the container says about itself.
        problem: Why it could not be read, else None.
    """

    name: str
    container: str
    bytes: int
    tensors: int = 0
    elements: int = 0
    tensor_bytes: int = 0
    dtypes: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class Summary:
    """The whole checkpoint.

    Attributes:
        path: As it was asked for; of a run, the checkpoint.
        is_folder: Whether it is several files.
        file_count: How many files and links it has, of whatever kind.
        bytes: Size of all of them on disk.
        framework: Who wrote it; None where no optimizer was found.
        no_optimizer: Why none was found, else None.
        step: Optimizer steps so far, where known.
        epoch: Epochs so far, where known.
        facts: What else the framework says.
        optimizers: Every optimizer.
        schedulers: Schedulers that belong to no one optimizer.
        files: Every file that can hold tensors.
        findings: What does not fit together, or is good to know: see `consistency`.
    """

    path: str
    is_folder: bool
    file_count: int
    bytes: int
    framework: str | None
    no_optimizer: str | None
    step: int | None
    epoch: float | None
    facts: Mapping[str, Any]
    optimizers: tuple[OptimizerSummary, ...]
    schedulers: tuple[SchedulerSummary, ...]
    files: tuple[FileSummary, ...]
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first.

        NaN and infinities become "nan", "inf" and "-inf".
        """
        findings = [{"severity": one.severity, **asdict(one)} for one in self.findings]
        document = {"schema": SCHEMA, **asdict(self), "findings": findings}
        found: dict[str, Any] = json_value(document)
        return found


@paused_collector()
def summarise(
    path: str | PathLike[str], framework: str | None = None, optimizers: Sequence[str] = ()
) -> Summary:
    """Look into a checkpoint. A file without an optimizer is fine.

    Args:
        path: A file or a folder that a training framework wrote.
        framework: Its name where it should not be found out; then it must fit.
        optimizers: Take these alone, by their paths in the file, wherever they are.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe.
        AmbiguousError: Several checkpoints fit.
        LayoutError: `framework` was given and does not fit.
    """
    look = opened(path, framework, optimizers)
    source, checkpoint = look.source, look.checkpoint
    files = tuple(_files(source))
    return Summary(
        path=shown_path(path, source),
        is_folder=source.is_folder,
        file_count=len(source.listing()) if source.is_folder else 1,
        bytes=source.size,  # shards count once their index was read
        framework=checkpoint.framework if checkpoint else None,
        no_optimizer=look.no_optimizer,
        step=_step(checkpoint) if checkpoint else None,
        epoch=checkpoint.epoch if checkpoint else None,
        facts=plain(checkpoint.facts) if checkpoint else {},
        optimizers=tuple(_optimizers(source, checkpoint)) if checkpoint else (),
        schedulers=tuple(map(_scheduler, checkpoint.loose_schedulers)) if checkpoint else (),
        files=files,
        findings=tuple(consistency(look)),
    )


def _step(checkpoint: Checkpoint) -> int | None:
    """The framework's count, else that of the first parameter that has one."""
    if checkpoint.step is not None:
        return checkpoint.step
    for optimizer in checkpoint.optimizers:
        for slot in optimizer.slots.values():
            step = count(slot.state.get("step"))
            if step is not None:
                return step
    return None


def _optimizers(source: Source, checkpoint: Checkpoint) -> Iterator[OptimizerSummary]:
    for optimizer in checkpoint.optimizers:
        yield _optimizer(optimizer, checkpoint, parameter_sizes(source, optimizer))


def _optimizer(optimizer: Optimizer, checkpoint: Checkpoint, sizes: Sizes) -> OptimizerSummary:
    slots = optimizer.slots
    found = recognise(
        (group.fields for group in optimizer.groups), (slot.state.keys() for slot in slots.values())
    )
    factor = factor_of(checkpoint)
    curves = [remaining(one, optimizer.groups, factor) for one in optimizer.schedulers]
    lion = _momentum_bytes(optimizer)
    return OptimizerSummary(
        label=optimizer.label,
        kind=found.kind,
        assumed=found.assumed,
        groups=tuple(_group(group, slots, sizes) for group in optimizer.groups),
        without_state=sum(
            key not in slots or not slots[key].state
            for group in optimizer.groups
            for key in group.params
        ),
        bytes=optimizer.state_bytes,
        bytes_adamw=None if lion is None else 2 * lion,
        bytes_lion=lion,
        schedulers=tuple(map(_scheduler, optimizer.schedulers, curves)),
        resume=outlook(optimizer, checkpoint.framework, curves),
    )


def _momentum_bytes(optimizer: Optimizer) -> int | None:
    """Bytes of a momentum for each parameter with state; None where one of them does not tell."""
    moments = [per_element(slot) for slot in optimizer.slots.values() if slot.state]
    known = [moment.nbytes for moment in moments if moment is not None]
    return sum(known) if known and len(known) == len(moments) else None


def _group(group: ParamGroup, slots: Mapping[int | str, Slot], sizes: Sizes) -> GroupSummary:
    own = [slots[key] for key in group.params if key in slots]
    found = [(name, tensor) for slot in own for name, tensor in slot.tensors()]
    return GroupSummary(
        parameters=len(group.params),
        elements=sum(sizes.get(key, 0) for key in group.params),
        dtypes=tuple(sorted({tensor.dtype for name, tensor in found if name != "step"})),
        bytes=sum(tensor.nbytes for _, tensor in found),
        fields={name: item for name, item in plain(group.fields).items() if name != "param_names"},
        unsized=sum(key not in sizes for key in group.params),
    )


def _scheduler(scheduler: Scheduler, curve: Curve | None = None) -> SchedulerSummary:
    found = describe(scheduler)
    return SchedulerSummary(
        label=scheduler.label,
        kind=found.name,
        position=found.position,
        length=found.length,
        rates=found.rates,
        children=tuple(map(_scheduler, scheduler.children)),
        curve=curve,
    )


def _files(source: Source) -> Iterator[FileSummary]:
    if not source.is_folder:
        yield _file(source.document(), source.path, "")
        return
    for name in source.names():
        if name.endswith(TENSOR_FILES):
            path = source.path / name
            try:
                yield _file(source.document(name), path, name)
            except ReadError as error:
                # Of a link that leads nowhere there is only the link itself.
                yield FileSummary(name, "", path.lstat().st_size, problem=str(error))


def _file(document: Document, path: Path, name: str) -> FileSummary:
    found = [tensor for _, tensor in tensors(document.tree)]
    copies = shared(Item("", "", OTHER, tensor) for tensor in found)
    own = [tensor for tensor in found if id(tensor) not in copies]
    return FileSummary(
        name=name,
        container=document.container,
        bytes=path.stat().st_size,
        tensors=len(found),
        elements=sum(tensor.numel for tensor in own),
        tensor_bytes=sum(tensor.nbytes for tensor in own),
        dtypes=_by_dtype(own),
        facts=dict(document.facts),
    )


def _by_dtype(found: Iterable[TensorRef]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for tensor in found:
        totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.nbytes
    return dict(sorted(totals.items(), key=lambda item: -item[1]))
