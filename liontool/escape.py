"""Text from files made safe for terminals; every printed name goes through `safe`."""

from __future__ import annotations


def safe(text: object) -> str:
    r"""`text` with everything invisible spelled out.

    Control characters, ESC, newlines, bidirectional overrides, zero-width characters and lone
    surrogates become `\x1b`, `\n`, `\u202e` and so on. Rich markup needs no care: the console that
    `render` makes does not read markup.

    >>> safe("layer\x1b[2J")
    'layer\\x1b[2J'
    """
    words = str(text)
    if words.isprintable():
        return words
    return "".join(letter if letter.isprintable() else _spelled(letter) for letter in words)


def _spelled(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
