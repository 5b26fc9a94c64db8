"""Checkpoints in shards, each with a part of every moment: known by their files, and not read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

from liontool.checkpoint.document import Document
from liontool.checkpoint.frameworks import torch_layout
from liontool.checkpoint.source import Source
from liontool.errors import LayoutError

_DISTRIBUTED = ".distcp"

# Where Trainer and Accelerate keep the shards of the optimizer; those of the weights lie beside.
_OPTIMIZER_FOLDER = re.compile(r"optimizer(_\d+)?")
_WEIGHTS_FOLDER = re.compile(r"pytorch_model_fsdp(_\d+)?")

_DEEPSPEED_FILE = re.compile(r"[^/]*_optim_states\.pt|[^/]*mp_rank_\d+[^/]*_model_states\.pt")
_DEEPSPEED_KEYS = {"base_optimizer_state", "single_partition_of_fp32_groups", "fp32_flat_groups"}


def refuse(source: Source) -> None:
    """See that the source is no sharded checkpoint.

    Raises:
        LayoutError: It is one; the message says what makes one file of it, if there is something.
    """
    if not source.is_folder:
        _refuse_file(source.path)
        return
    files = source.listing()
    near = [at for at in _distributed_folders(files) if _is_part(at)]
    if near:
        raise _distributed(source.path, source.path / _with_optimizer(near))
    if _is_deepspeed(files):
        raise _deepspeed(source.path)


def _refuse_file(path: Path) -> None:
    if path.suffix == _DISTRIBUTED or path.name == ".metadata":
        raise _distributed(path, path.parent)
    if is_deepspeed_file(path.name):
        raise _deepspeed(path)


def refuse_inside(source: Source) -> None:
    """The same for a folder that is no checkpoint, but has one somewhere in it."""
    files = source.listing()
    found = _distributed_folders(files)
    if found:
        folder = source.path / _with_optimizer(found)
        raise _distributed(folder, folder)
    shards = (file for file in files if is_deepspeed_file(PurePosixPath(file).name))
    shard = next(shards, None)
    if shard is not None:
        raise _deepspeed(source.path / PurePosixPath(shard).parent)


def refuse_document(document: Document) -> None:
    """See that a file of whatever name is no shard of DeepSpeed's."""
    nodes = torch_layout.nodes(document, is_leaf=torch_layout.is_optimizer)
    if any(isinstance(value, Mapping) and _DEEPSPEED_KEYS & value.keys() for _, value in nodes):
        raise _deepspeed(document.path)


def is_deepspeed_file(name: str) -> bool:
    """Whether DeepSpeed calls its shards so."""
    return _DEEPSPEED_FILE.fullmatch(name) is not None


def _is_deepspeed(files: Collection[str]) -> bool:
    if "zero_to_fp32.py" in files or any(is_deepspeed_file(file) for file in files):
        return True
    return "latest" in files and any(file.startswith("global_step") for file in files)


def _distributed_folders(files: Collection[str]) -> list[str]:
    """The folders that hold shards of torch.distributed.checkpoint, sorted."""
    return sorted({str(PurePosixPath(f).parent) for f in files if f.endswith(_DISTRIBUTED)})


def _is_part(folder: str) -> bool:
    """Whether shards in `folder` make a sharded checkpoint of the folder that it lies in."""
    known = (_OPTIMIZER_FOLDER, _WEIGHTS_FOLDER)
    return folder == "." or any(pattern.fullmatch(folder) for pattern in known)


def _with_optimizer(folders: Collection[str]) -> str:
    """The folder to make one file of."""
    named = (at for at in folders if _OPTIMIZER_FOLDER.fullmatch(PurePosixPath(at).name))
    return next(named, min(folders))


def _distributed(path: Path, folder: Path) -> LayoutError:
    return LayoutError(
        f"{path}: is a sharded checkpoint (torch.distributed.checkpoint), which this version does "
        "not read; make one file of it: python -m torch.distributed.checkpoint.format_utils "
        f"dcp_to_torch {shlex.quote(str(folder))} FILE.pt"
    )


def _deepspeed(path: Path) -> LayoutError:
    return LayoutError(
        f"{path}: is a DeepSpeed checkpoint, which this version does not read; give a file that "
        "has the optimizer's whole state_dict()"
    )
