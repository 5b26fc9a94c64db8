"""The saves of a run: when one begins, what it holds, how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.layout import step_name
from liontool.checkpoint.run_folder.lock import RunLock
from liontool.errors import LiontoolError
from liontool.resume.encoding import encode_state
from liontool.resume.host_copy import HostCopy
from liontool.resume.retention import Keep
from liontool.resume.round_trip import encoded
from liontool.resume.save_every import SaveEvery, Schedule
from liontool.resume.saving import Saver
from liontool.resume.snapshot import Snapshot


@dataclass(frozen=True)
class Moment:
    """A run between two steps; its tensors are those that train on.

    Attributes:
        step: Optimizer steps over all starts.
        epoch: Finished passes.
        metric: Of the last step.
        state: All of it.
        facts: For run.json.
    """

    step: int
    epoch: int
    metric: float | None
    state: Mapping[str, Any]
    facts: Mapping[str, Any]


class Saves:
    """Begins saves and hears of their ends.

    Args:
        folder: Of the run.
        keep: Which checkpoints stay.
        every: How often a save is due.
        saved_step: The newest durable step that is there already.
        lock: Of the folder.
        moment: Looks at the run.
        say: Told what is worth a line.

    Raises:
        StateTypeError: The state holds what no checkpoint can keep.
    """

    def __init__(
        self,
        folder: Path,
        keep: Keep,
        every: SaveEvery,
        *,
        saved_step: int | None,
        lock: RunLock,
        moment: Callable[[], Moment],
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._moment = moment
        self._say = say
        self._found_step = saved_step
        self._saver = Saver(folder, keep, saved_step=saved_step, say=say, lock=lock)
        self._schedule = Schedule(every, saved_step or 0)
        self._host = HostCopy()
        self._host.prepare(encoded(moment().state).tensors)

    @property
    def saved_step(self) -> int | None:
        """The newest durable step."""
        return self._saver.saved_step

    @property
    def busy(self) -> bool:
        """Whether a save is in flight."""
        return self._saver.busy

    def at_boundary(self, step: int, *, is_last: bool) -> None:
        """Tell of a save that failed, and begin one if it is due.

        Args:
            step: Where the run stands.
            is_last: Whether no step follows, so that this one is saved in any case.
        """
        if (failure := self._saver.failure()) is not None:
            self._say(f"{failure}; training goes on")
        if is_last:
            self.settle()
            self._start(step)
        elif self._schedule.is_due(step) and not self.busy:
            self._start(step)

    def save(self, step: int, *, again: bool = False) -> None:
        """Save a step, and wait until it is durable.

        Args:
            step: Where the run stands.
            again: Whether to save it even if it is, since the state may be another.

        Raises:
            LiontoolError: It cannot be saved.
        """
        self.settle()
        self._start(step, again=again)
        self._saver.wait()

    def settle(self) -> None:
        """Wait for the save in flight; if it failed, it is only said."""
        try:
            self._saver.wait()
        except LiontoolError as error:
            self._say(str(error))

    def verify(self) -> None:
        """Wait for the save in flight, and read the newest one back if this process wrote it.

        Raises:
            LiontoolError: It failed, or its bytes are not what was written.
        """
        self._saver.wait()
        if self.saved_step is not None and self.saved_step != self._found_step:
            check(self._folder / step_name(self.saved_step))

    def _start(self, step: int, *, again: bool = False) -> None:
        if self.saved_step == step and not again:
            return
        now = self._moment()
        state = encode_state(now.state)
        body = self._host.take(state.tensors)
        snapshot = Snapshot(step, now.epoch, now.metric, body, state.tree, now.facts)
        # One of this step that was copied in meanwhile is not this run's to replace.
        self._saver.start(snapshot, replace=self.saved_step == step)
        self._schedule.saved(step)
