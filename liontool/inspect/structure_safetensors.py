"""Everything that is wrong with a safetensors file, not only the first thing.

The format: https://github.com/huggingface/safetensors (Apache-2.0). Its library takes some of what
is found here: names that stand twice, spaces in front of the header, unknown fields, odd names.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from liontool.checkpoint.document import ITEM_SIZES, Span
from liontool.checkpoint.formats.safetensors_file import DTYPES, MAX_DIMENSIONS, MAX_HEADER
from liontool.checkpoint.reading import opened, read_into
from liontool.inspect.findings import Finding
from liontool.inspect.places import at, leads_out, odd_name, short

_METADATA = "__metadata__"
_FIELDS = ("dtype", "shape", "data_offsets")
_MOST = 1 << 63


class Pairs(list[tuple[str, Any]]):
    """A JSON object with every pair in it, also those whose name stands twice."""


@dataclass(frozen=True)
class _Part:
    """Where a tensor claims to lie."""

    begin: int
    end: int
    name: str


def walk(path: Path, file: str) -> Iterator[Finding]:
    """All findings of a file.

    Args:
        path: The file.
        file: What to call it; "" where it is all there is.
    """
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        if size < 8:
            yield Finding("cut-short", at(file), f"has only {size} bytes, too few for any header")
            return
        length = int.from_bytes(_read(fd, Span(path, 0, 8)), "little")
        if length > MAX_HEADER:
            text = f"claims {length:,} bytes; at most {MAX_HEADER:,} are allowed"
            yield Finding("header-size", at(file, "header"), text)
        if length > size - 8:
            text = f"the header claims {length:,} bytes, and {size - 8:,} follow"
            yield Finding("cut-short", at(file), f"{text}; get the file again")
        if length > min(MAX_HEADER, size - 8):
            return
        header = _read(fd, Span(path, 8, length))
    yield from _header(header, size - 8 - length, file)


def tensor_sizes(path: Path) -> dict[str, int] | None:
    """Bytes of each tensor by its name, as far as the header tells; None if it tells nothing."""
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        length = int.from_bytes(_read(fd, Span(path, 0, 8)), "little") if size >= 8 else MAX_HEADER
        if length > min(MAX_HEADER, size - 8):
            return None
        found, _ = parsed(_read(fd, Span(path, 8, length)))
    if found is None:
        return None
    parts = ((name, _part(name, dict(e))) for name, e in found if isinstance(e, Pairs))
    return {name: part.end - part.begin for name, part in parts if isinstance(part, _Part)}


def _read(fd: int, span: Span) -> bytearray:
    data = bytearray(span.length)
    read_into(fd, span, memoryview(data))
    return data


def parsed(data: bytes | bytearray) -> tuple[Pairs | None, str]:
    """A JSON object with all its pairs; or None, and what is wrong with it."""
    try:
        found = json.loads(data.decode(), object_pairs_hook=Pairs)
    except UnicodeDecodeError as error:
        return None, f"is not UTF-8 at byte {error.start}"
    except RecursionError:
        return None, "is nested too deeply"
    except ValueError as error:
        return None, f"is not valid JSON: {error}"
    return (found, "") if isinstance(found, Pairs) else (None, "is not a JSON object")


def twice(pairs: Pairs, where: str) -> Iterator[Finding]:
    """A finding for each name that stands more than once."""
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            text = f"'{short(name)}' stands {count} times; most readers take the last"
            yield Finding("duplicate-key", where, text)


def _header(data: bytearray, body: int, file: str) -> Iterator[Finding]:
    where = at(file, "header")
    if data[:1] != b"{":
        text = "must begin with '{', and strict readers refuse it; write the file again"
        yield Finding("header-start", where, text)
    found, fault = parsed(data)
    if found is None:
        yield Finding("bad-json", where, fault)
        return
    yield from twice(found, where)
    parts: list[_Part] = []
    crooked: list[str] = []
    for name, entry in found:
        if name == _METADATA:
            yield from _metadata(entry, file)
            continue
        place = at(file, name)
        yield from odd_name(place, name)
        if leads_out(name):
            yield Finding("path-name", place, "who writes tensors to files of their names, beware")
        yield from _strangers(entry, place)
        part = _part(name, dict(entry) if isinstance(entry, Pairs) else {})
        if isinstance(part, str):
            yield Finding("bad-entry", place, part)
            continue
        parts.append(part)
        if (8 + len(data) + part.begin) % ITEM_SIZES[DTYPES[dict(entry)["dtype"]]]:
            crooked.append(name)
    yield from _misaligned(crooked, file)
    yield from _layout(sorted(set(parts), key=lambda p: (p.begin, p.end, p.name)), body, file)


def _metadata(value: Any, file: str) -> Iterator[Finding]:
    where = at(file, _METADATA)
    if not isinstance(value, Pairs):
        yield Finding("bad-metadata", where, f"must be an object, is {_shown(value)}")
        return
    yield from twice(value, where)
    for name, text in value:
        yield from odd_name(at(file, f"{_METADATA} {name}"), name)
        if not isinstance(text, str):
            fault = f"'{short(name)}' must be a string, is {_shown(text)}"
            yield Finding("bad-metadata", where, fault)


def _strangers(entry: Any, where: str) -> Iterator[Finding]:
    """Fields that are not the format's, and those that stand twice."""
    if not isinstance(entry, Pairs):
        return
    yield from twice(entry, where)
    unknown = [short(name) for name in dict.fromkeys(n for n, _ in entry) if name not in _FIELDS]
    if unknown:
        yield Finding(
            "unknown-field", where, f"has {', '.join(unknown[:8])}; strict readers refuse"
        )


