"""`close` says which steps it does not save, and knows a failure of the run from other ones."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint.system import SYSTEM
from liontool.errors import ResumeError
from liontool.resume import Run
from liontool.resume.unsaved import unsaved

LEFT = "the loop was left between a batch and run.step(); leave it after run.step()"


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SYSTEM, "fsync", lambda fd: None)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def build(tmp_path: Path, said: list[str]) -> Iterator[Any]:
    """Makes runs in one folder; the last one is let go."""
    made: list[Run] = []

    def build() -> Run:
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        made.append(
            Run(tmp_path / "run", model=model, optimizer=optimizer, steps=50, say=said.append)
        )
        return made[-1]

    yield build
    made[-1].__exit__(RuntimeError, RuntimeError(), None)


def train(run: Run, steps: int) -> None:
    """So many steps, and one batch more."""
    for count, _ in enumerate(run):
        if count == steps:
            return
        run.step()


def test_left_before_the_step(build: Any, said: list[str]) -> None:
    """Leaving the loop between a batch and its step saves nothing, which is said."""
    run = build()
    train(run, 2)
    run.close()
    assert run.saved_step is None
    assert said[-1] == f"steps 1 to 2 are not saved: {LEFT}; a start begins afresh"


def test_left_before_the_step_after_a_save(build: Any, said: list[str]) -> None:
    """The steps since the last save are named, and where a start goes on."""
    run = build()
    train(run, 3)
    run.step()
    run.save()
    train(run, 1)
    run.close()
    assert run.saved_step == 4
    assert said[-1] == f"step 5 is not saved: {LEFT}; a start goes on at step 4"


def test_nothing_is_lost(build: Any, said: list[str]) -> None:
    """A batch without its step is no loss where all steps are saved."""
    run = build()
    train(run, 1)
    run.step()
    run.save()
    train(run, 0)
    run.close()
    assert run.saved_step == 2
    assert said == []


def test_left_before_the_step_on_a_signal(build: Any, said: list[str]) -> None:
    """The exit code asks for a restart all the same."""
    run = build()
    train(run, 2)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run.close()
    assert ended.value.code == 75
    assert f"steps 1 to 2 are not saved: {LEFT}; a start begins afresh" in said


def rescue(build: Any, fails: bool) -> Run:
    """A script that trains in the handler of an exception that was before the run."""
    try:
        raise ImportError("an optional package")
    except ImportError:
        run = build()
        try:
            train(run, 1)
            run.step()
            if fails:
                raise RuntimeError("of the run") from None
        finally:
            run.close()
        return run


def test_close_in_a_handler(build: Any, said: list[str]) -> None:
    """An exception that was handled before the run was built is no failure of the run."""
    assert rescue(build, fails=False).saved_step == 2
    assert said == []


def test_failure_in_a_handler(build: Any, said: list[str]) -> None:
    """An exception of the run is one there too."""
    with pytest.raises(RuntimeError, match="of the run"):
        rescue(build, fails=True)
    assert said == ["steps 1 to 2 are not saved: an exception ended the run; a start begins afresh"]


def test_many_steps() -> None:
    """Long numbers are grouped."""
    assert unsaved(1200, 2300, "so it is") == (
        "steps 1,201 to 2,300 are not saved: so it is; a start goes on at step 1,200"
    )


def test_step_before_the_first_batch(build: Any) -> None:
    """Without a batch generators are not restored, so a step is refused."""
    run = build()
    with pytest.raises(ResumeError, match=r"^run.step\(\) came before the first batch: iterate"):
        run.step()
    train(run, 1)
    assert run.step_count == 1


class Gone:
    """A terminal that is no longer there."""

    def write(self, text: str) -> None:
        raise BrokenPipeError


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that is gone does not end the training."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Gone())
        run = Run(tmp_path / "run", model=model, optimizer=optimizer, steps=2)
        run._say("a line")
        train(run, 1)
        run.close()
    assert run.step_count == 1


def test_two_runs(build: Any, tmp_path: Path, said: list[str]) -> None:
    """Signals reach the last one alone, which is said."""
    build()
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Run(tmp_path / "b", model=model, optimizer=optimizer, steps=1, say=said.append).close()
    assert [line for line in said if "another Run of this process is open" in line]
