"""COMMIT: the list of a checkpoint's files with their sizes and hashes, and its own hash.

One line of JSON, and one line with the hash of the first. A checkpoint without it does not count.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from liontool.checkpoint.run_folder.bounded_json import parsed
from liontool.checkpoint.run_folder.hashing import ALGORITHM, hash_of
from liontool.checkpoint.run_folder.layout import COMMIT, MAX_STEP, SCHEMA
from liontool.errors import DamagedError, LayoutError

MAX_BYTES = 2 << 20
"""Some 20,000 files; what JSON can be made to stand for grows to thirty times its bytes."""

_MOST_DIGITS = 20
_HASH = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


@dataclass(frozen=True)
class File:
    """A file as it was committed.

    Attributes:
        size: Bytes.
        hash: 32 hexadecimal digits.
    """

    size: int
    hash: str


@dataclass(frozen=True)
class Commit:
    """What a checkpoint says of itself.

    Attributes:
        step: Optimizer steps over all starts.
        epoch: Passes over the data that were finished.
        metric: What the run was asked to keep the best of, where it was given.
        time: When it was written, seconds since 1970.
        files: Every file but COMMIT by its name; they all lie in the folder itself.
    """

    step: int
    epoch: int
    metric: float | None
    time: float
    files: Mapping[str, File]

    @property
    def size(self) -> int:
        """Size of all files but COMMIT."""
        return sum(file.size for file in self.files.values())

    def encoded(self) -> bytes:
        """The file."""
        body = {
            "liontool.commit": SCHEMA,
            "algorithm": ALGORITHM,
            "step": self.step,
            "epoch": self.epoch,
            # JSON has no infinities, and a metric may be one.
            "metric": None if self.metric is None else repr(float(self.metric)),
            "time": self.time,
            "files": {name: [file.size, file.hash] for name, file in self.files.items()},
        }
        line = json.dumps(body, allow_nan=False).encode()
        return b"%s\n%s\n" % (line, hash_of(line).encode())

    @classmethod
    def decoded(cls, data: bytes) -> Commit:
        """The content of a file.

        Raises:
            DamagedError: A bit has changed, or the file was never one.
            LayoutError: A newer liontool wrote it.
        """
        line, _, rest = data.partition(b"\n")
        if rest != hash_of(line).encode() + b"\n":
            raise DamagedError(f"{COMMIT} is damaged: its hash is not that of its content")
        try:
            body = parsed(line, _MOST_DIGITS)
            _check_version(body)
            return _commit(body)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{COMMIT} is not what liontool writes: {error!r:.200}") from None


def _check_version(body: Mapping[str, Any]) -> None:
    if body["liontool.commit"] != SCHEMA or body["algorithm"] != ALGORITHM:
        raise LayoutError(
            f"{COMMIT}: layout {body['liontool.commit']!r:.40} with {body['algorithm']!r:.40} "
            "is newer than this liontool; update it: pip install -U liontool"
        )


def _commit(body: Mapping[str, Any]) -> Commit:
    return Commit(
        step=_count(body["step"], MAX_STEP),
        epoch=_count(body["epoch"]),
        metric=_metric(body["metric"]),
        time=_time(body["time"]),
        files=_files(body["files"]),
    )


def _files(listed: Mapping[str, Any]) -> dict[str, File]:
    if len({name.lower() for name in listed}) != len(listed):  # one file on some file systems
        raise ValueError("two names differ in nothing but case")
    return {_name(name): _file(*entry) for name, entry in listed.items()}


def _name(name: str) -> str:
    if not _NAME.fullmatch(name) or name == COMMIT:
        raise ValueError(f"'{name:.80}' is no name of a file")
    return name


def _file(size: int, digest: str) -> File:
    if not _HASH.fullmatch(digest):
        raise ValueError("a hash must be 32 hexadecimal digits")
    return File(_count(size), digest)


def _count(value: Any, most: int = 1 << 62) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is no count")
    return value


def _metric(value: Any) -> float | None:
    if value is not None and type(value) is not str:
        raise ValueError(f"{value!r:.40} is no metric")
    return None if value is None else float(value)


def _time(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no time")
    return float(value)
