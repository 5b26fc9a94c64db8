"""A checkpoint of a run in memory. Its bytes have been compared with COMMIT before.

Tensors are read into memory of their own: they outlive the file, which retention may take away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liontool.checkpoint import values
from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.formats.safetensors_file import SafetensorsDocument
from liontool.checkpoint.reading import open_file, opened, read_into
from liontool.checkpoint.run_folder.layout import FACTS, SCHEMA, tensors_name, tree_name
from liontool.errors import FormatError, LayoutError, LimitError
from liontool.resume.encoding import decode_state

MAX_JSON = 256 << 20
"""Bytes of state-0.json and of run.json."""


def read_state(folder: Path, live: Mapping[str, object]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state and the facts of a checkpoint that `check` has found good.

    Args:
        folder: The checkpoint.
        live: The state of the run that goes on; functions and classes are taken from it.

    Raises:
        ReadError: The files are not what liontool writes.
        LayoutError: A newer liontool wrote them.
        ResumeError: The live run lacks a function that the state names.
    """
    facts = read_facts(folder)
    file = folder / tree_name()
    body = _json(file, "liontool.state")
    if body.get("tensors") != tensors_name():
        raise FormatError(f"{file}: names other tensors than {tensors_name()}")
    document = SafetensorsDocument(folder / tensors_name())
    tensors = _Tensors(document)
    return decode_state(body.get("tree"), tensors.read, live, str(file)), facts


def read_facts(folder: Path) -> dict[str, Any]:
    """What run.json says.

    Raises:
        ReadError: The file is not what liontool writes.
        LayoutError: A newer liontool wrote it.
    """
    return _json(folder / FACTS, "liontool.run")


class _Tensors:
    """The tensors of a file, each read when it is asked for."""

    def __init__(self, document: SafetensorsDocument) -> None:
        self._refs = document.tree
        self._read: dict[str, Tensor] = {}

    def read(self, name: str) -> Tensor:
        """The tensor of a name; asked for again, the same one."""
        if name not in self._read:
            self._read[name] = _tensor(self._refs[name])
        return self._read[name]


def _tensor(ref: TensorRef) -> Tensor:
    tensor = torch.empty(ref.shape, dtype=getattr(torch, ref.dtype))
    if ref.numel:
        span = values.span_of(ref)
        with opened(span.file) as fd:
            read_into(fd, span, tensor.reshape(-1).view(torch.uint8).numpy().data)
    return tensor


def _json(file: Path, version: str) -> dict[str, Any]:
    fd = open_file(file)
    with open(fd, "rb") as opened_file:
        data = opened_file.read(MAX_JSON + 1)
    if len(data) > MAX_JSON:
        raise LimitError(f"{file}: is larger than {MAX_JSON:,} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{file}: is not valid JSON: {error!s:.200}") from None
    if not isinstance(body, dict) or version not in body:
        raise FormatError(f"{file}: must be an object with '{version}'")
    if body[version] != SCHEMA:
        raise LayoutError(
            f"{file}: layout {body[version]!r:.40} is newer than this liontool; update it: "
            "pip install -U liontool"
        )
    return body
