"""A checkpoint into a live optimizer: by name where both sides have names, else by position."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from liontool.checkpoint import frameworks, values
from liontool.checkpoint.document import Opaque, TensorRef, Value
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Slot
from liontool.checkpoint.plain_values import plain
from liontool.checkpoint.source import open_source
from liontool.errors import LoadError
from liontool.optim import Lion, LionSF
from liontool.states import NESTED_STATE, recognise

# A group of the file and its keys in the order of the parameters of the live group.
Placed = tuple[ParamGroup, list[int | str]]
Live = torch.optim.Optimizer

_LIKE_PARAMETER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")
_SHOWN = 5


def load_optimizer(
    path: str | PathLike[str],
    optimizer: Live,
    model: torch.nn.Module | None = None,
    *,
    framework: str | None = None,
    optimizer_path: str | None = None,
) -> None:
    """Load the optimizer state of any checkpoint that liontool reads.

    Where the file names its parameters, and the model or the optimizer does, each state goes to the
    parameter of its name (`module.` and `_orig_mod.` are overlooked) and each group to the one with
    the same members. Otherwise position decides. Learning rate, weight decay, betas and horizon are
    those of the file; options that it does not have stay as they were constructed.

    Args:
        path: A file or a folder: what `liontool convert` wrote, or what a framework did.
        optimizer: Built for the same parameters in the same groups; changed in place.
        model: The model of the optimizer, for the names of its parameters.
        framework: Whose layout it is ("plain", "hf-trainer", "lightning"); None to find out.
        optimizer_path: Which optimizer, where the checkpoint has several.

    Raises:
        LoadError: The checkpoint does not fit the optimizer; nothing was loaded.
        ReadError: The files are damaged, unfinished or unsafe.
        LayoutError: No optimizer was found.
    """
    source = open_source(path, deep=True)
    paths = () if optimizer_path is None else (optimizer_path,)
    _, checkpoint = frameworks.find(source, framework, paths)
    state_dict = state_dict_for(optimizer, _only(checkpoint.optimizers, path), model, str(path))
    source.check_unchanged()
    try:
        optimizer.load_state_dict(state_dict)
    except ValueError as error:
        raise LoadError(f"{path}: {error}") from error


def state_dict_for(
    optimizer: Live, saved: Optimizer, model: torch.nn.Module | None, where: str
) -> dict[str, Any]:
    """The state dict that `optimizer.load_state_dict` takes, made of what a file holds.

    Args:
        optimizer: The live optimizer; it is not changed.
        saved: The optimizer in the file.
        model: For the names of the parameters.
        where: The file, for messages.

    Raises:
        LoadError: They do not fit.
    """
    _check_kind(optimizer, saved, where)
    names = _names_in_file(saved)
    live_names = list(_live_names(optimizer, model))
    if names and live_names:
        placed = _ByName(saved, names, live_names, where).placed(optimizer)
    else:
        placed = _by_position(optimizer, saved, where)
    groups: list[dict[str, Any]] = []
    state: dict[int, dict[str, Any]] = {}
    index = 0
    for live, (group, keys) in zip(optimizer.param_groups, placed, strict=True):
        ids = list(range(index, index + len(keys)))
        index += len(keys)
        groups.append({**_options(optimizer, live, group.fields, where), "params": ids})
        for number, key, param in zip(ids, keys, live["params"], strict=True):
            if key in saved.slots and saved.slots[key].state:
                _check_shape(saved.slots[key], param, where)
                state[number] = _state(saved.slots[key], param, where)
    return {"state": state, "param_groups": groups}


def _only(optimizers: Sequence[Optimizer], path: str | PathLike[str]) -> Optimizer:
    if len(optimizers) == 1:
        return optimizers[0]
    labels = ", ".join(f"'{optimizer.label}'" for optimizer in optimizers)
    raise LoadError(
        f"{path}: holds {len(optimizers)} optimizers: {labels}; "
        "choose one: load_optimizer(..., optimizer_path=...)"
    )


def _check_kind(optimizer: Live, saved: Optimizer, where: str) -> None:
    """State that the optimizer would misread or miss."""
    kind = type(optimizer).__name__
    slots = [slot.state for slot in saved.slots.values() if slot.state]
    live = _family(optimizer.param_groups, ())
    found = _family([group.fields for group in saved.groups], slots)
    has_second = any("exp_avg_sq" in state for state in slots)
    if "lion" in kind.lower() and has_second and found != "Lion":  # DeepSpeed's has a dead one
        raise LoadError(
            f"{where}: holds the state of AdamW, which {kind} cannot go on from; convert it first: "
            f"liontool convert {shlex.quote(where)} --lr-ratio R"
        )
    if isinstance(optimizer, torch.optim.Adam) and any("exp_avg_sq" not in s for s in slots):
        raise LoadError(
            f"{where}: has no 'exp_avg_sq', which {kind} cannot go on without; "
            "load the checkpoint that it was converted from"
        )
    if "unknown" not in (live, found) and live != found:
        raise LoadError(
            f"{where}: holds the state of {found}, which {kind} cannot go on from; "
            f"load it into {found}"
        )


def _family(groups: Iterable[Mapping[str, Any]], states: Iterable[Collection[str]]) -> str:
    """Whose state it is; all Lions read each other's, and so do Adam and AdamW."""
    kind = recognise(groups, states).kind
    return "Lion" if kind.startswith("Lion") else "Adam" if kind == "AdamW" else kind


