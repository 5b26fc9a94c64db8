"""A source whose documents are plain Python values: what lenses see, without a file format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liontool.checkpoint.document import Opaque, Span, Storage, Stored, TensorRef
from liontool.errors import ReadError


@dataclass
class FakeDocument:
    tree: Any
    name: str = ""
    container: str = "torch zip"
    path: Path = Path("run.pt")
    facts: Mapping[str, str] = field(default_factory=dict)
    overhead: int = 0


class FakeSource:
    """One tree for a file, a mapping of trees by name for a folder."""

    def __init__(self, tree: Any = None, *, files: Mapping[str, Any] | None = None, path="run.pt"):
        self.path = Path(path)
        self.is_folder = files is not None
        self.commit = None
        self.is_of_run = False
        trees = {"": tree} if files is None else files
        self._documents = {
            name: FakeDocument(value, name, path=self.path / name) for name, value in trees.items()
        }

    def listing(self) -> tuple[str, ...]:
        return tuple(sorted(self._documents)) if self.is_folder else ()

    names = listing

    def modified(self, name: str = "") -> int:
        return self.listing().index(name)

    def document(self, name: str = "") -> FakeDocument:
        document = self._documents[name]
        if isinstance(document.tree, ReadError):
            raise document.tree
        return document


def tensor(*shape: int, dtype: str = "float32") -> TensorRef:
    """A tensor that no test reads."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    storage = Storage(Span(Path("none"), 0, 0))
    return TensorRef(dtype, shape, Stored(storage, tuple(strides[: len(shape)])))


def adamw(
    *, shapes: tuple[tuple[int, ...], ...] = ((3, 4), (4,)), groups: int = 1, **fields: Any
) -> dict[str, Any]:
    """What `torch.optim.AdamW(...).state_dict()` gives, shapes dealt out to the groups."""
    state = {
        index: {"step": 12.0, "exp_avg": tensor(*shape), "exp_avg_sq": tensor(*shape)}
        for index, shape in enumerate(shapes)
    }
    defaults = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1, **fields}
    members = [list(range(len(shapes)))[index::groups] for index in range(groups)]
    return {"state": state, "param_groups": [{**defaults, "params": ids} for ids in members]}


def cosine(*rates: float, last: tuple[float, ...] = ()) -> dict[str, Any]:
    """What `CosineAnnealingLR.state_dict()` gives."""
    return {
        "T_max": 15,
        "eta_min": 1e-5,
        "base_lrs": list(rates),
        "last_epoch": 12,
        "_step_count": 13,
        "_last_lr": list(last or rates),
    }


def opaque(name: str, state: Any = None, arguments: tuple[Any, ...] = ()) -> Opaque:
    return Opaque(name, arguments, {} if state is None else state)
