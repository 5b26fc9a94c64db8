"""However a training script ends, it ends soon, and nothing of its workers is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from support.leaving import Trainer, Trainers, trainers

SOON = 25.0
"""Seconds, on any machine: a worker that is busy for 40 s holds up who does not leave it behind."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    with trainers(tmp_path_factory.mktemp("runs")) as made:
        yield made


def ends(trainer: Trainer, code: int) -> None:
    found, seconds = trainer.end()
    assert found == code, trainer.errors()
    assert seconds < SOON
    deadline = time.monotonic() + SOON  # workers of a trainer that was killed see that it is gone
    while _has_members(trainer.pid):
        assert time.monotonic() < deadline, "its workers live on"
        time.sleep(0.05)


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(("does", "code"), [("raise", 1), ("exit", 3)])
def test_body_fails(server: Trainers, does: str, code: int) -> None:
    """An exception or sys.exit in the body ends the process at once, and saves nothing."""
    trainer = server.start(workers=2, at="stepped", does=does)
    ends(trainer, code)
    assert trainer.steps() == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
def test_first_signal(server: Trainers, number: int, code: int) -> None:
    """A signal to the whole group, workers among it, ends it with one save at the next boundary."""
    trainer = server.start(workers=2, at="batch", does="sleep", sleep=0.3)
    trainer.wait_for("waiting")
    trainer.wait_for("slow")
    os.killpg(trainer.pid, number)
    ends(trainer, code)
    assert trainer.steps() == [trainer.stepped()]
    assert f"stopped by a signal at step {trainer.stepped()}" in trainer.errors()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_second_signal(server: Trainers, number: int) -> None:
    """One that comes later than five seconds after the first ends it at once, in the body."""
    trainer = server.start(workers=2, at="batch", does="sleep", sleep=60, same_request=0.1)
    trainer.wait_for("slow")
    trainer.wait_for("waiting")
    os.kill(trainer.pid, number)
    time.sleep(0.3)
    os.killpg(trainer.pid, number)
    ends(trainer, -number)
    assert trainer.steps() == []


def test_second_interrupt(server: Trainers) -> None:
    """A second Ctrl-C is a KeyboardInterrupt, as without a run."""
    trainer = server.start(workers=2, at="batch", does="sleep", sleep=60, same_request=0.1)
    trainer.wait_for("slow")
    trainer.wait_for("waiting")
    os.killpg(trainer.pid, signal.SIGINT)
    time.sleep(0.3)
    os.killpg(trainer.pid, signal.SIGINT)
    ends(trainer, -signal.SIGINT)
    assert "KeyboardInterrupt" in trainer.errors()
    assert trainer.steps() == []


def test_waiting_for_data(server: Trainers) -> None:
    """A wait for data is not cut; the step that it is for ends, is saved, and then it exits."""
    trainer = server.start(workers=2, slow_from=1, slow=1.5)
    trainer.wait_for("slow")
    trainer.wait_for("stepped")
    os.killpg(trainer.pid, signal.SIGTERM)
    ends(trainer, 75)
    assert trainer.steps() == [trainer.stepped()] == [2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_in_save(server: Trainers, number: int, code: int) -> None:
    """The save in flight ends, and the step that was made meanwhile is saved too."""
    trainer = server.start(at="batch", does="sleep", sleep=0.1, save_every=1, write=0.1)
    trainer.wait_for("writing")
    os.kill(trainer.pid, number)
    ends(trainer, code)
    assert trainer.steps()[-1] == trainer.stepped()
    assert len(trainer.steps()) in (1, 2)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_before_the_first_batch(server: Trainers, number: int, code: int) -> None:
    """Asked to stop before anything was done, it saves where it stands."""
    trainer = server.start(at="built", does="sleep", sleep=0.3)
    trainer.wait_for("waiting")
    os.kill(trainer.pid, number)
    ends(trainer, code)
    assert trainer.steps() == [0]
