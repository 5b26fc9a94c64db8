"""A saved state taken in by live objects: first looked at as a whole, then loaded, then compared.

Modules come last. They cannot fail any more once names, shapes and dtypes were compared, and so
whatever fails before them leaves the weights alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from liontool.checkpoint.learning_rates import GROUP_KEYS
from liontool.errors import ResumeError
from liontool.resume.difference import difference
from liontool.resume.facts import class_name
from liontool.resume.hyperparameters import group_changes, machine_changes, scheduler_changes
from liontool.resume.labels import MAIN, keyword, labelled
from liontool.resume.module_part import ModulePart
from liontool.resume.new_scheduler import with_live_rates
from liontool.resume.optimizer_part import OptimizerPart
from liontool.resume.overrides import Overrides
from liontool.resume.overriding import overridden
from liontool.resume.parts import Part, fits
from liontool.resume.trees import copied


class Intake:
    """What loads a checkpoint into the parts of a run.

    Args:
        things: The live objects by label.
        parts: What says and takes their state, by the same labels.
        left: Labels that only one side has, which was allowed.
        replaced: Labels of another class than in the checkpoint, which was allowed.
        say: Takes a line for the user.

    Attributes:
        reasons: Why the resume is not exact.
    """

    def __init__(
        self,
        things: Mapping[str, Any],
        parts: Mapping[str, Part],
        *,
        left: Collection[str] = (),
        replaced: Collection[str] = (),
        say: Callable[[str], None],
    ) -> None:
        self._things = things
        self._parts = parts
        self._left = left
        self._replaced = replaced
        self._say = say
        self.reasons: list[str] = []

    def take(self, state: Mapping[str, Any], overrides: Overrides) -> None:
        """Take a saved state in, with hyperparameters changed."""
        saved = self._saved(state)
        fitted = self._fitted(saved)
        fitted |= self._fitted(self._changed(saved, overrides))
        self._say_changes(saved, overrides)
        self._load(fitted)
        for label, expected in fitted.items():
            self._compare(label, expected)

    def override(self, overrides: Overrides) -> None:
        """Change hyperparameters of the live objects."""
        self._load(self._fitted(self._overridden({}, overrides)))

    def _saved(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The saved state of each part that is to be loaded."""
        saved = {label: one for label, one in labelled(state) if label not in self._left}
        for label in self._parts:
            if label not in saved and label not in self._left:
                raise ResumeError(f"the checkpoint has no {keyword(label)}, and this run has one")
        for label in saved:
            if label not in self._parts:
                raise ResumeError(f"the checkpoint has a {keyword(label)}, and this run has none")
        for label in self._replaced:
            if label != "optimizer" and not fits(self._parts[label], saved[label]):
                del saved[label]
                self._say(f"{keyword(label)} begins as it was built: the saved state is no other's")
        return saved

    def _fitted(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        return {label: self._parts[label].fitted(one) for label, one in saved.items()}

    def _changed(self, saved: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
        """The optimizer and what drives it, where they are not to be as they were saved."""
        changed: dict[str, Any] = {}
        optimizer = self._things["optimizer"]
        is_new = "scheduler" in self._things and "scheduler" not in saved
        if is_new and isinstance(optimizer, Optimizer):
            changed["optimizer"] = with_live_rates(saved["optimizer"], optimizer.param_groups)
            overrides = overrides.begun_again("lr")
        if overrides.new:
            changed |= self._overridden({**saved, **changed}, overrides)
        return changed

    def _overridden(self, saved: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
        """The optimizer and what drives it, saved or live, with hyperparameters changed."""
        if not isinstance(self._things["optimizer"], Optimizer):
            kind = class_name(self._things["optimizer"])
            raise ResumeError(f"overrides: {kind} is no torch.optim.Optimizer, so set them on it")
        states = {
            label: saved[label] if label in saved else copied(self._parts[label].state())
            for label in self._driving()
        }
        optimizer, changed = overridden(states.pop("optimizer"), states, overrides, self._say)
        return {"optimizer": optimizer, **changed}

    def _driving(self) -> Iterator[str]:
        """The optimizer and its schedulers."""
        optimizer = self._things["optimizer"]
        for label, thing in self._things.items():
            is_driver = isinstance(thing, LRScheduler) and thing.optimizer is optimizer
            if label in ("optimizer", "scheduler") or is_driver:
                yield label

    def _say_changes(self, saved: Mapping[str, Any], overrides: Overrides) -> None:
        for label, state in saved.items():
            thing = self._things[label]
            if isinstance(thing, Optimizer):
                self._say_options(label, thing, state, overrides.given)
            elif isinstance(thing, LRScheduler):
                moved = "lr" in overrides.in_force
                for name, old, new in scheduler_changes(thing, state, keyword(label), moved=moved):
                    self._say(f"{name} is {old}, the checkpoint's, and not {new}, as constructed")

    def _say_options(
        self, label: str, optimizer: Optimizer, state: Any, overrides: Mapping[str, Any]
    ) -> None:
        for name, old, new in group_changes(optimizer, state["param_groups"]):
            word = "lr" if name in GROUP_KEYS else name
            if label != "optimizer" or word not in overrides:
                line = f"{keyword(label)}.{name} is {old}, the checkpoint's, and not {new}, as "
                way_out = f"; to change it: overrides=dict({word}=...)"
                self._say(f"{line}constructed{way_out if label == 'optimizer' else ''}")
        for name, old, new in machine_changes(optimizer, state["param_groups"]):
            line = f"{keyword(label)}.{name} is {new}, as constructed, and was {old}"
            self._say(f"{line}: it says how to compute, not what")
            self.reasons.append(line)

    def _load(self, fitted: Mapping[str, Any]) -> None:
        done: list[tuple[OptimizerPart, Any]] = []
        try:
            for label in sorted(fitted, key=self._turn):
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
        if isinstance(part, OptimizerPart):
            return 3 if label in self._replaced else 1  # a Lion may look at the weights
        return 2 if isinstance(part, ModulePart) else 0

    def _compare(self, label: str, expected: Any) -> None:
        part = self._parts[label]
        live = part.state()
        if isinstance(part, ModulePart):
            expected, live = dict(expected), dict(live)
        elif isinstance(part, OptimizerPart):
            live = _less_new_options(live, expected)
        found = difference(expected, live)
        if found is None:
            return
        kind = class_name(self._things[label])
        line = f"{keyword(label)}: {kind} changed its state while loading: {found}"
        if label in MAIN and label not in self._replaced:
            raise ResumeError(f"{line}; resume with the versions that the checkpoint was made with")
        self._say(line)
        self.reasons.append(line)


def _less_new_options(live: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """A Lion gives groups that were converted the options that they lack, as constructed."""
    pairs = zip(live["param_groups"], expected["param_groups"], strict=True)
    groups = [{name: mine[name] for name in mine if name in wanted} for mine, wanted in pairs]
    return {**live, "param_groups": groups}
