"""Notices added to a draft, each once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from liontool.edit.draft import Draft, Notice


def noted(draft: Draft, notices: Iterable[Notice]) -> Draft:
    """The draft with `notices` after those that it has."""
    return replace(draft, notices=tuple(dict.fromkeys((*draft.notices, *notices))))
