"""A run that cannot be lost: it saves while it trains, and goes on where it was."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from liontool.checkpoint.run_folder.lock import RunLock
from liontool.errors import ResumeError
from liontool.resume.census import Census
from liontool.resume.exactness import check_loader, device_reasons, level_of, loader_reasons
from liontool.resume.goal import Goal
from liontool.resume.metric import Metric
from liontool.resume.opening import good_choice, resume, tidy
from liontool.resume.passes import Passes
from liontool.resume.retention import Keep
from liontool.resume.round_trip import encoded
from liontool.resume.save_every import SaveEvery
from liontool.resume.saves import Moment, Saves
from liontool.resume.signals import Signals
from liontool.resume.unsaved import unsaved
from liontool.resume.workers import ignoring_signals

_FAILED = "an exception ended the run"
_LEFT = "the loop was left between a batch and run.step(); leave it after run.step()"


class Run:
    """A training run in one process; state is loaded in place when it is built.

    Build, move, wrap and compile everything first. Iterate it for batches, and call `step` after
    each optimizer step::

        while not run.finished:
            for batch in run:               # the rest of the current pass over the data
                model(batch).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
                run.step()
        run.close()

    A save happens when the loop asks for the next batch, so what the body does after `step`
    belongs to that step. Batches since the last step are drawn again after a restart.

    Args:
        folder: Where its checkpoints lie; made if it is not there.
        model: A module.
        optimizer: Its optimizer.
        scheduler: Its learning rates.
        loader: A StatefulDataLoader; None makes batches 0, 1, 2 and so on without end.
        steps: Optimizer steps over all starts; this or `epochs` bounds the run.
        epochs: Passes over the data.
        save_every: A number of steps, or a time such as "60s"; saves run beside the training.
        keep: Which checkpoints stay: `last`, `every` so many steps, `best` by the metric.
        config: Anything JSON can hold; a change of it is an error.
        allow: Words of errors that are to be passed over, such as "config".
        overrides: Hyperparameters to change on purpose; otherwise the checkpoint's are taken.
        say: Told what is worth a line; prints to stderr if not given.
        stateful: More to be kept, each with `state_dict` and `load_state_dict`.

    Attributes:
        reasons: Why a restart may not repeat the run bit for bit; none if it does.
        resumed_from: The step of the checkpoint that was loaded; None for a new run.

    Raises:
        LiontoolError: The run cannot be gone on with; no checkpoint was changed or moved away.
        ValueError: An argument is wrong.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        model: Any,
        optimizer: Any,
        scheduler: Any = None,
        loader: Any = None,
        steps: int | None = None,
        epochs: int | None = None,
        save_every: int | str = "60s",
        keep: Keep | Mapping[str, object] = Keep(),  # noqa: B008  # frozen
        config: Any = None,
        allow: Collection[str] = (),
        overrides: Mapping[str, object] | None = None,
        say: Callable[[str], None] | None = None,
        **stateful: Any,
    ) -> None:
        self._goal = Goal(steps, epochs)
        check_loader(loader, epochs)
        every = SaveEvery.of(save_every)
        kept = Keep.of(keep)
        self._folder = Path(os.path.abspath(folder))
        self._say = say or _print
        self._census = Census(
            model=model, optimizer=optimizer, scheduler=scheduler, loader=loader,
            extras=stateful, config=config, say=self._say,
        )  # fmt: skip
        self._signals = Signals()
        self._passes = Passes(loader, self._signals.starting_workers)
        self._signals.before_death = self._passes.abandon
        self._metric = Metric(is_needed=kept.best is not None)
        self._step = 0
        self._unstepped = 0  # batches since the last step
        self._is_closed = False
        self._handled = sys.exc_info()[1]  # of the caller, and no failure of this run
        self.resumed_from: int | None = None
        self.reasons = [*loader_reasons(loader), *device_reasons(model.parameters())]
        with ExitStack() as held:
            lock = self._open(held, allow, dict(overrides or {}))
            held.enter_context(ignoring_signals(loader))
            self._saves = Saves(
                self._folder, kept, every,
                saved_step=self.resumed_from, lock=lock, moment=self._moment, say=self._say,
            )  # fmt: skip
            self._held = held.pop_all()
        reasons, self.reasons = self.reasons, []
        self._add_reasons(reasons)

    def __iter__(self) -> Iterator[Any]:
        """The batches of the rest of the current pass."""
        while True:
            self._check_open()
            self._pass_boundary()
            if self.finished:
                return
            try:
                batch = self._draw()
            except StopIteration:
                return
            yield batch

    def step(self, metric: Any = None) -> None:
        """Mark the end of an optimizer step.

        Args:
            metric: What `keep=dict(best=...)` goes by, a number or a tensor with one element;
                lower is better. It is only read when a save needs it.

        Raises:
            ValueError: There is no metric and the best checkpoints are to be kept, or it is no
                single number.
            ResumeError: No batch was drawn from the run yet.
        """
        self._check_open()
        if not self._passes.is_begun:
            raise ResumeError(
                "run.step() came before the first batch: iterate the run, `for batch in run:`, "
                "which also sets the generators to where the checkpoint has them"
            )
        self._metric.take(metric)
        self._step += 1
        self._unstepped = 0

    def save(self) -> int:
        """Save now, and wait until it is durable.

        A checkpoint of the same step gives way to the new one, in one move. After the end of a
        pass call it last: a restart goes on with the next pass, and code that stands between this
        and the next batch does not run again.

        Returns:
            The step that was saved.

        Raises:
            ResumeError: Batches were drawn since the last `step`.
            PublishError: The checkpoint cannot be written.
        """
        self._check_open()
        if not self._is_boundary():
            raise ResumeError(
                f"{self._unstepped:,} batches were drawn since the last run.step(), "
                "and a save in between would lose their gradients; call save() after step()"
            )
        self._saves.save(self._step, again=True)
        return self._step

    def close(self) -> None:
        """End the run: save what is not saved, wait, verify the newest checkpoint.

        After an exception nothing is saved, nor between a batch and `step`: leave the loop after
        `step`. What is not saved is said. A signal that came before ends the process here.

        Raises:
            LiontoolError: The last save failed, or its bytes are not what was written.
        """
        if self._is_closed:
            return
        with self._ending():
            if sys.exc_info()[1] not in (None, self._handled):
                self._abandon(_FAILED)
                return
            if self._is_boundary():
                self._saves.save(self._step)
            else:
                self._abandon(_LEFT)
            self._saves.verify()
        if self.stopping:
            self._exit()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        elif not self._is_closed:
            with self._ending():
                self._abandon(_FAILED)

    @property
    def level(self) -> str:
        """ "exact" if a restart repeats the run bit for bit, else "state-exact"."""
        return level_of(self.reasons)

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to do."""
        return self._goal.is_reached(self._step, self._passes.epoch)

    @property
    def stopping(self) -> bool:
        """Whether a signal asked the run to stop; worth a look in a long evaluation."""
        return self._signals.stopping

    @property
    def epoch(self) -> int:
        """Finished passes over the data, from 0."""
        return self._passes.epoch

    @property
    def step_count(self) -> int:
        """Optimizer steps over all starts."""
        return self._step

    @property
    def saved_step(self) -> int | None:
        """The newest step that is durable on disk; None where none is."""
        return self._saves.saved_step

    def _open(
        self, held: ExitStack, allow: Collection[str], overrides: Mapping[str, object]
    ) -> RunLock:
        """Take the folder, load the newest good checkpoint, and listen to signals."""
        lock = RunLock()
        held.callback(self._release, lock)
        lock.acquire(self._folder)
        choice = good_choice(self._folder, self._say)
        if choice.chosen is None:
            self._census.begin(overrides)
        else:
            self._step, reasons = resume(
                choice.chosen, self._census, self._passes, allow, overrides, self._say
            )
            self.resumed_from = self._step
            self.reasons += reasons
        tidy(choice, self._say)
        held.callback(self._signals.restore)
        self._signals.install(self._say)
        held.callback(self._passes.end)
        return lock

    def _state(self) -> dict[str, Any]:
        """All of it, sharing its tensors."""
        position = self._passes.state()
        position["run"]["step"] = self._step
        parts = {**self._census.live(), **position}
        return {name: part for name, part in parts.items() if part is not None}

    def _moment(self) -> Moment:
        facts = {**self._census.facts(), "level": self.level, "reasons": list(self.reasons)}
        return Moment(self._step, self.epoch, self._metric.value(), self._state(), facts)

    def _pass_boundary(self) -> None:
        """What may happen between two steps: a save, or the end."""
        if not self._is_boundary():
            return
        if self.stopping:
            with self._ending():
                self._saves.save(self._step)
            self._exit()
        # What comes after the last step belongs to no step, so that one is saved here.
        self._saves.at_boundary(self._step, is_last=self.finished)

    def _is_boundary(self) -> bool:
        """Whether no batch waits for its step, or none ever will have one."""
        return self._unstepped == 0 or self.finished

    def _draw(self) -> Any:
        if self._passes.begin():
            encoded({"loader": self._passes.state()["loader"]})
            self._add_reasons(self._passes.reasons)
            # Registered after multiprocessing's own hook, so it is called before that one.
            atexit.unregister(self._passes.end)
            atexit.register(self._passes.end)
        batch = self._passes.draw()
        self._unstepped += 1
        return batch

    def _add_reasons(self, reasons: list[str]) -> None:
        """Each is said once."""
        for reason in reasons:
            if reason not in self.reasons:
                self.reasons.append(reason)
                self._say(f"not exact: {reason}")

    def _abandon(self, why: str) -> None:
        """End without a save: nobody knows what the body left undone."""
        self._saves.settle()
        if (line := unsaved(self.saved_step, self._step, why)) is not None:
            self._say(line)

    def _exit(self) -> NoReturn:
        code = self._signals.exit_code
        self._say(f"stopped by a signal at step {self._step:,}; exit code {code}")
        raise SystemExit(code)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Let everything go after the body, whatever happens in it."""
        self._is_closed = True
        with self._held:
            yield
        self._handled = None  # its traceback holds frames
        atexit.unregister(self._passes.end)

    def _release(self, lock: RunLock) -> None:
        """Not while a save is in flight: the folder is ours until that has ended."""
        if not hasattr(self, "_saves") or not self._saves.busy:
            lock.release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ResumeError("the run is closed; build a new Run to go on")


def _print(line: str) -> None:
    with suppress(OSError, ValueError):  # nobody listens any more, which is no reason to end
        print(f"liontool: {line}", file=sys.stderr, flush=True)
