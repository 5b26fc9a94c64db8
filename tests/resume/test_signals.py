"""Signals only leave a note; a late second one ends the process as it would have without a run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from liontool.resume.signals import SIGNALS, IgnoreSignals, Signals


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """A shell that runs the tests in the background lets them ignore Ctrl-C."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signals(clock: Clock) -> Iterator[Signals]:
    made = Signals(clock)
    made.install(pytest.fail)
    yield made
    made.restore()


@pytest.mark.parametrize("number", SIGNALS)
def test_first(signals: Signals, number: int) -> None:
    """The first is noted; a Ctrl-C ends with 130, the others with 75."""
    assert not signals.stopping
    signal.raise_signal(number)
    assert signals.stopping
    assert signals.exit_code == (130 if number == signal.SIGINT else 75)


def test_first_decides(signals: Signals) -> None:
    """The exit code is that of the first one."""
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert signals.exit_code == 75


def test_bursts_count_as_one(signals: Signals, clock: Clock) -> None:
    """What comes within five seconds is the same request."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.raise_signal(number)
    clock.now = 5.0
    signal.raise_signal(signal.SIGINT)
    assert signals.stopping


def test_later_interrupt(signals: Signals, clock: Clock) -> None:
    """A later Ctrl-C is a KeyboardInterrupt."""
    signal.raise_signal(signal.SIGTERM)
    clock.now = 5.1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_later_one_is_chained(clock: Clock, number: int) -> None:
    """A handler that was there before is called in the end, and is there again afterwards."""
    got: list[int] = []
    earlier = signal.signal(number, lambda number, frame: got.append(number))
    try:
        made = Signals(clock)
        made.install(pytest.fail)
        signal.raise_signal(number)
        assert got == []
        clock.now = 6.0
        signal.raise_signal(number)
        assert got == [number]
        made.restore()
        signal.raise_signal(number)
        assert got == [number, number]
    finally:
        signal.signal(number, earlier)


def test_restore() -> None:
    """The earlier handlers come back, but not over one that was installed meanwhile."""
    before = [signal.getsignal(number) for number in SIGNALS]
    made = Signals()
    made.install(pytest.fail)

    def later(number: int, frame: Any) -> None:
        pass

    earlier = signal.signal(signal.SIGUSR1, later)
    assert earlier == made._handle
    made.restore()
    assert signal.getsignal(signal.SIGUSR1) is later
    signal.signal(signal.SIGUSR1, before[1])
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_overlapping_runs() -> None:
    """Two that end in the order in which they began leave no handler behind."""
    before = [signal.getsignal(number) for number in SIGNALS]
    one, other = Signals(), Signals()
    said: list[str] = []
    one.install(pytest.fail)
    other.install(said.append)
    assert len(said) == 1
    assert said[0].startswith("another Run of this process is open: a signal saves this one alone")
    one.restore()
    signal.raise_signal(signal.SIGTERM)
    assert (one.stopping, other.stopping) == (False, True)
    other.restore()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads() -> None:
    """Python has no handlers outside the main thread; a line says so."""
    said: list[str] = []
    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=lambda: Signals().install(said.append))
    thread.start()
    thread.join()
    assert len(said) == 1
    assert said[0].startswith("signals are not handled")
    assert [signal.getsignal(number) for number in SIGNALS] == before


def forked(signals: Signals, number: int) -> int:
    """How a child ends that gets a signal."""
    pid = os.fork()
    if not pid:
        signal.raise_signal(number)
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children(signals: Signals) -> None:
    """Processes of the script die of a signal as ever; workers that start do not."""
    assert forked(signals, signal.SIGTERM) == -signal.SIGTERM
    with signals.starting_workers():
        assert forked(signals, signal.SIGTERM) == 7
    assert forked(signals, signal.SIGUSR1) == -signal.SIGUSR1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_workers_ignore_signals() -> None:
    """A loader worker ignores them, and then does what the loader was told."""
    called: list[int] = []
    ignore = IgnoreSignals(called.append)
    pid = os.fork()
    if not pid:
        ignore(3)
        for number in SIGNALS:
            signal.raise_signal(number)
        os._exit(0 if called == [3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
