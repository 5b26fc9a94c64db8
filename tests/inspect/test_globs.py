"""Globs over names of tensors."""

from __future__ import annotations

import pytest

from liontool.inspect.globs import matcher

NAMES = ["h.0.w", "h.1.w", "h.2.w", "h.10.w", "h.1.bias", "norm.bias", "a[0]"]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], NAMES),
        (["*.bias"], ["h.1.bias", "norm.bias"]),
        (["!*.bias"], ["h.0.w", "h.1.w", "h.2.w", "h.10.w", "a[0]"]),
        (["h.*", "!*.bias", "!h.0.*"], ["h.1.w", "h.2.w", "h.10.w"]),
        (["h.{0-1,10}.w"], ["h.0.w", "h.1.w", "h.10.w"]),
        (["h.{2-10}.{w}", "h.{2}.*"], ["h.2.w"]),
        (["h.?.w"], ["h.0.w", "h.1.w", "h.2.w"]),
        (["a[[]0]"], ["a[0]"]),
        (["H.*"], []),
    ],
    ids=str,
)
def test_what_fits(patterns: list[str], expected: list[str]) -> None:
    """Stars cross dots, exclusions win, ranges are those that trees show."""
    fits = matcher(patterns)
    assert [name for name in NAMES if fits(name)] == expected


@pytest.mark.parametrize("pattern", ["", "!"])
def test_empty_patterns(pattern: str) -> None:
    """A filter that says nothing is refused."""
    with pytest.raises(ValueError, match=r"must not be empty: give a glob such as '\*\.bias'"):
        matcher([pattern])
