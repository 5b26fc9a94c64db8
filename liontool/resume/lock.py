"""The lock of a run, for what trains; it lies with the files, which are edited under it too."""

from __future__ import annotations

from liontool.checkpoint.run_folder.lock import WAIT, Holder, RunLock, holder, locked, make_folder

__all__ = ["WAIT", "Holder", "RunLock", "holder", "locked", "make_folder"]
