"""The random numbers of a run: Python's, NumPy's, torch's, CUDA's, and those its loader owns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from liontool.errors import ResumeError

_DEPTH = 5
_ELEMENTS = 64
_LOADER = ("generator", "dataset", "sampler", "batch_sampler", "collate_fn")
_CUDA = "cuda"
_OBJECTS = 10_000
_CLOSED = (Tensor, np.ndarray, str, bytes, int, float, type, ModuleType, type(None))
_OF_MODULES = frozenset(vars(torch.nn.Module()))


class Generators:
    """Every generator that a run draws from.

    Args:
        loader: Its samplers, data set and collate function are searched for generators of their
            own.
    """

    def __init__(self, loader: DataLoader[Any] | None) -> None:
        self._own = dict(_own_generators(loader)) if loader is not None else {}

    def state(self) -> dict[str, Any]:
        """The state of them all."""
        state: dict[str, Any] = {
            **self.common(),
            "loader": {path: _state(generator) for path, generator in self._own.items()},
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            state[_CUDA] = torch.cuda.get_rng_state_all()
        return state

    def common(self) -> dict[str, Any]:
        """The state of those that the whole program draws from."""
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(legacy=False),
            "torch": torch.get_rng_state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Set them all, but for `unknown` ones.

        Raises:
            ResumeError: One does not take what the state says.
        """
        try:
            self._load(state)
        except Exception as error:
            raise ResumeError(
                f"generators cannot be set as the checkpoint says: {type(error).__name__}: "
                f"{error!s:.200}; resume with the versions that it was made with"
            ) from error

    def _load(self, state: Mapping[str, Any]) -> None:
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        torch.set_rng_state(state["torch"])
        own = state["loader"]
        for path in own.keys() & self._own.keys():
            _load(self._own[path], own[path])
        for device, saved in enumerate(state.get(_CUDA, [])[: _cuda_count()]):
            torch.cuda.set_rng_state(saved, device)

    def unknown(self, state: Mapping[str, Any]) -> list[str]:
        """Those that only the state has, and those that only the run has."""
        devices = range(_cuda_count(), len(state.get(_CUDA, [])))
        own = sorted(state["loader"].keys() ^ self._own.keys())
        return [*own, *(f"{_CUDA}:{device}" for device in devices)]


def _cuda_count() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _own_generators(loader: DataLoader[Any]) -> Iterator[tuple[str, Any]]:
    """Path and generator, each one once."""
    seen: dict[int, Any] = {}  # the objects too, so that no other one gets the id
    for name in _LOADER:
        yield from _found(name, getattr(loader, name, None), seen, _DEPTH)


def _found(path: str, value: Any, seen: dict[int, Any], depth: int) -> Iterator[tuple[str, Any]]:
    is_known = id(value) in seen or len(seen) >= _OBJECTS
    if is_known or depth == 0 or isinstance(value, _CLOSED):
        return
    seen[id(value)] = value
    if _kind(value) is not None:
        yield path, value
        return
    for name, item in _inside(value):
        yield from _found(f"{path}.{name}", item, seen, depth - 1)


def _inside(value: Any) -> Iterator[tuple[Any, Any]]:
    """What an object holds, by name."""
    if isinstance(value, dict):  # any other mapping may read files
        yield from islice(value.items(), _ELEMENTS)
    elif isinstance(value, (list, tuple)):
        yield from islice(enumerate(value), _ELEMENTS)
    elif isinstance(value, FunctionType):
        yield from zip(
            value.__code__.co_freevars, map(_content, value.__closure__ or ()), strict=True
        )
    elif isinstance(value, MethodType):
        yield "__self__", value.__self__
    else:
        if isinstance(value, partial):
            yield from {"func": value.func, "args": value.args, **value.keywords}.items()
        if isinstance(value, torch.nn.Module):
            yield from value.named_children()
        own = getattr(value, "__dict__", {})
        yield from ((name, item) for name, item in own.items() if name not in _OF_MODULES)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet set
        return None


_Access = tuple[Callable[[Any], Any], Callable[[Any, Any], None]]


def _set_bits(generator: np.random.Generator, state: Any) -> None:
    generator.bit_generator.state = state


_KINDS: tuple[tuple[type, Any], ...] = (
    (torch.Generator, (torch.Generator.get_state, torch.Generator.set_state)),
    (random.Random, (random.Random.getstate, random.Random.setstate)),
    (np.random.Generator, (lambda generator: generator.bit_generator.state, _set_bits)),
    (
        np.random.RandomState,
        (lambda generator: generator.get_state(legacy=False), np.random.RandomState.set_state),
    ),
)


def _kind(value: Any) -> _Access | None:
    """How to read and set a generator; None for what is no generator."""
    found: Iterator[_Access] = (access for kind, access in _KINDS if isinstance(value, kind))
    return next(found, None) if not isinstance(value, random.SystemRandom) else None


def _state(generator: Any) -> Any:
    access = _kind(generator)
    assert access is not None
    return access[0](generator)


def _load(generator: Any, state: Any) -> None:
    access = _kind(generator)
    assert access is not None
    access[1](generator, state)
