"""Names that words speak of: patterns, prefixes, and what to say if nothing fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches

from liontool.checkpoint.model import Optimizer, Slot
from liontool.edit import parameters
from liontool.edit.draft import Draft
from liontool.errors import EditError
from liontool.inspect import globs
from liontool.inspect.templates import template

_NEAR = 3
_CUTOFF = 0.4


def matcher(glob: str) -> Callable[[str], bool]:
    """Whether a name is `glob`, or fits it as a pattern; see `inspect.globs`."""
    fits = globs.matcher([glob])
    return lambda name: name == glob or fits(name)


def renamer(old: str, new: str) -> Callable[[str], str]:
    """What gives names their new form; a name that `old` does not fit stays.

    `old` is a whole name, a prefix that ends at a dot, or has a `*` for each one of `new`.
    """
    if "*" not in old:
        prefix = old if old.endswith(".") else f"{old}."
        put = new if old.endswith(".") or not new else f"{new}."

        def rename(name: str) -> str:
            if name == old:
                return new
            return put + name.removeprefix(prefix) if name.startswith(prefix) else name

        return rename
    pattern = re.compile("(.*?)".join(map(re.escape, old.split("*"))), re.DOTALL)
    parts = new.split("*")

    def substitute(name: str) -> str:
        found = pattern.fullmatch(name)
        if found is None:
            return name
        return parts[0] + "".join(a + b for a, b in zip(found.groups(), parts[1:], strict=True))

    return substitute


def state_name(draft: Draft, optimizer: Optimizer, slot: Slot, field: str) -> str:
    """What `inspect --tensors` calls a state tensor."""
    several = len(draft.checkpoint.optimizers) > 1
    return f"{optimizer.label}." * several + f"state.{slot.label}.{field}"


def weight_names(draft: Draft) -> Iterator[str]:
    """The names of all weights and of all parameters that have one; some come twice."""
    for weights in draft.weights:
        yield from (weight.name for weight in weights.weights)
    for optimizer in draft.checkpoint.optimizers:
        yield from parameters.names(optimizer).values()


def all_names(draft: Draft) -> Iterator[str]:
    """The same, and the names of state tensors."""
    yield from weight_names(draft)
    for optimizer in draft.checkpoint.optimizers:
        for slot in optimizer.slots.values():
            yield from (state_name(draft, optimizer, slot, name) for name, _ in slot.tensors())


def nothing(pattern: str, names: Iterable[str]) -> EditError:
    """The error for a pattern that nothing fits, with names that come near it."""
    examples = {template(name): name for name in names}
    near = get_close_matches(pattern, examples.values(), _NEAR, _CUTOFF)
    near = near or list(examples.values())[:_NEAR]
    hint = f"; there is {', '.join(near)}" if near else "; the file has no tensors"
    return EditError(f"nothing is called '{pattern}'{hint}")
