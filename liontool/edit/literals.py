"""What stands to the right of `=` in a word, as a value."""

from __future__ import annotations

from math import isfinite
from typing import Any

_NAMED = {"true": True, "false": False, "none": None, "null": None}


def factor(text: str) -> float | None:
    """The number after an `x`; None where there is no such thing.

    Raises:
        ValueError: Nothing can be multiplied by it.
    """
    if not text.startswith("x"):
        return None
    try:
        found = float(text[1:])
    except ValueError:
        return None
    if not (isfinite(found) and found > 0):
        raise ValueError(f"a factor must be a finite number above 0, got {text[1:]}")
    return found


def literal(text: str) -> Any:
    """None, a switch, a number, several of them with commas between, or the text as it is.

    Raises:
        ValueError: There is none, or it is a number that is not finite.
    """
    text = text.strip()
    if len(text) > 1 and text[0] + text[-1] in ("()", "[]"):
        text = text[1:-1]
    if not text:
        raise ValueError("the value is missing")
    if "," in text:
        return tuple(_one(part.strip()) for part in text.rstrip(",").split(","))
    return _one(text)


def _one(text: str) -> Any:
    if text.lower() in _NAMED:
        return _NAMED[text.lower()]
    # Python also reads 1_000 and the digits of other scripts, which are slips here.
    for kind in (int, float) if text.isascii() and "_" not in text else ():
        try:
            found = kind(text)
        except ValueError:
            continue
        if not _is_finite(found):
            raise ValueError(f"a number must be finite, got {text}")
        return found
    return text


def _is_finite(number: float) -> bool:
    try:
        return isfinite(number)
    except OverflowError:  # an integer beyond every float
        return False
