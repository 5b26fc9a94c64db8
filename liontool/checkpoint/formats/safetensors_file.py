"""safetensors files: eight bytes of length, a JSON header, and tensors without gaps.

The format: https://github.com/huggingface/safetensors (Apache-2.0). The reader here is stricter
than the library: it also refuses names that stand twice, fields that it does not know, and headers
that begin with anything but `{`, so that no two readers see different tensors in one file.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from liontool.checkpoint import undo_record
from liontool.checkpoint.copying import Literal, Piece, of_tensor
from liontool.checkpoint.document import ITEM_SIZES, Edit, Span, Storage, Stored, TensorRef
from liontool.checkpoint.reading import opened, read_into
from liontool.errors import FormatError, LayoutError, LimitError, UnsafePathError

MAX_HEADER = 100_000_000
"""Bytes of a header, or of an index: the format's own limit."""
MAX_DIMENSIONS = 64
"""Dimensions of a tensor: torch's own limit."""
RESERVE = 4096
"""Spaces at the end of our headers, room for later changes of the metadata."""

_MAX_ELEMENTS = 1 << 63
METADATA = "__metadata__"
"""Where the header keeps strings; in Places the first key of theirs."""
_FIELDS = frozenset({"dtype", "shape", "data_offsets"})
DTYPES: Mapping[str, str] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
"""dtypes by their names in the header."""
_WORDS: Mapping[str, str] = {dtype: word for word, dtype in DTYPES.items()}


class SafetensorsDocument:
    """One safetensors file, or the shards that a `*.safetensors.index.json` lists, as one tree.

    Args:
        path: The file or the index; which of the two is told by what it holds.
        name: Its path below the source.

    Attributes:
        tree: The tensors by name, in the order of the file.
        facts: The metadata of the header; of shards, what comes first.
        notices: What a reader should be told: that a header was torn, and the old one is read.
    """

    container = "safetensors"

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        found = _read_shards(path) if _is_index(path) else _read_file(path)
        self.tree: Mapping[str, TensorRef] = found.tensors
        self.facts: Mapping[str, str] = found.metadata
        self.overhead = found.overhead
        self.notices = found.notices

    def rewritten(
        self,
        edits: Sequence[Edit],
        *,
        scan: frozenset[TensorRef],
        provenance: Mapping[str, Any] | None,
    ) -> list[Piece]:
        """The pieces of the same file with `edits` applied."""
        from liontool.checkpoint.formats.safetensors_edit import rewritten

        return rewritten(self, edits, scan=scan, provenance=provenance)

    def shards(self) -> list[Path]:
        """The files of the tensors, where `path` is an index."""
        sources = (tensor.source for tensor in self.tree.values())
        files = (source.storage.span.file for source in sources if isinstance(source, Stored))
        return [file for file in dict.fromkeys(files) if file != self.path]


# --- reading ------------------------------------------------------------------------------------


class _Contents(NamedTuple):
    tensors: dict[str, TensorRef]
    metadata: dict[str, str]
    overhead: int
    notices: tuple[str, ...]


def _is_index(path: Path) -> bool:
    """Whether the file begins like JSON; as a length that would be beyond every limit."""
    with opened(path) as fd:
        length = _length(fd, path, os.fstat(fd).st_size)
    return length > MAX_HEADER and length & 0xFF == ord("{")


def _length(fd: int, path: Path, size: int) -> int:
    """The length of the header, as the first eight bytes claim; of an index they are text."""
    if size < 8:
        raise FormatError(f"{path}: has only {size} bytes, too few for a safetensors file")
    return int.from_bytes(_bytes(fd, Span(path, 0, 8)), "little")


def _bytes(fd: int, span: Span) -> bytearray:
    data = bytearray(span.length)
    read_into(fd, span, memoryview(data))
    return data


def _read_file(path: Path) -> _Contents:
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        record = undo_record.torn(fd, path)
        data = bytearray(record.old[8:]) if record is not None else _header_of(fd, path, size)
    length = len(data)
    entries = _parsed(data, f"{path}: the header")
    metadata = _metadata(entries.pop(METADATA, {}), path)
    body = Span(path, 8 + length, size - 8 - length)
    notices = () if record is None else (_torn(path),)
    return _Contents(_tensors(entries, body), metadata, 8 + length, notices)


def _header_of(fd: int, path: Path, size: int) -> bytearray:
    length = _length(fd, path, size)
    if length > MAX_HEADER:
        raise LimitError(
            f"{path}: the header claims {length:,} bytes, at most {MAX_HEADER:,} are allowed"
        )
    if length > size - 8:
        raise FormatError(
            f"{path}: is cut off: has {size:,} bytes, and its header alone claims {length:,}"
        )
    return _bytes(fd, Span(path, 8, length))


