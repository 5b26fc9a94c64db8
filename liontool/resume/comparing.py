"""Whether a checkpoint is one of this run, by what run.json says of both.

Every refusal that can be meant names the word for `allow=`. What was allowed is said in a line.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from liontool.errors import ResumeError
from liontool.resume import config
from liontool.resume.facts import same_class
from liontool.resume.labels import keyword
from liontool.resume.names import against, bare

Names = Sequence[Sequence[str | None]]

_LIONS = ("liontool.optim.lion.Lion", "liontool.optim.lion_sf.LionSF")
_LION_SF = _LIONS[1]
_ADAMS = ("torch.optim.adam.Adam", "torch.optim.adamw.AdamW")


class Comparison:
    """One checkpoint against the run that opens it.

    Args:
        saved: Its run.json.
        live: The facts of the run.
        allow: Words for changes that are meant.
        run: The folder, for messages.

    Attributes:
        lines: What to say.
        left: Parts that are not loaded, because one side lacks them.
        replaced: Parts of another class, of which is loaded what fits.
    """

    def __init__(
        self,
        saved: Mapping[str, Any],
        live: Mapping[str, Any],
        allow: Collection[str],
        run: str,
    ) -> None:
        self._saved = saved
        self._live = live
        self._allow = {allow} if isinstance(allow, str) else set(allow)
        self._run = run
        self.lines: list[str] = []
        self.left: list[str] = []
        self.replaced: list[str] = []

    def check(self) -> None:
        """Compare everything.

        Raises:
            ResumeError: Something differs that was not allowed.
        """
        self._check_parts()
        self._check_classes()
        self._check_names()
        self._check_data()
        self._check_config()

    def _allows(self, word: str, what: str) -> None:
        if word not in self._allow:
            raise ResumeError(f"{what}; if that is meant: allow=({word!r},)")
        self.lines.append(f"{what}; allowed")

    def _check_parts(self) -> None:
        saved, live = self._parts(self._saved), self._parts(self._live)
        for label in [one for one in live if one not in saved]:
            name = keyword(label)
            self._allows(
                name,
                f"the checkpoint has no {name}, and this run has one, which would begin as it was "
                "built",
            )
            self.left.append(label)
        for label in [one for one in saved if one not in live]:
            self._check_dropped(label)
            self.left.append(label)

    def _check_dropped(self, label: str) -> None:
        name = keyword(label)
        what = f"the checkpoint has a {name}, and this run has none"
        if label == "scheduler" and self._live["classes"]["optimizer"] == _LION_SF:
            self.lines.append(f"{what}: LionSF needs none, and the learning rate stays as it is")
        else:
            self._allows(name, f"{what}: pass {name}= to Run, or its state is lost")

    def _parts(self, facts: Mapping[str, Any]) -> list[str]:
        """The labels of the parts, without the schedulers inside of schedulers."""
        classes = facts["classes"]
        return [one for one in classes if one.rpartition(".")[0] not in classes]

    def _check_classes(self) -> None:
        then, now = self._saved["classes"], self._live["classes"]
        for label in now:
            if label in self.left or label not in then or same_class(then[label], now[label]):
                continue
            name = keyword(label)
            what = f"{name} was a {then[label]} in the checkpoint, and is a {now[label]}"
            if label == "model":
                self.lines.append(what)
            elif label == "optimizer":
                self._check_optimizer(then[label], now[label], what)
            else:
                part = self._part_of(label)
                self._allows(keyword(part), what)
                self.replaced.append(part)

    def _part_of(self, label: str) -> str:
        """The part that a scheduler inside of schedulers belongs to."""
        while (outer := label.rpartition(".")[0]) in self._live["classes"]:
            label = outer
        return label

    def _check_optimizer(self, then: str, now: str, what: str) -> None:
        if then in _ADAMS and now in _LIONS:
            to = " --to lion-sf" if now == _LION_SF else ""
            raise ResumeError(
                f"{what}; convert the run first, and open what that writes: liontool convert "
                f"{shlex.quote(self._run)} --lr-ratio 3{to}"
            )
        if then in _LIONS and now in _ADAMS:
            raise ResumeError(
                f"{what}, whose second moment a Lion has not; open the run that was converted, "
                "which is still there"
            )
        if {then, now} == set(_LIONS):
            to = " --to lion-sf" if now == _LION_SF else ""
            raise ResumeError(
                f"{what}; convert the AdamW run again for it: liontool convert ADAMW_RUN "
                f"--lr-ratio 3{to}"
            )
        self._allows("optimizer", f"{what}; build the optimizer that it was saved with")

    def _check_names(self) -> None:
        for label, groups in self._saved.get("param_names", {}).items():
            mine = self._live["param_names"].get(label)
            if mine is not None and label not in self.left:
                _check_order(keyword(label), groups, mine)

    def _check_data(self) -> None:
        then, now = self._saved.get("data"), self._live.get("data")
        if (then is None) != (now is None):
            has, lacks = ("no loader", "one") if then is None else ("a loader", "none")
            self._allows("data", f"the checkpoint was made with {has}, and this run has {lacks}")
        elif then is not None and now is not None:
            found = [
                f"{name} {then[name]} -> {now.get(name)}"
                for name in then
                if then[name] != now.get(name)
            ]
            if found:
                self._allows("data", f"the data is not that of the checkpoint: {', '.join(found)}")

    def _check_config(self) -> None:
        then, now = self._saved.get("config"), self._live["config"]
        if then is None or now is None:
            if then is not None:
                self.lines.append("config= is not given, so it is not compared")
            return
        reserved = {"config", "data", *(keyword(one) for one in self._live["classes"])}
        for path, words in config.changes(then, now):
            word = f"config.{path}" if path.split(".")[0] in reserved else path
            if not self._allow & set(_above(word)):
                raise ResumeError(f"config.{path} {words}; if that is meant: allow=({word!r},)")
            self.lines.append(f"config.{path} {words}; allowed")


def _above(path: str) -> Iterator[str]:
    """A path and those that lead to it."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        yield ".".join(parts[:count])


def _check_order(label: str, saved: Names, live: Names) -> None:
    theirs, mine = _all(saved), _all(live)
    odd = against(filter(None, mine), filter(None, theirs))
    if odd:
        raise ResumeError(
            f"{label}: {odd}; build the model as it was when it was saved, and give the optimizer "
            "the parameters that it had"
        )
    if [len(group) for group in saved] != [len(group) for group in live]:
        return  # the optimizer itself says so
    for place, (then, now) in enumerate(zip(theirs, mine, strict=True)):
        if then is not None and now is not None and bare(then) != bare(now):
            raise ResumeError(
                f"{label}: parameter {place} was '{then}' in the checkpoint and is '{now}', so it "
                "would get the state of another; give the optimizer its parameters in the order "
                "that they were saved in"
            )


def _all(names: Names) -> list[str | None]:
    return [name for group in names for name in group]
