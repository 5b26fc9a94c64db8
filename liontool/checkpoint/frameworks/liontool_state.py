"""Optimizer state in liontool's own safetensors layout (see `state_file`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from liontool.checkpoint import state_file
from liontool.checkpoint.document import (
    Delete,
    Document,
    Edit,
    Insert,
    Place,
    Rename,
    Replace,
    TensorRef,
)
from liontool.checkpoint.formats.safetensors_file import METADATA
from liontool.checkpoint.frameworks import resume_text, torch_layout
from liontool.checkpoint.frameworks.framework import Framework
from liontool.checkpoint.model import Checkpoint, Fields, Optimizer, ParamGroup, Scheduler, Slot
from liontool.checkpoint.source import Source
from liontool.checkpoint.state_file import SCHEMA
from liontool.errors import FormatError, LayoutError, LimitError

_MOST_DIGITS = 12


def find(source: Source) -> Checkpoint | None:
    """The optimizer in a state file; None where the source is no such file.

    Raises:
        LayoutError: The file follows a newer version of the layout.
        FormatError: The metadata is not the JSON that the layout asks for.
    """
    if source.is_folder or "liontool.schema" not in source.document().facts:
        return None
    document = source.document()
    version = document.facts["liontool.schema"]
    if version != SCHEMA:
        raise LayoutError(
            f"{document.path}: state layout {version} is newer than {SCHEMA}; update liontool"
        )
    states = _states(document)
    groups = tuple(_group(group, document) for group in _records(document, "param_groups"))
    names = {
        key: name for group in groups for key, name in zip(group.params, group.names, strict=False)
    }
    slots = {key: Slot(key, Fields(state), name=names.get(key)) for key, state in states.items()}
    schedulers = tuple(_scheduler(state, document) for state in _records(document, "lr_scheduler"))
    optimizer = Optimizer("", groups, slots, schedulers)
    return Checkpoint(
        "liontool-state",
        (optimizer,),
        step=torch_layout.count(_provenance(document).get("step")),
        facts={"optimizer class": document.facts.get("liontool.optimizer", "unknown")},
    )


def _records(document: Document, name: str) -> list[dict[str, Any]]:
    """A list of objects from the metadata."""
    value = _json(document, name)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise FormatError(
            f"{document.path}: metadata liontool.{name} must be a JSON list of objects"
        )
    return value


def _provenance(document: Document) -> dict[str, Any]:
    value = _json(document, "provenance") if "liontool.provenance" in document.facts else {}
    return value if isinstance(value, dict) else {}


def _json(document: Document, name: str) -> Any:
    key = f"liontool.{name}"
    try:
        return json.loads(document.facts[key])
    except KeyError:
        raise FormatError(f"{document.path}: metadata lacks {key}") from None
    except (ValueError, RecursionError):
        raise FormatError(f"{document.path}: metadata {key} is not JSON") from None


def _states(document: Document) -> dict[int | str, dict[str, TensorRef]]:
    states: dict[int | str, dict[str, TensorRef]] = {}
    for full_name, tensor in document.tree.items():
        label, _, name = full_name.removeprefix("state.").rpartition(".")
        if not full_name.startswith("state.") or not label:
            raise FormatError(
                f"{document.path}: tensor {full_name[:80]!r} is not named "
                "state.<parameter>.<name>, as all are in this layout"
            )
        states.setdefault(_key(label), {})[name] = tensor
    return states


def _group(record: Mapping[str, Any], document: Document) -> ParamGroup:
    labels = record.get("params")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise FormatError(
            f"{document.path}: each group in metadata liontool.param_groups must list the names "
            "of its parameters as 'params'"
        )
    fields = {
        name: tuple(value) if name == "betas" and isinstance(value, list) else value
        for name, value in record.items()
        if name != "params"
    }
    keys = tuple(map(_key, labels))
    named = all(isinstance(key, str) for key in keys)
    return ParamGroup(Fields(fields), keys, tuple(labels) if named else ())


def _scheduler(record: Mapping[str, Any], document: Document, depth: int = 0) -> Scheduler:
    if depth > torch_layout.MAX_NESTING:
        raise LimitError(
            f"{document.path}: metadata liontool.lr_scheduler: schedulers are nested more than "
            f"{torch_layout.MAX_NESTING} deep"
        )
    children = record.get("_schedulers", [])
    if not isinstance(children, list) or not all(isinstance(child, dict) for child in children):
        raise FormatError(
            f"{document.path}: metadata liontool.lr_scheduler: _schedulers must be a list of "
            "objects"
        )
    fields = {name: value for name, value in record.items() if name != "_schedulers"}
    return Scheduler(
        Fields(fields), tuple(_scheduler(child, document, depth + 1) for child in children)
    )


def _key(label: str) -> int | str:
    """A position, if spelled like one: "03" is another parameter than "3"."""
    is_position = label.isascii() and label.isdecimal() and len(label) <= _MOST_DIGITS
    return int(label) if is_position and str(int(label)) == label else label


def plan(before: Checkpoint, after: Checkpoint) -> list[Edit]:
    """The edits that turn the state file of `before` into that of `after`.

    Raises:
        LayoutError: JSON cannot keep a value.
    """
    old, new = before.optimizers[0], after.optimizers[0]
    found = list(_tensor_edits(state_file.tensors(old), state_file.tensors(new)))
    texts = state_file.json_texts(new)
    for key, text in state_file.json_texts(old).items():
        if texts[key] != text:
            found.append(Replace(Place("", (METADATA, key)), texts[key]))
    return found


def _tensor_edits(
    before: Mapping[str, TensorRef], after: Mapping[str, TensorRef]
) -> Iterator[Edit]:
    old = {id(tensor) for tensor in before.values()}
    names = {id(tensor): name for name, tensor in after.items()}
    for name, tensor in before.items():
        place = Place("", (name,))
        new_name = names.pop(id(tensor), None)
        if new_name is not None:
            if new_name != name:
                yield Rename(place, new_name)
        elif name in after and id(after[name]) not in old:
            del names[id(after[name])]
            yield Replace(place, after[name])
        else:
            yield Delete(place)
    for name in names.values():
        yield Insert(Place("", (name,)), after[name])


FRAMEWORK = Framework(
    name="liontool-state",
    looks_for="a safetensors file with 'liontool.schema' in its metadata",
    find=find,
    resume_code=resume_text.state_file,
    plan=plan,
)