def _part(name: str, entry: dict[str, Any]) -> _Part | str:
    """Where a tensor lies, or what is wrong with its entry."""
    missing = [field for field in _FIELDS if field not in entry]
    if missing:
        return f"lacks {', '.join(missing)}"
    dtype, shape, offsets = (entry[field] for field in _FIELDS)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        return f"has dtype {_shown(dtype)}, which is not known"
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        return "has a shape that is no list of sizes"
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return "has data_offsets that are no begin and end"
    if prod(max(n, 1) for n in shape) >= _MOST:
        return "claims more elements than any file can hold"
    needed = prod(shape) * ITEM_SIZES[DTYPES[dtype]]
    if needed != offsets[1] - offsets[0]:
        there = offsets[1] - offsets[0]
        return f"has {there:,} bytes, and {dtype} of shape {shape} needs {needed:,}"
    return _Part(offsets[0], offsets[1], name)


def _are_sizes(value: Any) -> bool:
    good = isinstance(value, list) and not isinstance(value, Pairs)
    return good and all(type(n) is int and 0 <= n < _MOST for n in value)


def _misaligned(names: list[str], file: str) -> Iterator[Finding]:
    if names:
        more = f" and {len(names) - 1:,} more tensors do" if len(names) > 1 else " does"
        text = f"'{short(names[0])}'{more} not lie at a multiple of the element size: slow to map"
        yield Finding("misaligned", at(file), text)


def _layout(parts: list[_Part], body: int, file: str) -> Iterator[Finding]:
    """Gaps, overlaps, what is missing at the end and what is too much."""
    end, before = 0, "the header"
    behind = [part.name for part in parts if part.end > body]
    for part in parts:
        where = at(file, part.name)
        if part.begin > end:
            text = f"begins {part.begin - end:,} bytes after the end of {short(before)}"
            yield Finding("hole", where, text)
        elif part.begin < end:
            yield Finding("overlap", where, f"begins before the end of {short(before)}")
        if part.end >= end:
            end, before = part.end, part.name
    if behind:
        text = f"{end - body:,} bytes are missing; {len(behind):,} tensors are not whole, from "
        yield Finding("cut-short", at(file), f"{text}'{short(behind[0])}' on")
    elif body > end:
        text = f"{body - end:,} bytes after the last tensor belong to nothing"
        yield Finding("trailing-bytes", at(file), text)


def _shown(value: Any) -> str:
    if isinstance(value, (Pairs, list)):
        return "an object" if isinstance(value, Pairs) else "a list"
    return short(repr(value)[:80])
