"""Names as a tree, branches that differ in a number alone made one: `h.{0-11}.attn.weight`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from liontool.inspect.templates import is_index, number_ranges
from liontool.inspect.tensors import TensorEntry


@dataclass
class Branch:
    """Part of a name, and what follows it.

    Attributes:
        numbers: Those that stand at this place, if it is numbers.
        parts: What follows, by the part of the name; "{}" stands for all numbers.
        entries: The tensors that end here.
        tensors: How many tensors there are from here on.
        elements: Their elements.
        bytes: Their bytes; those that are shared count once.
    """

    numbers: set[int] = field(default_factory=set)
    parts: dict[str, Branch] = field(default_factory=dict)
    entries: list[TensorEntry] = field(default_factory=list)
    tensors: int = 0
    elements: int = 0
    bytes: int = 0

    def label(self, part: str) -> str:
        """The part of the name as it is shown."""
        return number_ranges(self.numbers) if part == "{}" else part

    def count(self, entry: TensorEntry) -> None:
        """Take a tensor in."""
        self.tensors += 1
        if entry.shares is None:
            self.elements += entry.elements
            self.bytes += entry.bytes


def tree(entries: Iterable[TensorEntry]) -> Branch:
    """The tree of all names, in the order of the first of each branch."""
    root = Branch()
    for entry in entries:
        branch = root
        branch.count(entry)
        for part in entry.name.split("."):
            key = "{}" if is_index(part) else part
            branch = branch.parts.setdefault(key, Branch())
            if key == "{}":
                branch.numbers.add(int(part))
            branch.count(entry)
        branch.entries.append(entry)
    return root
