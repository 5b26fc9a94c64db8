"""The parts of a run: each says its state, sees whether a saved one fits, and takes it in.

`fitted` changes nothing and raises where the saved state cannot be taken; `load` takes what
`fitted` gave, in place. So all parts are looked at before the first one is changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy
import torch

from liontool.errors import ResumeError
from liontool.resume.facts import class_name
from liontool.resume.module_part import ModulePart
from liontool.resume.optimizer_part import OptimizerPart
from liontool.resume.trees import copied


class Part(Protocol):
    """One thing of the run."""

    label: str

    def state(self) -> Any:
        """What a checkpoint keeps of it; shares its tensors."""

    def fitted(self, saved: Any) -> Any:
        """`saved` as this thing takes it; raises ResumeError where it does not fit."""

    def load(self, fitted: Any) -> None:
        """Take it in, in place."""


class PlainPart:
    """Anything with `state_dict` and `load_state_dict`: a scheduler, a GradScaler, an average."""

    def __init__(self, label: str, thing: Any) -> None:
        self.label = label
        self._thing = thing

    def state(self) -> Any:
        return self._thing.state_dict()

    def fitted(self, saved: Any) -> Any:
        if isinstance(self.state(), Mapping) and not isinstance(saved, Mapping):
            kind = class_name(self._thing)
            raise ResumeError(
                f"{self.label}: the checkpoint has a {type(saved).__name__}, which is no state of "
                f"a {kind}; go on from another checkpoint"
            )
        return saved

    def load(self, fitted: Any) -> None:
        try:
            self._thing.load_state_dict(copied(fitted))  # torch's schedulers take keys out of it
        except Exception as error:
            raise refused(self.label, self._thing, error) from error


class GeneratorPart:
    """A generator of random numbers, which has get and set instead of a state dict."""

    def __init__(
        self, label: str, get: Callable[[], Any], set_: Callable[[Any], object], thing: Any
    ) -> None:
        self.label = label
        self._get = get
        self._set = set_
        self._thing = thing

    def state(self) -> Any:
        return self._get()

    def fitted(self, saved: Any) -> Any:
        return saved

    def load(self, fitted: Any) -> None:
        try:
            self._set(fitted)
        except Exception as error:
            raise refused(self.label, self._thing, error) from error


def part_of(label: str, thing: Any) -> Part:
    """The part that a thing is.

    Raises:
        ResumeError: It has no state that could be saved.
    """
    if isinstance(thing, torch.nn.Module):
        return ModulePart(label, thing)
    if isinstance(thing, torch.optim.Optimizer):
        return OptimizerPart(label, thing)
    if callable(getattr(thing, "state_dict", None)) and callable(
        getattr(thing, "load_state_dict", None)
    ):
        return PlainPart(label, thing)
    found = _generator(label, thing)
    if found is None:
        raise ResumeError(
            f"{label} is a {class_name(thing)}, which has no state_dict() and load_state_dict(); "
            "give it both, or leave it out if nothing of it has to be kept"
        )
    return found


def _generator(label: str, thing: Any) -> Part | None:
    if isinstance(thing, torch.Generator):
        return GeneratorPart(label, thing.get_state, thing.set_state, thing)
    if isinstance(thing, random.Random):
        return GeneratorPart(label, thing.getstate, thing.setstate, thing)
    if isinstance(thing, numpy.random.RandomState):
        return GeneratorPart(label, thing.get_state, thing.set_state, thing)
    if isinstance(thing, numpy.random.Generator):
        bits = thing.bit_generator
        return GeneratorPart(
            label, lambda: bits.state, lambda state: setattr(bits, "state", state), thing
        )
    return None


def fits(part: Part, saved: Any) -> bool:
    """Whether a state has the keys that a part of another class has."""
    if isinstance(part, PlainPart):
        return _same_keys(part.state(), saved)
    try:
        part.fitted(saved)
    except ResumeError:
        return False
    return not isinstance(part, GeneratorPart)


def _same_keys(one: Any, other: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return type(one) is type(other)
    inner, others = one.get("_schedulers", []), other.get("_schedulers", [])
    same = one.keys() == other.keys() and len(inner) == len(others)
    return same and all(map(_same_keys, inner, others))


def refused(label: str, thing: object, error: Exception) -> ResumeError:
    """The error for a thing that does not take what was saved of it."""
    said = " ".join(str(error).split()) or type(error).__name__
    return ResumeError(
        f"{label}: {class_name(thing)} does not take its state from the checkpoint: {said:.500}; "
        "build it as it was when it was saved"
    )
