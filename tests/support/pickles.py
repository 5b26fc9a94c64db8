"""Pickles for tests: how torch.save makes them, and trees of them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import torch

from liontool.checkpoint.document import Span, Storage, Value
from liontool.checkpoint.formats.pickle_parse import parse
from liontool.checkpoint.formats.pickle_tensors import item_size
from liontool.checkpoint.formats.pickle_tree import Tree


class Storages:
    """One storage for each key, as long as its persistent id says, or as long as told."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.made: dict[Value, Storage] = {}

    def __call__(self, pid: tuple[Value, ...]) -> Storage:
        length = self.length if self.length is not None else pid[4] * (item_size(pid) or 1)
        made = Storage(Span(Path("x"), 0, length), label=f"data/{pid[2]}")
        return self.made.setdefault(pid[2], made)


def data_of(value: object) -> bytes:
    """The pickle in the file that torch.save makes."""
    file = io.BytesIO()
    torch.save(value, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


def tree_of(data: bytes, length: int | None = None) -> Tree:
    """The tree of a pickle, with storages as long as told."""
    return Tree(parse(data, where="x")[0], Storages(length), "x.pt")
