"""A checkpoint of a run in memory. Its bytes have been compared with COMMIT before.

Tensors are read into memory of their own: they outlive the file, which retention may take away.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from liontool.checkpoint import values
from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.formats.safetensors_file import SafetensorsDocument
from liontool.checkpoint.reading import opened, read_into
from liontool.checkpoint.run_folder import bounded_json
from liontool.checkpoint.run_folder.facts import read_facts, read_object
from liontool.checkpoint.run_folder.layout import STATE, tensors_name, tree_name
from liontool.errors import FormatError
from liontool.resume.encoding import decode_state


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
    body = read_object(file, STATE)
    if body.get("tensors") != tensors_name():
        raise FormatError(f"{file}: names other tensors than {tensors_name()}")
    if not isinstance(body.get("tree"), dict):
        raise FormatError(f"{file}: its tree must be an object with the parts of the state")
    bounded_json.check_file(folder / tensors_name())
    tensors = _Tensors(SafetensorsDocument(folder / tensors_name()))
    return decode_state(body["tree"], tensors.read, live, str(file)), facts


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