def _names_in_file(saved: Optimizer) -> dict[int | str, str]:
    """The name of each parameter, or nothing if one of them has none."""
    names: dict[int | str, str] = {}
    for group in saved.groups:
        names.update(zip(group.params, group.names, strict=False))
        for key in group.params:
            slot = saved.slots.get(key)
            name = slot.name if slot else None
            if name is None and isinstance(key, str):
                name = key
            if name is not None:
                names.setdefault(key, name)
    every = [key for group in saved.groups for key in group.params]
    return names if all(key in names for key in every) else {}


def _live_names(optimizer: Live, model: torch.nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    """Names and parameters; a tied parameter comes under each of its names."""
    if model is not None:
        yield from model.named_parameters(remove_duplicate=False)
    else:
        for group in optimizer.param_groups:
            yield from zip(group.get("param_names", ()), group["params"], strict=False)


def _by_position(optimizer: Live, saved: Optimizer, where: str) -> list[Placed]:
    file_sizes = [len(group.params) for group in saved.groups]
    live_sizes = [len(group["params"]) for group in optimizer.param_groups]
    if file_sizes != live_sizes:
        raise LoadError(
            f"{where}: its groups have {_numbers(file_sizes)} parameters, the optimizer's "
            f"{_numbers(live_sizes)}; build the optimizer with the groups that it was saved with"
        )
    return [(group, list(group.params)) for group in saved.groups]


class _ByName:
    """Which parameter of the file is which live one, and which group is which."""

    def __init__(
        self,
        saved: Optimizer,
        names: Mapping[int | str, str],
        live_names: Sequence[tuple[str, Tensor]],
        where: str,
    ) -> None:
        known = {_bare(name): param for name, param in live_names}
        known.update(live_names)  # a name that fits exactly goes first
        self.targets = {key: known.get(name, known.get(_bare(name))) for key, name in names.items()}
        self.groups = saved.groups
        self.names = names
        self.labels = {param: name for name, param in reversed(live_names)}
        self.where = where

    def placed(self, optimizer: Live) -> list[Placed]:
        live_groups: list[list[Tensor]] = [group["params"] for group in optimizer.param_groups]
        held = [param for params in live_groups for param in params]
        self._check_model(held)
        self._check_members(held)
        members = [{self.targets[key]: key for key in group.params} for group in self.groups]
        matches = [self._match(i, params, members) for i, params in enumerate(live_groups)]
        return [
            (self.groups[match], [members[match][param] for param in params])
            for match, params in zip(matches, live_groups, strict=True)
        ]

    def _check_model(self, held: Sequence[Tensor]) -> None:
        nameless = [param for param in held if param not in self.labels]
        if nameless:
            raise LoadError(
                f"{self.where}: the model lacks {len(nameless)} parameters of the optimizer; "
                "give the model that the optimizer was built from"
            )
        counts = Counter(param for param in self.targets.values() if param is not None)
        tied = [
            self.names[key] for key, p in self.targets.items() if p is not None and counts[p] > 1
        ]
        if tied:
            raise LoadError(
                f"{self.where}: holds {_quoted(tied)} apart, which the model ties; "
                "build the model as it was when it was saved"
            )

    def _check_members(self, held: Sequence[Tensor]) -> None:
        in_optimizer, in_file = set(held), set(self.targets.values())
        missing = [self.labels[param] for param in held if param not in in_file]
        extra = [self.names[key] for key, p in self.targets.items() if p not in in_optimizer]
        found = [f"lacks {_quoted(missing)}"] if missing else []
        found += [f"has in addition {_quoted(extra)}"] if extra else []
        if found:
            raise LoadError(
                f"{self.where}: against the optimizer it {' and '.join(found)}; "
                "build the optimizer for the parameters that it was saved with"
            )

    def _match(
        self, index: int, params: Sequence[Tensor], members: Sequence[Mapping[Tensor | None, Any]]
    ) -> int:
        """The group of the file with these members; of several empty ones that at this position."""
        same = [i for i, group in enumerate(members) if group.keys() == set(params)]
        if same:
            return index if index in same else same[0]
        labels = [self.labels[param] for param in params]
        raise LoadError(
            f"{self.where}: its groups have {_numbers(map(len, members))} parameters, and none the "
            f"{len(params)} members of the optimizer's group {index}: {_quoted(labels)}; "
            "build the optimizer with the groups that it was saved with"
        )


def _bare(name: str) -> str:
    """A parameter's name without what DDP and torch.compile put into it."""
    return re.sub(r"^(?:module\.)+", "", name.replace("_orig_mod.", ""))


def _options(optimizer: Live, live: Mapping[str, Any], saved: Fields, where: str) -> dict[str, Any]:
    """Options of a group; names stay those of the live group, whose order is the one in use."""
    fields = {
        name: _value(value, f"{where}: option {name}")
        for name, value in saved.without("param_names").items()
    }
    if isinstance(optimizer, (Lion, LionSF)):
        return fields  # it knows itself what stays as constructed
    return {**{name: value for name, value in live.items() if name != "params"}, **fields}


def _state(slot: Slot, param: Tensor, where: str) -> dict[str, Any]:
    """The state of one parameter, each tensor moved to its device before the next one is read."""
    state: dict[str, Any] = {}
    nested = slot.state.get(NESTED_STATE)
    for name, value in {**slot.state, **(nested if isinstance(nested, Mapping) else {})}.items():
        if name == NESTED_STATE:
            continue  # bitsandbytes loads what is in it from outside of it too
        state[name] = _value(value, f"{where}: parameter {slot.label}: {name}")
        # Adam's step stays where it is: on which device it has to be, torch knows.
        if isinstance(state[name], Tensor) and name != "step":
            state[name] = state[name].to(param.device)
    return state


def _check_shape(slot: Slot, param: Tensor, where: str) -> None:
    for name in _LIKE_PARAMETER:
        ref = slot.state.get(name)
        if isinstance(ref, TensorRef) and ref.shape != tuple(param.shape):
            raise LoadError(
                f"{where}: parameter {slot.label}: '{name}' has shape {ref.shape}, the parameter "
                f"{tuple(param.shape)}; build the model that it was saved with"
            )


def _value(value: Value, label: str) -> Any:
    if isinstance(value, Opaque):
        dtype = getattr(torch, value.name.removeprefix("torch."), None)
        if isinstance(dtype, torch.dtype):
            return dtype
        raise LoadError(f"{label}: is a {value.name}, only tensors and plain values can be loaded")
    return _tensor(value) if isinstance(value, TensorRef) else plain(value)


def _tensor(ref: TensorRef) -> Tensor:
    dtype = getattr(torch, ref.dtype)
    if not ref.numel:
        return torch.empty(ref.shape, dtype=dtype)
    data, end = bytearray(ref.nbytes), 0
    for block in values.byte_blocks(ref):
        start, end = end, end + len(block)
        data[start:end] = block
    return torch.frombuffer(data, dtype=dtype).reshape(ref.shape)


def _numbers(sizes: Iterable[int]) -> str:
    return " + ".join(map(str, sizes)) or "no"


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
