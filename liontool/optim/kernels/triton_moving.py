"""What changes from step to step: numbers of the groups, and where the gradients are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from liontool.optim import reference
from liontool.optim.kernels import triton_hypers, triton_table
from liontool.optim.kernels.triton_layout import Hypers

_HYPERS: int = triton_table.HYPERS.value


class Moving:
    """A table on the device, sent again only when it changed.

    Attributes:
        hypers: Numbers of the groups, see `triton_table`; float64.
        limit: Of the norm of all gradients; float64.
        addresses: Of the gradients; int64.
    """

    def __init__(self, device: torch.device, groups: int, tensors: int) -> None:
        """Make the table, and the memory that the first change is sent from."""
        self._head = groups * _HYPERS + 2  # even, so that the addresses are aligned
        self._groups = groups
        self._table = torch.empty(self._head + tensors, dtype=torch.int64, device=device)
        self.hypers = self._table[: self._head].view(torch.float64)
        self.limit = self.hypers[self._head - 2 :]
        self.addresses = self._table[self._head :]
        self._sent: tuple[Any, ...] | None = None
        self._staging: Tensor | None = self._new_staging()
        self._captured: list[Any] = []

    @property
    def captured(self) -> bool:
        """Whether a graph sends the table again whenever it is replayed."""
        return bool(self._captured)

    def send(
        self,
        addresses: list[int],
        hypers: Sequence[Hypers],
        in_all: Sequence[int],
        limit: float | None,
        keep: Any,
    ) -> None:
        """Bring the table up to date; what only the device knows is read there.

        Args:
            addresses: Of the gradients.
            hypers: Of the groups.
            in_all: Elements of each group.
            limit: Of the norm of all gradients, if they are clipped.
            keep: What a captured graph needs beside this.
        """
        device = self._table.device
        hypers = [_reachable(hyper, device) for hyper in hypers]
        rows = [_row(hyper, elements) for hyper, elements in zip(hypers, in_all, strict=True)]
        found = (addresses, rows, limit)
        capturing = device.type == "cuda" and torch.cuda.is_current_stream_capturing()
        # A replay sends what its capture saw: after a capture nobody knows what the device has.
        if capturing or self.captured or found != self._sent:
            staging = self._ready_staging(capturing)
            self._fill(staging.numpy(), *found)
            self._table.copy_(staging, non_blocking=True)
            self._sent = found
            if capturing:  # the graph copies from this memory again and again
                self._captured.append((staging, keep))
            else:
                self._staging = self._new_staging()
        if any(hyper.on_device for hyper in hypers):
            triton_hypers.read_hypers[(self._groups,)](
                self.hypers, num_warps=1, enable_fp_fusion=False
            )

    def _ready_staging(self, capturing: bool) -> Tensor:
        """Memory from which nothing is being copied; a capture must not allocate any."""
        staging, self._staging = self._staging, None
        if staging is not None:
            return staging
        if capturing:
            raise RuntimeError("between two captures of a step there must be one without a capture")
        return self._new_staging()

    def _fill(
        self,
        words: Any,
        addresses: list[int],
        rows: list[tuple[list[float], list[int]]],
        limit: float | None,
    ) -> None:
        """Write the table as 64-bit words."""
        floats = words[: self._head].view(np.float64)
        for group, (numbers, pointers) in enumerate(rows):
            start, end = group * _HYPERS, (group + 1) * _HYPERS
            floats[start : end - len(pointers)] = numbers
            words[end - len(pointers) : end] = pointers
        floats[self._head - 2 :] = 0.0 if limit is None else limit
        words[self._head :] = addresses

    def _new_staging(self) -> Tensor:
        # torch keeps pinned memory from being used again until copies from it are done.
        pinned = self._table.device.type == "cuda"
        return torch.empty(self._table.shape, dtype=torch.int64, pin_memory=pinned)


def _reachable(hyper: Hypers, device: torch.device) -> Hypers:
    """The same with tensors only on the device, and of a dtype that the kernel reads."""
    lr, step = hyper.lr, hyper.step
    if isinstance(lr, Tensor):
        if lr.device != device:
            hyper = hyper._replace(lr=float(lr))
        elif lr.dtype not in (torch.float32, torch.float64):
            hyper = hyper._replace(lr=lr.double())
    if isinstance(step, Tensor) and step.device != device:
        hyper = hyper._replace(step=int(step))
    return hyper


def _row(hyper: Hypers, in_all: int) -> tuple[list[float], list[int]]:
    """Numbers of a group, 0 where only the device knows them, and addresses of those."""
    lr, step = hyper.lr, hyper.step
    pointers = [each.data_ptr() if isinstance(each, Tensor) else 0 for each in (lr, step)]
    lr64 = isinstance(lr, Tensor) and lr.dtype == torch.float64
    known_lr = 0.0 if isinstance(lr, Tensor) else lr
    number = 1 if isinstance(step, Tensor) else step + 1
    beta1, limit = hyper.betas
    beta2 = reference.momentum_beta(limit, hyper.horizon, number)
    factors = reference.coefficients(known_lr, hyper.weight_decay, (beta1, beta2))
    numbers = {
        triton_table.LR: known_lr,
        triton_table.DECAY: factors.decay,
        triton_table.BETA1: factors.beta1,
        triton_table.GRADIENT1: factors.gradient1,
        triton_table.BETA2: factors.beta2,
        triton_table.GRADIENT2: factors.gradient2,
        triton_table.SIGN: -1 if hyper.maximize else 1,
        triton_table.STEP: number,
        triton_table.AGREEMENT: 0 if hyper.agreement is None else 2 if hyper.signed else 1,
        triton_table.TOGETHER: hyper.together,
        triton_table.CAUTIOUS: hyper.cautious,
        triton_table.IN_ALL: in_all,
        triton_table.WEIGHT_DECAY: hyper.weight_decay,
        triton_table.HORIZON: -1 if hyper.horizon is None else hyper.horizon,
        triton_table.LIMIT: limit,
        triton_table.LR_WIDE: lr64,
    }
    row = [0.0] * (_HYPERS - len(pointers))
    for column, value in numbers.items():
        row[column.value] = float(value)
    return row, pointers
