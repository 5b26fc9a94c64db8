"""JSON of checkpoints, read with a bound on memory, and written within the same bound.

JSON can stand for thirty times its bytes: an empty list takes three of them, and a hundred in
memory. So its values are counted before it is parsed, by the characters that begin them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.layout import is_json, tree_of
from liontool.errors import FormatError, LimitError, ReadError, StateTypeError

MAX_BYTES = 32 << 20
MAX_VALUES = 1_000_000
"""So many characters out of `,` `[` `{`, those in strings too."""

_LENGTH = 8  # bytes before the header of a file of tensors
_MOST_DIGITS = 4000  # more take Python long; `encode` writes no such int either


def encoded(value: Any, what: str) -> bytes:
    """`value` in JSON without spaces.

    Args:
        value: Anything that `json` takes, but NaN and infinities.
        what: What to call it in the message.

    Raises:
        StateTypeError: `load` would not read it.
    """
    data = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    check_written(data, what)
    return data


def check_written(data: bytes, what: str) -> None:
    """See that JSON is within the bounds before it is written.

    Raises:
        StateTypeError: It is not; the message calls it `what`.
    """
    excess = _excess(data)
    if excess:
        raise StateTypeError(
            f"{what} {excess}, too much for a checkpoint; keep long lists in tensors or arrays"
        )


def check_file(path: Path) -> None:
    """See that the JSON in a file is within the bounds, before it is parsed by somebody else.

    Does nothing for files that are not called as those of a run's checkpoint are.

    Raises:
        LimitError: It is not.
        ReadError: The system refused to read it.
    """
    if is_json(path.name):
        _checked(path, 0)
    elif tree_of(path.name):
        _checked(path, _LENGTH)


def load(path: Path) -> Any:
    """The content of a file.

    Raises:
        LimitError: It is larger than any that is written.
        FormatError: It is no JSON, or has a name twice, a NaN or an infinity.
        ReadError: The system refused to read it.
    """
    data = _checked(path, 0)
    try:
        return parsed(data)
    except RecursionError:
        raise LimitError(f"{path}: its JSON is nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{path}: is not valid JSON: {error!s:.200}") from None


def parsed(data: bytes, most_digits: int = _MOST_DIGITS) -> Any:
    """The value of JSON whose size is bounded.

    Raises:
        ValueError: It is none, or has a name twice, a NaN or an infinity, or too long a number.
        RecursionError: It is nested too deeply.
    """

    def integer(digits: str) -> int:
        if len(digits) > most_digits:
            raise ValueError(f"a number has {len(digits):,} digits")
        return int(digits)

    # Bytes would be taken for UTF-16 too.
    text = data.decode()
    return json.loads(
        text, object_pairs_hook=_unique, parse_int=integer, parse_constant=_no_constant
    )


def _checked(path: Path, skipped: int) -> bytes:
    """The JSON at the beginning of a file, after `skipped` bytes with its length."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(skipped), "little") if skipped else MAX_BYTES + 1
            data = file.read(min(length, MAX_BYTES + 1))
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from error
    excess = _excess(data)
    if excess:
        raise LimitError(f"{path}: {excess}, more than is ever written")
    return data


def _excess(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        return f"has more than {MAX_BYTES:,} bytes of JSON"
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        return f"has more than {MAX_VALUES:,} values of JSON"
    return ""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands there twice")
    return made


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")
