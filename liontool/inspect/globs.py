"""Names of tensors by glob: `*.bias`, `!*.norm.*`, and the ranges that trees show, `h.{0-11}.*`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import translate

_RANGES = re.compile(r"\{(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)\}")
_STAND_IN = "0range0"


def matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """A test of names: one of the patterns fits, and none of those that begin with `!`.

    `*` stands for anything, dots too, `?` for one letter, `[...]` for one of several, `{0-3,7}` for
    a number in these ranges. Without a pattern, or with none but exclusions, all else fits.

    Raises:
        ValueError: A pattern is empty.
    """
    wanted = [_compiled(pattern) for pattern in patterns if not pattern.startswith("!")]
    unwanted = [_compiled(pattern[1:]) for pattern in patterns if pattern.startswith("!")]

    def fits(name: str) -> bool:
        chosen = not wanted or any(test(name) for test in wanted)
        return chosen and not any(test(name) for test in unwanted)

    return fits


def _compiled(pattern: str) -> Callable[[str], bool]:
    if not pattern:
        raise ValueError("a filter must not be empty: give a glob such as '*.bias' or '!*.bias'")
    ranges = [_numbers(found) for found in _RANGES.findall(pattern)]
    text = translate(_RANGES.sub(_STAND_IN, pattern))
    for index in range(len(ranges)):  # translate makes groups of its own in some versions
        text = text.replace(_STAND_IN, rf"(?P<range{index}>\d+)", 1)
    expression = re.compile(text)

    def test(name: str) -> bool:
        found = expression.match(name)
        return found is not None and all(
            any(low <= int(found[f"range{index}"]) <= high for low, high in allowed)
            for index, allowed in enumerate(ranges)
        )

    return test


def _numbers(text: str) -> list[tuple[int, int]]:
    """ "0-3,7" as pairs of first and last."""
    pairs = (part.split("-") for part in text.split(","))
    return [(int(pair[0]), int(pair[-1])) for pair in pairs]
