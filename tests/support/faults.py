"""System calls that fail, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from liontool.checkpoint.system import SYSTEM


class Faults:
    """Counts the calls that go through SYSTEM, and lets the call number `fail_at` fail.

    Args:
        monkeypatch: Puts everything back at the end of a test.
        error: Makes the exception.
        fail_at: Which call fails, counted from 0.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException], fail_at: int
    ) -> None:
        self.error = error
        self.fail_at = fail_at
        self.names: list[str] = []
        self.enabled = True
        for name, call in list(vars(SYSTEM).items()):
            monkeypatch.setattr(SYSTEM, name, self._failing(name, call))

    @property
    def struck(self) -> bool:
        """Whether the call has failed."""
        return len(self.names) > self.fail_at

    def _failing(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **kwargs: Any) -> Any:
            if not self.enabled:
                return call(*args, **kwargs)
            self.names.append(name)
            if len(self.names) - 1 == self.fail_at:
                if name == "close":  # the system closes a descriptor even when it reports an error
                    call(*args, **kwargs)
                raise self.error()
            return call(*args, **kwargs)

        return failing


class Killed(BaseException):
    """The process is gone: no handler of errors may do anything more."""


class Death:
    """Lets the process die in system call number `at`: none after it does anything.

    Args:
        monkeypatch: Puts everything back at the end of a test.
        at: In which call, counted from 0.
        written: How many bytes a `pwrite` in which it dies still writes.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, written: int = 0) -> None:
        self.at = at
        self.written = written
        self.names: list[str] = []
        for name, call in list(vars(SYSTEM).items()):
            monkeypatch.setattr(SYSTEM, name, self._mortal(name, call))

    @property
    def struck(self) -> bool:
        """Whether the process has died."""
        return len(self.names) > self.at

    def _mortal(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def mortal(*args: Any, **kwargs: Any) -> Any:
            dying = len(self.names) == self.at
            self.names.append(name)
            if len(self.names) <= self.at:
                return call(*args, **kwargs)
            if name == "close":  # the system closes the files of the dead
                call(*args, **kwargs)
            if dying and name == "pwrite":
                fd, data, offset = args
                call(fd, data[: self.written], offset)
            raise Killed

        return mortal


def unsupported(monkeypatch: pytest.MonkeyPatch, code: int, *names: str) -> None:
    """Let system calls say that they do not exist here."""

    def missing(*_: Any, **__: Any) -> Any:
        raise OSError(code, "not supported here")

    for name in names:
        monkeypatch.setattr(SYSTEM, name, missing)
