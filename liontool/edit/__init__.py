"""Changes of a saved checkpoint, given as words."""

from __future__ import annotations

from liontool.edit.draft import Notice
from liontool.edit.editing import edit_checkpoint, undo
from liontool.edit.report import Change, EditReport, UndoReport

__all__ = ["Change", "EditReport", "Notice", "UndoReport", "edit_checkpoint", "undo"]