def _torn(path: Path) -> str:
    return (
        f"{path}: an edit of its header broke off; read with the header before it, from "
        f"{undo_record.place(path).name}; to write that back: liontool edit "
        f"{shlex.quote(str(path))} --undo"
    )


def _parsed(data: bytearray, where: str) -> dict[str, Any]:
    """A JSON object in which no name stands twice."""
    if data[:1] != b"{":
        raise FormatError(f"{where} must begin with '{{'")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise FormatError(f"{where} has {twice!r} twice")
        return found

    try:
        found = json.loads(data.decode(), object_pairs_hook=unique)
    except UnicodeDecodeError as error:
        raise FormatError(f"{where} is not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise LimitError(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise FormatError(f"{where} must be a JSON object of tensors by name")
    return found


def _metadata(value: object, path: Path) -> dict[str, str]:
    if not isinstance(value, dict):
        raise FormatError(f"{path}: {METADATA} must be an object of strings")
    for key, text in value.items():
        if not isinstance(text, str):
            raise FormatError(f"{path}: {METADATA} {key!r} must be a string")
        _check_text(key, path)
        _check_text(text, path)
    return value


def _check_text(text: str, path: Path) -> None:
    """Half a surrogate pair is valid JSON, but no text that could be written again."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FormatError(f"{path}: {text[:80]!r} is not valid Unicode") from None


def _tensors(entries: dict[str, Any], body: Span) -> dict[str, TensorRef]:
    """The tensors in the order of their bytes, which must fill the body without gap or overlap.

    Uses `entries` up, so that large headers are not in memory twice.
    """
    found = [_tensor(name, entries.pop(name), body) for name in list(entries)]
    found.sort(key=lambda part: part[:2])
    end = 0
    for begin, stop, tensor in found:
        if begin != end:
            fault = "overlaps the one before it" if begin < end else "comes after a gap"
            raise FormatError(
                f"{body.file}: {tensor.label!r} {fault}: begins at {begin}, expected {end}"
            )
        end = stop
    if end != body.length:
        raise FormatError(
            f"{body.file}: {body.length - end:,} bytes after the last tensor belong to nothing"
        )
    return {tensor.label: tensor for _, _, tensor in found}


def _tensor(name: str, entry: object, body: Span) -> tuple[int, int, TensorRef]:
    """Begin, end and the tensor, whose bytes must lie in the body and fit its shape."""
    where = f"{body.file}: {name!r}"
    _check_text(name, body.file)
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise FormatError(f"{where} must have dtype, shape and data_offsets and nothing else")
    word = entry["dtype"]
    dtype = DTYPES.get(word) if isinstance(word, str) else None
    if dtype is None:
        raise FormatError(f"{where} has dtype {str(word)[:40]!r}, known are {', '.join(DTYPES)}")
    shape = _shape(entry["shape"], where)
    begin, end = _offsets(entry["data_offsets"], where)
    if end > body.length:
        raise FormatError(
            f"{where} ends at {end:,}, after the {body.length:,} bytes of tensors in the file; "
            "it is cut off or damaged"
        )
    span = Span(body.file, body.offset + begin, end - begin)
    stored = Stored(Storage(span, label=name), _strides(shape))
    tensor = TensorRef(dtype, shape, stored, name)
    if tensor.nbytes != span.length:
        raise FormatError(
            f"{where} has {span.length:,} bytes, but {word} of shape {list(shape)} "
            f"needs {tensor.nbytes:,}"
        )
    return begin, end, tensor


def _shape(shape: object, where: str) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise FormatError(f"{where} has a shape that is not a list of sizes from 0 upwards")
    if len(shape) > MAX_DIMENSIONS:
        raise LimitError(
            f"{where} has {len(shape)} dimensions, at most {MAX_DIMENSIONS} are allowed"
        )
    elements = 1
    for n in shape:
        elements *= max(n, 1)
    if elements >= _MAX_ELEMENTS:
        raise LimitError(f"{where} claims more elements than any file can hold")
    return tuple(shape)


def _offsets(offsets: object, where: str) -> tuple[int, int]:
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int for n in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise FormatError(
            f"{where} has data_offsets that are not a begin and an end from 0 upwards"
        )
    return offsets[0], offsets[1]


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        strides[i - 1] = strides[i] * max(shape[i], 1)
    return tuple(strides)


# --- shards -------------------------------------------------------------------------------------


def _read_shards(path: Path) -> _Contents:
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        if size > MAX_HEADER:
            raise LimitError(f"{path}: has {size:,} bytes, an index has at most {MAX_HEADER:,}")
        weight_map = _weight_map(
            _parsed(_bytes(fd, Span(path, 0, size)), f"{path}: the index"), path
        )
    tree: dict[str, TensorRef] = {}
    facts: dict[str, str] = {}
    overhead = size
    notices: tuple[str, ...] = ()
    for shard in dict.fromkeys(weight_map.values()):
        found = _read_file(_shard_path(path, shard))
        _check_shard(found.tensors, shard, weight_map, path)
        tree.update(found.tensors)
        facts = {**found.metadata, **facts}
        overhead += found.overhead
        notices += found.notices
    if missing := next((name for name in weight_map if name not in tree), None):
        raise FormatError(f"{path}: {missing!r} is not in its shard {weight_map[missing]!r}")
    return _Contents(tree, facts, overhead, notices)


def _weight_map(index: Mapping[str, Any], path: Path) -> Mapping[str, str]:
    found = index.get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(shard, str) for shard in found.values()):
        raise FormatError(f"{path}: the index must have a weight_map of file names by tensor")
    return found


def _shard_path(index: Path, shard: str) -> Path:
    """The file of a shard, which must lie below the folder of the index."""
    _check_text(shard, index)
    relative = PurePosixPath(shard)
    if not shard or "\0" in shard or relative.is_absolute() or ".." in relative.parts:
        raise UnsafePathError(f"{index}: the shard {shard!r} leads out of the folder")
    path = index.parent / relative
    folder = os.path.realpath(index.parent)
    if os.path.commonpath([folder, os.path.realpath(path)]) != folder:
        raise UnsafePathError(f"{path}: is a link that leads out of the folder of its index")
    if not os.path.exists(path):
        raise FormatError(f"{index}: the shard {shard!r} is missing")
    return path


def _check_shard(
    tensors: Mapping[str, TensorRef], shard: str, weight_map: Mapping[str, str], path: Path
) -> None:
    for name in tensors:
        if weight_map.get(name) != shard:
            raise FormatError(f"{path}: {name!r} is in the shard {shard!r}, but not in the index")


# --- writing ------------------------------------------------------------------------------------


def pieces(
    tensors: Mapping[str, TensorRef],
    metadata: Mapping[str, str],
    *,
    scan: Collection[TensorRef] = (),
) -> list[Piece]:
    """A safetensors file.

    Args:
        tensors: What is in it, by name.
        metadata: Strings for the header.
        scan: Those of the tensors that must be free of NaN and infinity.

    Raises:
        LayoutError: A name or dtype that the format does not have.
    """
    ordered = sorted(tensors.items(), key=_position)
    entries: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        entries[name] = entry(name, tensor, begin, end)
    body = [of_tensor(tensor, scan=tensor in scan) for _, tensor in ordered]
    return [Literal(whole_header(entries)), *body]


def _position(item: tuple[str, TensorRef]) -> tuple[int, str, int, str]:
    """Large elements first, so that all are aligned; then as in the source: runs stay runs."""
    name, tensor = item
    file, offset = "", 0
    if isinstance(tensor.source, Stored):
        span = tensor.source.storage.span
        file = str(span.file)
        offset = span.offset + tensor.source.offset * ITEM_SIZES[tensor.dtype]
    return -ITEM_SIZES[tensor.dtype], file, offset, name


def entry(name: str, tensor: TensorRef, begin: int, end: int) -> dict[str, Any]:
    """What the header says of a tensor.

    Raises:
        LayoutError: The format has no such name or dtype.
    """
    if name == METADATA:
        raise LayoutError(f"a tensor in a safetensors file cannot be named {name!r}")
    if tensor.dtype not in _WORDS:
        raise LayoutError(
            f"{name!r}: safetensors has no {tensor.dtype}, a .pt file has; name one with -o"
        )
    word = _WORDS[tensor.dtype]
    return {"dtype": word, "shape": list(tensor.shape), "data_offsets": [begin, end]}


def header_text(entries: Mapping[str, Any]) -> bytes:
    """The JSON of a header, without a reserve.

    Raises:
        LayoutError: A name is no text.
        LimitError: It is longer than the format allows.
    """
    try:
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise LayoutError(f"{error.object!r:.80} is not valid Unicode, as names must be") from None
    if len(text) + RESERVE + 8 > MAX_HEADER:
        raise LimitError(
            f"the header would have {len(text):,} bytes, at most {MAX_HEADER:,} are allowed"
        )
    return text


def whole_header(entries: Mapping[str, Any]) -> bytes:
    """All that comes before the tensors: length, JSON, and a reserve that aligns to eight bytes.

    Raises:
        LayoutError: A name is no text.
        LimitError: It is longer than the format allows.
    """
    text = header_text(entries)
    text += b" " * (RESERVE + -(len(text) + RESERVE) % 8)
    return len(text).to_bytes(8, "little") + text
