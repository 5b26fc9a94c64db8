"""Everything that a run is made of: its state to be saved, and a saved one taken in, in place.

A checkpoint is looked at as a whole before anything is changed: classes, names, shapes, dtypes.
What was loaded is then compared with what the live objects say, so nothing is lost in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from liontool.checkpoint.tagged_tree import Json
from liontool.optim import LionSF
from liontool.resume import facts as facts_of
from liontool.resume.comparing import Comparison
from liontool.resume.config import config_tree
from liontool.resume.gradients import GRADIENTS, checked_gradients, give_gradients, gradients
from liontool.resume.intake import Intake
from liontool.resume.labels import MAIN, keyword, label_of, nested
from liontool.resume.overrides import Overrides
from liontool.resume.param_names import param_names
from liontool.resume.parts import Part, part_of
from liontool.resume.strays import check_strays


class Census:
    """The parts of one run.

    Args:
        model: Wrapped, moved and compiled as it trains.
        optimizer: Of the parameters of the model.
        scheduler: Drives the optimizer; None without one.
        loader: Only its facts are of interest here; None without one.
        extras: More things to be kept, by keyword.
        config: Compared on a resume; None to compare nothing.
        say: Takes a line for the user.

    Raises:
        ResumeError: Something has no state, an optimizer has a parameter that nothing of the run
            saves, or the configuration cannot be kept.
        ValueError: There is no model or no optimizer.
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
        if model is None or optimizer is None:
            raise ValueError("model and optimizer must be given, got None")
        main = zip(MAIN, (model, optimizer, scheduler), strict=True)
        self._things = {label: thing for label, thing in main if thing is not None}
        self._things |= {label_of(name): thing for name, thing in extras.items()}
        self._parts: dict[str, Part] = {
            label: part_of(keyword(label), thing) for label, thing in self._things.items()
        }
        check_strays(self._things, self._parts)
        self._loader = loader
        self._config = config_tree(config)
        self._say = say
        self._reasons: list[str] = []
        self._overrides = Overrides()
        self._intake = Intake(self._things, self._parts, say=say)
        self._remarks()

    def _remarks(self) -> None:
        scheduler = self._things.get("scheduler")
        if isinstance(self._things.get("optimizer"), LionSF) and scheduler is not None:
            self._say(
                "LionSF needs no warm-up and no scheduler: its learning rate stays constant; "
                f"{type(scheduler).__name__} is used all the same, since it was passed"
            )
        for label, thing in self._things.items():
            if isinstance(thing, torch.nn.Module) and not thing.state_dict():
                self._say(
                    f"{keyword(label)}: its state_dict() is empty, so nothing of it is kept; "
                    "a metric of torchmetrics needs persistent(True)"
                )

    def live(self) -> dict[str, Any]:
        """The state of everything but the loader, sharing its tensors.

        To ask a loader for its state begins an iterator, so whoever iterates it does that.
        """
        state = nested({label: part.state() for label, part in self._parts.items()})
        found = gradients(self._things)
        return {**state, GRADIENTS: found} if found else state

    def facts(self) -> dict[str, Json]:
        """What run.json says, without step, epoch, level and reasons."""
        return {
            "classes": {
                path: facts_of.class_name(one)
                for label, thing in self._things.items()
                for path, one in _with_inner(label, thing)
            },
            "param_names": param_names(self._things),
            "config": self._config,
            "data": facts_of.data(self._loader),
            "versions": facts_of.versions(),
            "settings": facts_of.settings(),
            "overrides": self._overrides.in_force or None,
        }

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
            FormatError: The facts are not what liontool writes.
        """
        compared = Comparison(facts_of.checked(facts), self.facts(), allow, str(run))
        compared.check()
        for line in compared.lines:
            self._say(line)
        self._reasons += facts_of.changed_settings(facts)
        self._overrides = Overrides(done=facts.get("overrides") or {})
        self._intake = Intake(
            self._things, self._parts, left=compared.left, replaced=compared.replaced, say=self._say
        )

    def load(self, state: Mapping[str, Any], *, overrides: Mapping[str, Any]) -> None:
        """Take a saved state in, in place. The loader's own is left to the caller.

        Args:
            state: As `read_state` gives it.
            overrides: Hyperparameters that are changed on purpose.

        Raises:
            ResumeError: It does not fit, and nothing was changed; or an object did not take what
                it was given.
            FormatError: It is not what liontool writes.
        """
        held = checked_gradients(state)
        self._overrides = replace(self._overrides, given=overrides)
        self._intake.take(state, self._overrides)
        give_gradients(self._things, held)
        self._reasons += self._intake.reasons

    def begin(self, overrides: Mapping[str, Any]) -> None:
        """Change hyperparameters of a run that starts afresh, as they are changed on a resume.

        A script that is started again and again need not know which of its starts is the first.
        """
        if overrides:
            self._overrides = Overrides(overrides)
            self._intake.override(self._overrides)

    def reasons(self) -> list[str]:
        """Why a resume is not exact, as far as the checkpoint tells."""
        return list(dict.fromkeys(self._reasons))


def _with_inner(label: str, thing: Any) -> Iterator[tuple[str, Any]]:
    """A thing, and the schedulers that are in it."""
    yield label, thing
    inner = getattr(thing, "_schedulers", None)
    if isinstance(inner, list):
        for index, one in enumerate(inner):
            yield from _with_inner(f"{label}.{index}", one)
