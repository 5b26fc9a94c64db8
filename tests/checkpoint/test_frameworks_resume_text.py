"""Pieces of code to paste: what a file says never becomes code."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool.checkpoint.frameworks import Target, plain
from liontool.checkpoint.frameworks.resume_text import state_file, subscripts, trust_note
from support.fake_source import FakeSource, adamw, cosine


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


@pytest.mark.parametrize(
    ("schedulers", "constant", "told"),
    [({"s": cosine(1e-3)}, False, True), ({"s": cosine(1e-3)}, True, False), ({}, False, False)],
)
def test_scheduler_of_a_state_file(schedulers, constant, told):
    """A schedule that is wanted is not in force again by itself, and the text says so."""
    checkpoint = plain.find(FakeSource({"o": adamw(initial_lr=1e-3), **schedulers}))
    text = state_file(checkpoint, Target(constant_lr=constant), Path("x.safetensors"))
    told_text = "# nor is the scheduler loaded: build it anew with every learning rate divided by"
    assert (told_text in text) == told


@pytest.mark.parametrize(
    ("lr", "text"), [(0.001, "lr=0.001,"), (0.001 / 3, "lr=0.0003333333333333333,"), (1, "lr=1,")]
)
def test_every_digit(lr, text):
    """A run compares what it is constructed with, so what is printed is the number itself."""
    checkpoint = plain.find(FakeSource({"o": adamw(lr=lr)}))
    assert text in state_file(checkpoint, Target(), Path("x.safetensors"))
