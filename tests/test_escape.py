"""Names from files cannot give orders to a terminal."""

from __future__ import annotations

import pytest

from liontool.escape import safe


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\0\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("a\u200bb\u2028", r"a\u200bb\u2028"),
        ("\udc80", r"\udc80"),
        ("\U000e0041", r"\U000e0041"),
    ],
    ids=["escape", "lines", "controls", "bidi", "invisible", "surrogate", "tag"],
)
def test_invisible_characters_are_spelled(text: str, shown: str) -> None:
    """Whatever a terminal would act on, or not show, is spelled out."""
    assert safe(text) == shown


@pytest.mark.parametrize("text", ["model.layers.0.weight", "größe", "层", "[red]x[/red]", "a b"])
def test_visible_text_stays(text: str) -> None:
    """What can be seen is shown as it is."""
    assert safe(text) == text


def test_any_object_will_do() -> None:
    """Paths and numbers are taken by their text."""
    assert safe(3) == "3"


def test_result_is_always_printable() -> None:
    """No character of Unicode comes through unprintable."""
    assert all(safe(chr(code)).isprintable() for code in range(0x110000))
