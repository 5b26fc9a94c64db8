"""What goes through SYSTEM to the disk, in its order, in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liontool.checkpoint.system import SYSTEM

_CHANGES = ("mkdir", "rename", "rename_new", "rmtree", "unlink")


class Recorded(list[str]):
    """Changes of names, and flushes, each a line such as "fsync quarantine".

    Args:
        monkeypatch: Puts everything back at the end of a test.
        root: What the paths are relative to; it is "." itself.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        super().__init__()
        self._root = root
        for name in _CHANGES:
            monkeypatch.setattr(SYSTEM, name, self._noting(name, getattr(SYSTEM, name)))
        opened, fsync, places = SYSTEM.open, SYSTEM.fsync, dict[int, Path]()

        def opening(path: Any, *rest: Any, **more: Any) -> int:
            fd = opened(path, *rest, **more)
            places[fd] = Path(path)
            return fd

        def flushing(fd: int) -> None:
            self.append(f"fsync {self._short(places[fd])}")
            fsync(fd)

        monkeypatch.setattr(SYSTEM, "open", opening)
        monkeypatch.setattr(SYSTEM, "fsync", flushing)

    def _noting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **more: Any) -> Any:
            paths = [self._short(one) for one in args if isinstance(one, str | os.PathLike)]
            self.append(" ".join([name, *paths]))
            return call(*args, **more)

        return noting

    def _short(self, path: str | os.PathLike[str]) -> str:
        return os.path.relpath(path, self._root)
