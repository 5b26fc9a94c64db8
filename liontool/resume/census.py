"""Everything that a run is made of: its state to be saved, and a saved one taken in, in place.

A checkpoint is looked at as a whole before anything is changed: classes, names, shapes, dtypes.
What was loaded is then compared with what the live objects say, so nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from liontool.checkpoint.tagged_tree import Json
from liontool.errors import ResumeError
from liontool.optim import LionSF
from liontool.resume import facts as facts_of
from liontool.resume.comparing import Comparison
from liontool.resume.config import config_tree
from liontool.resume.difference import difference
from liontool.resume.facts import class_name
from liontool.resume.hyperparameters import group_changes, machine_changes, scheduler_changes
from liontool.resume.module_part import ModulePart
from liontool.resume.optimizer_part import OptimizerPart
from liontool.resume.overriding import overridden
from liontool.resume.param_names import param_names
from liontool.resume.parts import Part, part_of

_EXTRAS = "extras."


class Census:
    """The parts of one run.

    Args:
        model: Wrapped, moved and compiled as it trains.
        optimizer: Of the parameters of the model.
        scheduler: Drives the optimizer; None without one.
        loader: Only its state and its facts are of interest here; None without one.
        extras: More things to be kept, by keyword.
        config: Compared on a resume; None to compare nothing.
        say: Takes a line for the user.

    Raises:
        ResumeError: Something has no state, or the configuration cannot be kept.
    """

    def __init__(
        self,
        *,
        model: Any,
        optimizer: Any,
        scheduler: Any,
        loader: Any,
        extras: Mapping[str, object],
        config: Any,
        say: Callable[[str], None],
    ) -> None:
        things = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        self._things = {label: thing for label, thing in things.items() if thing is not None}
        self._things |= {f"{_EXTRAS}{name}": thing for name, thing in extras.items()}
        self._parts: dict[str, Part] = {
            label: part_of(_keyword(label), thing) for label, thing in self._things.items()
        }
        self._loader = loader
        self._config = config_tree(config)
        self._say = say
        self._reasons: list[str] = []
        self._left: frozenset[str] = frozenset()
        self._remarks(optimizer, scheduler)

    def _remarks(self, optimizer: Any, scheduler: Any) -> None:
        if isinstance(optimizer, LionSF) and scheduler is not None:
            self._say(
                "LionSF needs no warm-up and no scheduler: its learning rate stays constant; "
                f"{type(scheduler).__name__} is used all the same, since it was passed"
            )
        for label, thing in self._things.items():
            if isinstance(thing, torch.nn.Module) and not thing.state_dict():
                self._say(
                    f"{_keyword(label)}: its state_dict() is empty, so nothing of it "
                    "is kept; a metric of torchmetrics needs persistent(True)"
                )

    def live(self) -> dict[str, Any]:
        """The state of everything but the loader, whose iterator a look at it would begin."""
        state: dict[str, Any] = {}
        for label, part in self._parts.items():
            if label.startswith(_EXTRAS):
                state.setdefault("extras", {})[_keyword(label)] = part.state()
            else:
                state[label] = part.state()
        return state

    def state(self) -> dict[str, Any]:
        """The state, sharing its tensors with the live objects."""
        loader = {} if self._loader is None else {"loader": self._loader.state_dict()}
        return {**self.live(), **loader}

    def facts(self) -> dict[str, Json]:
        """What run.json says, without step, epoch, level and reasons."""
        return {
            "classes": self._classes(),
            "param_names": param_names(self._things),
            "config": self._config,
            "data": facts_of.data(self._loader),
            "versions": facts_of.versions(),
            "settings": facts_of.settings(),
        }

    def _classes(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for label, thing in self._things.items():
            for path, one in _nested(label, thing):
                found[path] = class_name(one)
        return found

    def check(
        self, facts: Mapping[str, Any], *, allow: Collection[str], run: str | Path = "RUN_DIR"
    ) -> None:
        """See that a checkpoint is one of this run.

        Args:
            facts: Its run.json.
            allow: Words for changes that are meant.
            run: The folder, for messages.

        Raises:
            ResumeError: It is another run's; the message says the word that allows it, if any.
        """
        compared = Comparison(facts, self.facts(), allow, str(run))
        compared.check()
        for line in compared.lines:
            self._say(line)
        self._left = frozenset(compared.left)
        self._reasons += facts_of.changed_settings(facts)

    def load(self, state: Mapping[str, Any], *, overrides: Mapping[str, Any]) -> None:
        """Take a saved state in, in place. The loader's own is left to the caller.

        Args:
            state: As `read_state` gives it.
            overrides: Hyperparameters that are changed on purpose.

        Raises:
            ResumeError: It does not fit, and nothing was changed; or an object did not take what
                it was given.
        """
        saved = self._saved(state)
        fitted = self._fitted(saved)
        if overrides:
            fitted |= self._fitted(self._overridden(saved, overrides))
        self._say_changes(saved, overrides)
        self._load(fitted)
        for label, expected in fitted.items():
            self._compare(label, expected)

    def begin(self, overrides: Mapping[str, Any]) -> None:
        """Change hyperparameters of a run that starts afresh, as they are changed on a resume."""
        if overrides:
            live = {label: self._parts[label].state() for label in self._driving()}
            self._load(self._fitted(self._overridden(live, overrides)))

    def reasons(self) -> list[str]:
        """Why a resume is not exact, as far as the checkpoint tells."""
        return list(dict.fromkeys(self._reasons))

    def _saved(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The saved state of each part that is to be loaded."""
        found = {label: one for label, one in _flat(state) if label not in self._left}
        for label in self._parts:
            if label not in found and label not in self._left:
                raise ResumeError(f"the checkpoint has no {_keyword(label)}, and this run has one")
        for label in found:
            if label not in self._parts:
                raise ResumeError(f"the checkpoint has a {_keyword(label)}, and this run has none")
        return found

    def _fitted(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        return {label: self._parts[label].fitted(one) for label, one in saved.items()}

    def _overridden(self, saved: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The optimizer and what drives it, with hyperparameters changed."""
        states = {label: saved[label] for label in self._driving() if label in saved}
        optimizer, changed = overridden(states.pop("optimizer"), states, overrides, self._say)
        return {"optimizer": optimizer, **changed}

    def _driving(self) -> list[str]:
        """The optimizer and its schedulers."""
        optimizer = self._things["optimizer"]
        return [
            label
            for label, thing in self._things.items()
            if label in ("optimizer", "scheduler")
            or (isinstance(thing, LRScheduler) and thing.optimizer is optimizer)
        ]

    def _say_changes(self, saved: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
        for label, thing in self._things.items():
            if label not in saved:
                continue
            name = _keyword(label)
            if isinstance(thing, torch.optim.Optimizer):
                groups = saved[label]["param_groups"]
                for option, old, new in group_changes(thing, groups):
                    if label == "optimizer" and option.replace("initial_lr", "lr") in overrides:
                        continue
                    self._say(_wins(f"{name}.{option}", old, new, label == "optimizer", option))
                for option, old, new in machine_changes(thing, groups):
                    line = f"{name}.{option} is {new}, as constructed, and was {old}"
                    self._say(f"{line}: it says how to compute, not what")
                    self._reasons.append(line)
            elif isinstance(thing, LRScheduler):
                for option, old, new in scheduler_changes(thing, saved[label], name):
                    self._say(_wins(option, old, new, False, option))

    def _load(self, fitted: Mapping[str, Any]) -> None:
        """Modules last: they cannot fail any more, and so what fails leaves the weights alone."""
        done: list[tuple[OptimizerPart, Any]] = []
        try:
            for label in sorted(fitted, key=lambda label: self._turn(label)):
                part = self._parts[label]
                if isinstance(part, OptimizerPart):
                    done.append((part, part.undo()))
                part.load(fitted[label])
        except ResumeError:
            for part, before in done:
                part.restore(before)
            raise

    def _turn(self, label: str) -> int:
        part = self._parts[label]
        return 2 if isinstance(part, ModulePart) else 1 if isinstance(part, OptimizerPart) else 0

    def _compare(self, label: str, expected: Any) -> None:
        part = self._parts[label]
        live = part.state()
        if isinstance(part, ModulePart):
            expected, live = dict(expected), dict(live)
        found = difference(expected, live)
        if found is None:
            return
        name = _keyword(label)
        line = f"{name}: {class_name(self._things[label])} changed its state while loading: {found}"
        if label in ("model", "optimizer", "scheduler"):
            raise ResumeError(f"{line}; resume with the versions that the checkpoint was made with")
        self._say(line)
        self._reasons.append(line)


def _flat(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The parts of a saved state by label."""
    for label in ("model", "optimizer", "scheduler"):
        if label in state:
            yield label, state[label]
    for name, one in state.get("extras", {}).items():
        yield f"{_EXTRAS}{name}", one


def _keyword(label: str) -> str:
    return label.removeprefix(_EXTRAS)


def _nested(label: str, thing: Any) -> Iterator[tuple[str, Any]]:
    """A thing, and the schedulers that are in it."""
    yield label, thing
    inner = getattr(thing, "_schedulers", None)
    if isinstance(inner, list):
        for index, one in enumerate(inner):
            yield from _nested(f"{label}.{index}", one)


def _wins(name: str, old: str, new: str, can_override: bool, option: str) -> str:
    line = f"{name} is {old}, the checkpoint's, and not {new}, as constructed"
    word = {"initial_lr": "lr"}.get(option, option)
    return f"{line}; to change it: overrides=dict({word}={new})" if can_override else line
