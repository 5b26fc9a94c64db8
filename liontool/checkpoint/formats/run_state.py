"""The state of a run: a tagged tree in JSON, and beside it the tensors that the tree names.

{"liontool.state": 1, "tensors": "state-0.safetensors", "tree": <see tagged_tree>}

The two files are one document: a value is where the tree has it, also where it is a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from liontool.checkpoint import tagged_tree
from liontool.checkpoint.copying import Literal, Piece, Raw
from liontool.checkpoint.document import Edit, Span, TensorRef, Value
from liontool.checkpoint.formats import safetensors_file
from liontool.checkpoint.formats.run_state_leaves import Changes, Leaves, Names
from liontool.checkpoint.formats.safetensors_file import SafetensorsDocument
from liontool.checkpoint.run_folder import bounded_json
from liontool.checkpoint.run_folder.bounded_json import encoded
from liontool.checkpoint.run_folder.facts import read_object
from liontool.checkpoint.run_folder.layout import STATE, tree_of
from liontool.checkpoint.tagged_edit import edited
from liontool.errors import FormatError, UnsafePathError

_KEYS = {STATE, "tensors", "tree"}


class RunStateDocument:
    """The state that one process of a run saved, as one tree.

    Args:
        path: The JSON.
        name: Its path below the source.

    Attributes:
        tree: "model", "optimizer" and whatever else the run had; see `docs/resume.md`.
        facts: The metadata of the file of tensors.
        notices: What a reader of that file should be told.
    """

    container = "run state"

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._state = read_object(path, STATE)
        beside = _tensors_name(path, self._state)
        bounded_json.check_file(path.with_name(beside))
        self._body = SafetensorsDocument(path.with_name(beside), _beside(name, beside))
        self._leaves = Leaves(self._body.tree, beside)
        self.tree: Value = tagged_tree.decode(self._state["tree"], self._leaves, str(path))
        if not isinstance(self.tree, dict):
            raise FormatError(f"{path}: the tree must be an object with the parts of the state")
        self.facts = self._body.facts
        self.overhead = path.stat().st_size + self._body.overhead
        self.notices = self._body.notices

    def parts(self) -> list[str]:
        """The file of tensors."""
        return [self._body.name]

    def rewritten_files(
        self, edits: Sequence[Edit], *, scan: frozenset[TensorRef]
    ) -> dict[str, list[Piece]]:
        """Both files with `edits` of the tree; tensors that it names no more are left out."""
        changes = Changes(self._leaves, self.tree)
        tree = edited(self._state["tree"], edits, changes)
        kept = Names()
        tagged_tree.decode(tree, kept)
        text = encoded({**self._state, "tree": tree}, self.name)
        tensors = {name: changes.tensors[name] for name in kept.names}
        return {
            self.name: [Literal(text)],
            self._body.name: self._tensor_pieces(tensors, scan),
        }

    def _tensor_pieces(
        self, tensors: Mapping[str, TensorRef], scan: frozenset[TensorRef]
    ) -> list[Piece]:
        """The file of tensors, as it is where nothing in it changes."""
        if not scan and tensors == self._body.tree:
            path = self._body.path
            return [Raw(Span(path, 0, path.stat().st_size))]
        looked_at = {self._leaves.stored(tensor) for tensor in scan}
        return safetensors_file.pieces(tensors, self._body.facts, scan=looked_at)


def _tensors_name(path: Path, state: Mapping[str, Any]) -> str:
    """The name of the file of tensors, which is no choice of the JSON's."""
    if state.keys() != _KEYS:
        raise FormatError(f"{path}: must have {', '.join(sorted(_KEYS))} and nothing else")
    name = state["tensors"]
    if not isinstance(name, str) or tree_of(name) != path.name:
        raise UnsafePathError(f"{path}: its tensors must lie beside it, and not in {name!r:.80}")
    return name


def _beside(name: str, other: str) -> str:
    return str(PurePosixPath(name).with_name(other))
