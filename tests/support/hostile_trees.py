"""What a training script might have saved, and worse: trees to pickle, with lies put into them.

Trees are plain Python values and `Piece`s. A Piece is written as the opcodes that it stands for, so
it can name classes, storages and sizes that do not exist; nothing here makes them either.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

TRAP = "liontool_trap"
"""A module that leaves a mark when it is imported or called; see `hostile_runs`."""


class Piece:
    """Something that is written as opcodes of its own."""

    def put(self, pickler: TreePickler) -> None:
        raise NotImplementedError


class TreePickler(pickle._Pickler):
    """Python's own pickler, with an eye for Pieces."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Piece):
            obj.put(self)
        else:
            super().save(obj, save_persistent_id)


def pickled(tree: Any, protocol: int = 2) -> bytes:
    """The pickle of a tree."""
    file = io.BytesIO()
    TreePickler(file, protocol).dump(tree)
    return file.getvalue()


@dataclass(frozen=True)
class Raw(Piece):
    """Opcodes as they are; they must leave one object on the stack to do no other harm."""

    data: bytes

    def put(self, pickler: TreePickler) -> None:
        pickler.write(self.data)


@dataclass(frozen=True)
class Global(Piece):
    """A class or function by its name, which nobody looks up."""

    module: str
    name: str

    def put(self, pickler: TreePickler) -> None:
        if pickler.proto >= 4:
            pickler.save(self.module)
            pickler.save(self.name)
            pickler.write(pickle.STACK_GLOBAL)
        else:
            pickler.write(f"c{self.module}\n{self.name}\n".encode())


@dataclass(frozen=True)
class Call(Piece):
    """A call of something by its name, in one of the ways that pickles have."""

    what: Any
    arguments: tuple[Any, ...]
    how: str = "reduce"
    state: Any = None

    def put(self, pickler: TreePickler) -> None:
        if self.how in ("obj", "inst"):
            pickler.write(pickle.MARK)
        if self.how != "inst":
            pickler.save(self.what)
        if self.how in ("obj", "inst"):
            for argument in self.arguments:
                pickler.save(argument)
        else:
            pickler.save(self.arguments)
        pickler.write(self._last())
        if self.state is not None:
            pickler.save(self.state)
            pickler.write(pickle.BUILD)

    def _last(self) -> bytes:
        if self.how == "inst":
            return f"i{self.what.module}\n{self.what.name}\n".encode()
        if self.how == "newobj_ex":
            return b"}" + pickle.NEWOBJ_EX
        return {"reduce": pickle.REDUCE, "newobj": pickle.NEWOBJ, "obj": pickle.OBJ}[self.how]


@dataclass(frozen=True)
class Tensor(Piece):
    """A tensor in a storage, true or not."""

    key: Any = "0"
    size: Any = (2, 3)
    stride: Any = (3, 1)
    offset: Any = 0
    count: Any = 6
    kind: Any = "FloatStorage"
    rebuild: str = "_rebuild_tensor_v2"
    ending: tuple[Any, ...] = ()

    def put(self, pickler: TreePickler) -> None:
        storage = ("storage", Global("torch", str(self.kind)), self.key, "cpu", self.count)
        pid = _Persistent((*storage, *self.ending))
        arguments = (pid, self.offset, self.size, self.stride, False, OrderedDict())
        if self.rebuild.endswith("v3"):
            arguments = (*arguments, Global("torch", "float32"))
        Call(Global("torch._utils", self.rebuild), arguments).put(pickler)


@dataclass(frozen=True)
class _Persistent(Piece):
    pid: Any

    def put(self, pickler: TreePickler) -> None:
        pickler.save(self.pid)
        pickler.write(pickle.BINPERSID)


class Storages:
    """Bytes by key, and the tensors that look into them."""

    def __init__(self, ending: tuple[Any, ...] = ()) -> None:
        self.data: dict[str, bytes] = {}
        self._ending = ending

    def tensor(self, *shape: int, start: float = 0.5) -> Tensor:
        key, count = str(len(self.data)), math.prod(shape)
        self.data[key] = struct.pack(f"<{count}f", *(start + i for i in range(count)))
        stride = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        return Tensor(key, shape, stride, count=count, ending=self._ending)


def adamw(storages: Storages) -> dict[str, Any]:
    """AdamW with two groups after 30 steps."""
    shapes = [(2, 3), (3,), (2,)]
    state = {
        i: {
            "step": storages.tensor(start=30.0),
            "exp_avg": storages.tensor(*shape, start=-1.0),
            "exp_avg_sq": storages.tensor(*shape),
        }
        for i, shape in enumerate(shapes)
    }
    fields = {
        "lr": 3e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False,
        "maximize": False, "foreach": None, "capturable": False, "differentiable": False,
        "fused": None, "decoupled_weight_decay": True, "initial_lr": 9e-4,
    }  # fmt: skip
    return {
        "state": state,
        "param_groups": [{**fields, "params": [0, 1]}, {**fields, "params": [2]}],
    }


def scheduler(depth: int = 1) -> dict[str, Any]:
    """SequentialLR over a cosine and a step."""
    cosine = {
        "T_max": 100, "eta_min": 1e-5, "base_lrs": [9e-4, 9e-4], "last_epoch": 30,
        "_step_count": 31, "_last_lr": [3e-4, 3e-4], "verbose": False,
    }  # fmt: skip
    step = {**cosine, "step_size": 10, "gamma": 0.5}
    del step["T_max"], step["eta_min"]
    if not depth:
        return cosine
    return {
        "_milestones": [5], "last_epoch": 30, "_last_lr": [3e-4, 3e-4],
        "_schedulers": [cosine, step],
    }  # fmt: skip


def plain(storages: Storages) -> Any:
    return adamw(storages)


def loop(storages: Storages) -> Any:
    weights = {"a": storages.tensor(2, 3), "b": storages.tensor(3)}
    return {
        "model": weights, "optimizer": adamw(storages), "scheduler": scheduler(), "epoch": 3,
    }  # fmt: skip


def lightning(storages: Storages) -> Any:
    return {
        "pytorch-lightning_version": "2.5.0", "epoch": 1, "global_step": 30,
        "state_dict": {"a": storages.tensor(2, 3)}, "optimizer_states": [adamw(storages)],
        "lr_schedulers": [scheduler()], "hyper_parameters": {"lr": 1.0}, "loops": {},
    }  # fmt: skip
