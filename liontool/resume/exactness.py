"""Whether a restart repeats what the run would have done, bit for bit, and if not, why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from liontool.checkpoint.run_folder.facts import EXACT, STATE_EXACT
from liontool.errors import ResumeError
from liontool.resume.sample_seeded import is_seeded, seeded_parts


def level_of(reasons: list[str]) -> str:
    """ "exact" where there is no reason against it; else all state is exact, and no more."""
    return STATE_EXACT if reasons else EXACT


def check_loader(loader: Any, epochs: int | None) -> None:
    """Refuse what has no position that could be saved.

    Raises:
        ResumeError: torchdata is missing, or the loader cannot be resumed.
        ValueError: It is no loader; or there is none, and epochs are to be counted.
    """
    if loader is None:
        if epochs is not None:
            raise ValueError("epochs= counts passes over a loader, and there is none; give steps=")
        return
    if not isinstance(loader, _stateful_loader()):
        if isinstance(loader, DataLoader):
            raise ResumeError(
                "loader is a plain DataLoader, which cannot say where it is; change its import: "
                "from torchdata.stateful_dataloader import StatefulDataLoader as DataLoader"
            )
        raise ValueError(
            "loader must be torchdata's StatefulDataLoader, or None, "
            f"got {type(loader).__module__}.{type(loader).__qualname__}"
        )
    if loader.num_workers and not loader.in_order:
        raise ResumeError(
            "a loader with in_order=False loses its place when it is saved; take in_order=True"
        )
    if loader.persistent_workers and any(seeded_parts(loader.dataset)):
        raise ResumeError(
            "with persistent_workers=True SampleSeeded does not learn which pass it is in; "
            "take persistent_workers=False"
        )


def loader_reasons(loader: DataLoader[Any] | None) -> Iterator[str]:
    """Why the data may not repeat."""
    if loader is None:
        return
    if loader.num_workers and not is_seeded(loader.dataset):
        yield (
            "random numbers of loader workers are not saved; if the data set draws any, "
            "wrap it: SampleSeeded(dataset)"
        )
    if isinstance(loader.dataset, IterableDataset) and not _has_state(loader.dataset):
        yield (
            "the IterableDataset cannot say where it is, so it is read again from its beginning; "
            "give it state_dict and load_state_dict"
        )


def device_reasons(tensors: Iterable[Tensor]) -> Iterator[str]:
    """Why the same numbers may not be computed again; kernels for CPUs always do."""
    devices = sorted({tensor.device.type for tensor in tensors} - {"cpu"})
    if devices and not torch.are_deterministic_algorithms_enabled():
        yield (
            f"kernels on {', '.join(devices)} need not give the same bits twice; "
            "call torch.use_deterministic_algorithms(True) before the Run"
        )


def _has_state(dataset: Any) -> bool:
    return hasattr(dataset, "state_dict") and hasattr(dataset, "load_state_dict")


def _stateful_loader() -> Any:
    try:
        from torchdata.stateful_dataloader import (  # type: ignore[import-untyped]
            StatefulDataLoader,
        )
    except ImportError:
        raise ResumeError(
            "a run with a loader needs torchdata, which is not installed; "
            "run: pip install 'liontool[resume]'"
        ) from None
    return StatefulDataLoader
