"""liontool moves training runs to the Lion optimizer and keeps them alive.

The names below are what we promise to keep. They are loaded when they are asked for, so that
`import liontool` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from liontool.version import __version__

if TYPE_CHECKING:
    from liontool.checkpoint import read_checkpoint
    from liontool.convert import convert_checkpoint
    from liontool.edit import edit_checkpoint, undo
    from liontool.loading import load_optimizer

__all__ = [
    "__version__",
    "convert_checkpoint",
    "edit_checkpoint",
    "load_optimizer",
    "read_checkpoint",
    "undo",
]

_HOMES = {
    "convert_checkpoint": "liontool.convert",
    "edit_checkpoint": "liontool.edit",
    "load_optimizer": "liontool.loading",
    "read_checkpoint": "liontool.checkpoint",
    "undo": "liontool.edit",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'liontool' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
