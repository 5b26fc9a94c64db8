"""Checksums of storages: what is read for its values is summed on the way, the rest for itself."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from liontool.checkpoint.document import Span
from liontool.checkpoint.reading import BLOCK, ranges
from liontool.inspect.findings import Finding

WRONG = "its bytes are not those that were written (CRC-32); get the file again"

Advance = Callable[[int], None]


def crc_of(span: Span, advance: Advance | None = None) -> int:
    """The CRC-32 of a range, read in blocks."""
    crc = 0
    for block in ranges(span, BLOCK):
        crc = zlib.crc32(block, crc)
        if advance is not None:
            advance(len(block))
    return crc


@dataclass(frozen=True)
class Check:
    """A range of a file and what its CRC-32 must be.

    Attributes:
        span: The range.
        crc: What is claimed.
        where: What to call it.
    """

    span: Span
    crc: int
    where: str


class Checksums:
    """The checks that are still to be made."""

    def __init__(self, checks: Iterable[Check]) -> None:
        self._open = {check.span: check for check in checks}

    @property
    def total(self) -> int:
        """Bytes of all that are left."""
        return sum(span.length for span in self._open)

    def take(self, span: Span) -> Check | None:
        """The check of exactly this range, which the caller makes; None if there is none."""
        return self._open.pop(span, None)

    def rest(self, advance: Advance) -> Iterator[Finding]:
        """Make all that are left."""
        for check in self._open.values():
            yield from judged(check, crc_of(check.span, advance))


def judged(check: Check, crc: int) -> Iterator[Finding]:
    """The finding of a check whose sum is known."""
    if crc != check.crc:
        yield Finding("wrong-crc", check.where, WRONG)
