"""What is in a checkpoint, as data; the command line renders it."""

from __future__ import annotations

from liontool.inspect.summary import Summary, summarise

__all__ = ["Summary", "summarise"]
