"""Pieces of code to paste: what a file says never becomes code."""

from __future__ import annotations

import pytest

from liontool.checkpoint.frameworks.resume_text import subscripts, trust_note


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param((), "", id="top"),
        pytest.param(("a", 0, "b.c"), "['a'][0]['b.c']", id="keys"),
        pytest.param(("run", "mine.Run", "opt", "x"), "['run'].opt['x']", id="attribute"),
        pytest.param(("mine.Run", "f();x"), ".__dict__['f();x']", id="no identifier"),
    ],
)
def test_subscripts(path, text):
    """Keys are subscripts, what follows the name of a class is an attribute."""
    assert subscripts(path, {"mine.Run"}) == text


def test_trust_note():
    """The classes are named in one comment; none, no comment."""
    assert trust_note(["a.B", "c.D\nimport e"]) == [
        r"# a.B, c.D\nimport e in the file: weights_only=False, for files that you trust"
    ]
    assert trust_note([]) == []
