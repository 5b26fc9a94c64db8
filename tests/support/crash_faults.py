"""A disk that has no room, or that says so at some call: through the table of system calls."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from liontool.checkpoint.system import SYSTEM

WRITES = ("write", "pwrite")


@contextmanager
def room_for(count: int, code: int = errno.ENOSPC) -> Iterator[None]:
    """A disk on which `count` more bytes can be written; a write over the edge is a short one."""
    room = [count]

    def limited(call: Callable[..., int]) -> Callable[..., int]:
        def writing(fd: int, data: bytes, *offset: int) -> int:
            if not room[0] and len(data):
                raise OSError(code, os.strerror(code))
            written = call(fd, memoryview(data).cast("B")[: room[0]], *offset)
            room[0] -= written
            return written

        return writing

    with mock.patch.multiple(SYSTEM, **{name: limited(getattr(SYSTEM, name)) for name in WRITES}):
        yield


class Struck:
    """Lets calls through SYSTEM fail.

    Attributes:
        names: The calls made so far.
        threads: The threads that made them.
    """

    def __init__(self, at: int, code: int | None, forever: bool = False) -> None:
        """Let a call fail.

        Args:
            at: Which call, counted from 0; -1 for none.
            code: The error; None for writing only half of what it was asked to.
            forever: Whether all later calls fail too.
        """
        self.at = at
        self.code = code
        self.forever = forever
        self.names: list[str] = []
        self.threads: set[int] = set()

    @contextmanager
    def striking(self) -> Iterator[Struck]:
        """The calls of the body are counted, and one fails."""
        wrapped = {name: self._wrapped(name, call) for name, call in vars(SYSTEM).items()}
        with mock.patch.multiple(SYSTEM, **wrapped):
            yield self

    def _wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            number = len(self.names)
            self.names.append(name)
            self.threads.add(threading.get_ident())
            if number == self.at or (self.forever and number > self.at >= 0):
                return self._fail(name, call, *args, **kwargs)
            return call(*args, **kwargs)

        return wrapped

    def _fail(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.code is None:
            if name in WRITES and len(args[1]) > 1:
                half = memoryview(args[1]).cast("B")[: len(args[1]) // 2]
                return call(args[0], half, *args[2:])
            return call(*args, **kwargs)
        if name == "close":  # the system closes a descriptor even when it reports an error
            call(*args, **kwargs)
        raise OSError(self.code, os.strerror(self.code))
