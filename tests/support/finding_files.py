"""Files with one known fault each, made of honest ones."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from liontool.inspect.findings import Finding
from liontool.inspect.verify import verify

Records = list[tuple[str, bytes]]


def found(path: Path, **options: Any) -> dict[str, Finding]:
    """The findings of a file by id, the first of each."""
    findings: dict[str, Finding] = {}
    for finding in verify(path, **options).findings:
        findings.setdefault(finding.id, finding)
    return findings


def torch_file(path: Path, tree: Any = None, *, legacy: bool = False) -> Path:
    """What torch.save writes of two tensors, or of `tree`."""
    if tree is None:
        tree = {"a": torch.arange(6.0), "b": torch.ones(3)}
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    return path


def records(path: Path) -> Records:
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def zipped(path: Path, entries: Records, method: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that stand twice
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in entries:
                archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def changed_records(path: Path, change: Callable[[Records], Records]) -> Path:
    """A torch file with its records changed."""
    return zipped(path, change(records(torch_file(path))))


def changed_bytes(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """A file with its bytes changed."""
    path.write_bytes(change(path.read_bytes()))
    return path


def entry(begin: int, end: int, dtype: str = "F32", **more: Any) -> dict[str, Any]:
    """What a safetensors header says of a flat tensor."""
    size = {"F32": 4, "F64": 8, "BF16": 2}.get(dtype, 4)
    shape = [(end - begin) // size]
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


def safetensors(path: Path, header: dict[str, Any] | str | bytes, body: int = 8) -> Path:
    """A safetensors file with a body of so many bytes, its header padded to eights."""
    text = header if isinstance(header, (str, bytes)) else json.dumps(header)
    data = text if isinstance(text, bytes) else text.encode()
    data += b" " * (-len(data) % 8)
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(range(body)))
    return path


def index(folder: Path, weight_map: Any, **more: Any) -> Path:
    """An index of shards."""
    path = folder / "m.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map, **more}))
    return path


def shard(folder: Path, number: int, *names: str) -> str:
    """A shard with tensors of four bytes; its name."""
    name = f"m-{number:05}-of-00002.safetensors"
    header = {tensor: entry(4 * i, 4 * i + 4) for i, tensor in enumerate(names)}
    safetensors(folder / name, header, 4 * len(names))
    return name


def pickled(data: bytes) -> bytes:
    """A torch zip around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (("a/data.pkl", data), ("a/byteorder", b"little"),
                              ("a/version", b"3"), ("a/.data/serialization_id", b"1")):  # fmt: skip
            archive.writestr(zipfile.ZipInfo(name), content)
    return file.getvalue()


def directory_field(data: bytes, name: bytes, offset: int, layout: str, value: int) -> bytes:
    """The zip with one field of a record's line in the directory exchanged."""
    at = data.rindex(name) - 46 + offset
    return data[:at] + struct.pack(layout, value) + data[at + struct.calcsize(layout) :]
