"""What only shows where two parts of a run meet."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.layout import step_name
from liontool.checkpoint.run_folder.lock import holder
from liontool.checkpoint.system import SYSTEM
from liontool.errors import PublishError
from liontool.resume import saves
from liontool.resume.retention import Keep
from liontool.resume.saving import Saver
from liontool.resume.signals import Signals
from liontool.resume.snapshot import Body, Snapshot
from support.checkpoints import damaged, saved
from support.run_parts import Parts, net
from support.small_runs import begun, let_go, trained


def snapshot(step: int) -> Snapshot:
    """A state without tensors."""
    return Snapshot(step, 0, None, Body(b"", memoryview(b"x" * 100)), {}, {})


# --- saves --------------------------------------------------------------------------------------


def test_later_steps_that_were_copied_in(tmp_path: Path) -> None:
    """They do not push out the step that was just saved."""
    for step in (50, 60, 70):
        saved(tmp_path, step)
    saver = Saver(tmp_path, Keep(last=2), saved_step=None, say=pytest.fail)
    saver.start(snapshot(3))
    saver.wait()
    assert check(tmp_path / step_name(3)).step == 3


def test_nothing_is_moved_before_something_is_good(tmp_path: Path) -> None:
    """A run that has saved nothing yet leaves what bears the name that it needs."""
    there = damaged(tmp_path, 3)
    saver = Saver(tmp_path, Keep(), saved_step=None, say=pytest.fail)
    saver.start(snapshot(3))
    with pytest.raises(PublishError, match="step-0000000003"):
        saver.wait()
    assert list(tmp_path.iterdir()) == [there]


def test_what_was_not_written_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start has compared every byte: `close` of a run that saved nothing does not."""
    trained(begun(tmp_path, [], steps=2), 2).close()
    run = begun(tmp_path, [], steps=2)
    monkeypatch.setattr(saves, "check", pytest.fail)
    run.close()
    assert run.saved_step == 2


def test_the_next_save_after_a_resume(tmp_path: Path) -> None:
    """Multiples count from the step that was loaded."""
    let_go(trained(begun(tmp_path, []), 3))
    run = begun(tmp_path, [], save_every=3)
    for _ in run:
        if run.step_count >= 4:
            break
        run.step()
    let_go(run)
    assert run.saved_step == 3


def test_lock_of_a_save_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the end waits for a save: the folder is not free before that has ended."""
    gate, fsync = threading.Event(), SYSTEM.fsync

    def slow(fd: int) -> None:
        assert gate.wait(10)
        fsync(fd)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    run = begun(tmp_path, [], save_every=1)
    monkeypatch.setattr(SYSTEM, "fsync", slow)
    for _ in run:
        if run._saves.busy:
            break
        run.step()
    with monkeypatch.context() as patch:
        patch.setattr(saves.Saves, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            let_go(run)
    assert holder(tmp_path) is not None
    gate.set()
    run._saves.settle()
    run._saves._saver._lock.release()


# --- the end of a run ---------------------------------------------------------------------------


def test_an_exception_after_close(tmp_path: Path) -> None:
    """What close has said is not said again by the `with` around it."""
    said: list[str] = []
    run = trained(begun(tmp_path, said), 2, saving=False)
    next(iter(run))
    run.close()
    told = list(said)
    let_go(run)
    assert said == told


class Handled(Exception):
    """An exception that can be watched."""


def test_a_closed_run_keeps_no_exception(tmp_path: Path) -> None:
    """The exception that was handled as it was built holds the frames of the script."""
    try:
        raise Handled
    except Handled as error:
        watched = weakref.ref(error)
        run = begun(tmp_path, [])
    run.close()
    assert watched() is None


# --- signals ------------------------------------------------------------------------------------


@pytest.fixture
def earlier() -> Iterator[None]:
    """Signals are as they were after the test."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_python_does_not_know(earlier: None) -> None:
    """What was set by C code cannot be set again; the default takes its place."""
    made = Signals()
    made.install(pytest.fail)
    made._earlier[signal.SIGUSR1] = None
    made.restore()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("is_owner", [True, False])
def test_before_death(is_owner: bool) -> None:
    """The run lets its workers go before a second signal kills it; a child has none to kill."""
    reading, writing = os.pipe()
    made = Signals() if not is_owner else None
    pid = os.fork()
    if not pid:
        now = iter((0.0, 9.0))
        made = made or Signals(lambda: next(now))
        made.before_death = lambda: os.write(writing, b"x")  # type: ignore[assignment,return-value]
        made.install(print)
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
        os._exit(7)
    os.close(writing)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert (code, os.read(reading, 9)) == (-signal.SIGTERM, b"x" if is_owner else b"")
    os.close(reading)


# --- what is loaded -----------------------------------------------------------------------------


def _parts(lr: float = 0.01, kind: Any = torch.optim.SGD) -> Parts:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    second = kind(model[0].parameters(), lr=lr)
    warm = CosineAnnealingLR(optimizer, 50)
    return Parts(model, optimizer, None, {"second": second, "warm": warm})


def test_overrides_are_of_one_optimizer(tmp_path: Path) -> None:
    """The rate of another one is the checkpoint's, which is said though the word is the same."""
    parts = _parts(0.02)
    parts.resume(_parts().save(tmp_path / "run"), lr=0.05)
    assert "second.lr is 0.01, the checkpoint's, and not 0.02, as constructed" in parts.lines
    assert parts.extras["second"].param_groups[0]["lr"] == 0.01


def test_overrides_move_every_schedule(tmp_path: Path) -> None:
    """One that is passed under another word drives the same optimizer."""
    parts = _parts()
    parts.resume(_parts().save(tmp_path / "run"), lr=0.05)
    assert parts.extras["warm"].base_lrs == [0.05]


class Looking(torch.optim.SGD):
    """Looks at its weights while it takes a state in, as some do for their own copies."""

    seen: torch.Tensor

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self.seen = self.param_groups[0]["params"][0].detach().clone()


def test_another_optimizer_sees_the_weights(tmp_path: Path) -> None:
    """One that takes the place of another class is loaded last: it may need the new weights."""
    first = _parts().train(0, 3)
    parts = _parts(kind=Looking)
    parts.resume(first.save(tmp_path / "run"), allow="second")
    assert torch.equal(parts.extras["second"].seen, first.model[0].weight)


class Counted:
    """A number that is kept."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.number = state["number"]

    def step(self) -> None:
        pass


class CountedAnew(Counted):
    """Another class with the same state."""


class Forgetful(Counted):
    """Another class, which takes nothing."""

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def _counting(scheduler: Counted) -> Parts:
    model = net()
    return Parts(model, torch.optim.SGD(model.parameters(), lr=0.1), scheduler)


def test_another_class_with_the_same_state(tmp_path: Path) -> None:
    """Where it is allowed it goes on, and does not begin as it was built."""
    parts = _counting(CountedAnew())
    parts.resume(_counting(Counted(5)).save(tmp_path / "run"), allow="scheduler")
    assert parts.scheduler.number == 5


def test_another_class_that_takes_nothing(tmp_path: Path) -> None:
    """It was allowed, so this is a line and no error."""
    parts = _counting(Forgetful())
    census = parts.resume(_counting(Counted(5)).save(tmp_path / "run"), allow="scheduler")
    assert any("changed its state while loading: number" in one for one in census.reasons())
