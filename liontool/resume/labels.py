"""Labels of the parts of a run: "model", "optimizer", "scheduler", and "extras.KEYWORD"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAIN = ("model", "optimizer", "scheduler")

_EXTRAS = "extras"


def label_of(name: str) -> str:
    """The label of an extra."""
    return f"{_EXTRAS}.{name}"


def keyword(label: str) -> str:
    """The keyword that Run was given a part by."""
    return label.removeprefix(f"{_EXTRAS}.")


def labelled(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a state by label."""
    for label in MAIN:
        if label in state:
            yield label, state[label]
    for name, one in state.get(_EXTRAS, {}).items():
        yield label_of(name), one


def nested(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The state that has these parts."""
    state = {label: one for label, one in parts.items() if label in MAIN}
    extras = {keyword(label): one for label, one in parts.items() if label not in MAIN}
    return {**state, _EXTRAS: extras} if extras else state
