"""The words of an edit applied to a checkpoint, from left to right; writes no file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liontool.checkpoint.document import Edit
from liontool.checkpoint.frameworks import Framework
from liontool.edit.consequences import check_next_step
from liontool.edit.draft import Draft
from liontool.edit.hyperparameters import change
from liontool.edit.names import attach
from liontool.edit.planning import plan
from liontool.edit.states import restate
from liontool.edit.strip import strip
from liontool.edit.structure import drop, keep, metadata, rename
from liontool.edit.words import Drop, Keep, Metadata, Names, Rename, Scale, Set, State, Strip, Word
from liontool.errors import EditError, LiontoolError

Rule = Callable[[Draft, Any], Draft]
"""What one kind of word does: a draft and the word in, another draft out; no I/O but reading."""

RULES: Mapping[type[Word], Rule] = {
    Rename: rename,
    Drop: drop,
    Keep: keep,
    Metadata: metadata,
    Set: change,
    Scale: change,
    State: restate,
    Names: attach,
    Strip: strip,
}


@dataclass(frozen=True)
class Edited:
    """A checkpoint before and after, and what has to change in its files.

    Attributes:
        before: As it was read.
        after: With all words applied.
        edits: The difference, at Places of the documents.
    """

    before: Draft
    after: Draft
    edits: tuple[Edit, ...]


def edited(before: Draft, lens: Framework | None, words: Sequence[Word]) -> Edited:
    """Apply all words, or none.

    Args:
        before: The checkpoint as it was read.
        lens: Its framework, None where it has no optimizer.
        words: From `words.parse`.

    Raises:
        EditError: Words do not fit the checkpoint, and the message names all that do not; or the
            optimizer would fail with what they do.
    """
    after = before
    faults: list[tuple[Word, LiontoolError]] = []
    for word in words:
        try:
            after = RULES[type(word)](after, word)
        except LiontoolError as error:
            faults.append((word, error))
        except RecursionError:
            faults.append((word, EditError("a value is nested too deeply, or in itself")))
    if faults:
        raise EditError("; ".join(f"'{word.text}': {error}" for word, error in faults))
    check_next_step(before, after)
    return Edited(before, after, tuple(plan(before, after, lens)))
