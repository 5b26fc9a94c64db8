"""SIGTERM, SIGUSR1 and Ctrl-C ask a run to stop; the handlers only take note of it.

The first one asks for a save at the next boundary. Schedulers and shells send signals in bursts,
so what comes within five seconds is the same request; what comes later wants to leave at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from liontool.resume.orphans import Tie

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

EX_TEMPFAIL = 75
INTERRUPTED = 130

_SAME_REQUEST = 5.0


class Signals:
    """The handlers of a run.

    Args:
        clock: Seconds that only grow.

    Attributes:
        before_death: Called when a signal is about to kill the process.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.before_death: Callable[[], None] = _nothing
        self._clock = clock
        self._earlier: dict[int, Any] = {}
        self._owner = os.getpid()
        self._starts_workers = False
        self._is_listening = False
        self._first: tuple[int, float] | None = None

    @property
    def stopping(self) -> bool:
        """Whether a signal has come."""
        return self._first is not None

    @property
    def exit_code(self) -> int:
        """What the process ends with after the first signal."""
        number = self._first[0] if self._first is not None else None
        return INTERRUPTED if number == signal.SIGINT else EX_TEMPFAIL

    def install(self, say: Callable[[str], None]) -> None:
        """Take over the signals, in the main thread; elsewhere Python allows no handlers."""
        if threading.current_thread() is not threading.main_thread():
            say(
                "signals are not handled: the Run was built outside the main thread; "
                "poll for them there and call run.save()"
            )
            return
        self._is_listening = True
        for number in SIGNALS:
            self._earlier[number] = signal.signal(number, self._handle)
        if isinstance(getattr(self._handler_before(signal.SIGTERM), "__self__", None), Signals):
            say(
                "another Run of this process is open: a signal saves this one alone; give one Run "
                "both models and optimizers, by keywords"
            )

    def restore(self) -> None:
        """Give the signals back; handlers that were installed after these stay."""
        self._is_listening = False
        for number in self._earlier:
            if signal.getsignal(number) == self._handle:
                earlier = self._handler_before(number)
                # None: it was not set from Python, which cannot set it again.
                signal.signal(number, signal.SIG_DFL if earlier is None else earlier)

    def _handler_before(self, number: int) -> Any:
        """The handler of before; not that of another run that has ended meanwhile."""
        earlier = self._earlier.get(number)
        owner = getattr(earlier, "__self__", None)
        if isinstance(owner, Signals) and not owner._is_listening:
            return owner._handler_before(number)
        return earlier

    @contextmanager
    def starting_workers(self) -> Iterator[None]:
        """Loader workers that are forked in the body ignore these signals from the first moment."""
        self._starts_workers = True
        try:
            yield
        finally:
            self._starts_workers = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a child: only the run's own workers ignore it
            if not self._starts_workers:
                self._leave(number, frame)
        elif self._first is None:
            self._first = (number, self._clock())
        elif self._clock() - self._first[1] > _SAME_REQUEST:
            self._leave(number, frame)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """What would have happened without the run."""
        earlier = self._handler_before(number)
        if callable(earlier):
            earlier(number, frame)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            if os.getpid() == self._owner:
                self.before_death()
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _nothing() -> None:
    pass


class IgnoreSignals:
    """What a loader worker does first: signals to the group reach only the run, it ends with that.

    Args:
        then: The loader's own `worker_init_fn`.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then
        self._tie = Tie()

    def __call__(self, worker_id: int) -> None:
        self._tie()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.then is not None:
            self.then(worker_id)
