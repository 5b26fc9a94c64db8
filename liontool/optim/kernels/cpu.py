"""One call of the CPU kernel for all tensors of a step: tables, addresses, checks.

A `Plan` is made once for a list of tensors and holds as long as they stay where they are. The
arithmetic is in `cpu.c`.
"""

from __future__ import annotations

import operator
import struct
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from liontool.optim.kernels import cpu_library, cpu_threads
from liontool.optim.kernels.cpu_schedule import CELL, Entry, Mode, Schedule
from liontool.optim.kernels.memory import is_dense, laid_out, same_layout, unreadable

_FLOAT32, _BFLOAT16 = torch.float32, torch.bfloat16
_ADDRESS = Tensor.data_ptr
_DTYPE = operator.attrgetter("dtype")
_NBYTES = operator.attrgetter("nbytes")
_IS_CONTIGUOUS = Tensor.is_contiguous
_STRIDE = Tensor.stride

_GROUP = struct.Struct("8d5q")  # of cpu.c


class Hypers(NamedTuple):
    """The numbers of a group for one step, in float64.

    Attributes:
        decay: Of the weight.
        size: lr; what multiplies the update, apart from agreement and caution.
        beta1: Of the momentum in the update.
        gradient1: Of the gradient in the update.
        beta2: Of the momentum in the next momentum.
        gradient2: Of the gradient in the next momentum.
        maximize: Go up the gradient.
        agreement: LionSF's, or None for Lion.
        pow: LionSF's.
        cautious_factor: What an update counts that points against its gradient; 1 is off.
        cautious_wd: Only weights decay that the update makes smaller.
    """

    decay: float
    size: float
    beta1: float
    gradient1: float
    beta2: float
    gradient2: float
    maximize: bool = False
    agreement: str | None = None
    pow: float = 1.0
    cautious_factor: float = 1.0
    cautious_wd: bool = False


class Plan:
    """The tables for steps on a list of tensors."""

    def __init__(
        self,
        entries: Sequence[Entry],
        instructions: str | None = None,
        grad_dtypes: Sequence[torch.dtype] | None = None,
    ) -> None:
        """Keep the tensors and their addresses.

        Args:
            entries: Tensors of which `unsupported` says None; there may be empty ones.
            instructions: One of `cpu_library.instruction_sets()`, or None for the best.
            grad_dtypes: That of each weight or float32; None is that of each weight.

        Raises:
            cpu_library.NoKernelError: There is no kernel.
        """
        self._kernel = cpu_library.library()
        self._set = cpu_library.INSTRUCTION_SETS.index(
            instructions or cpu_library.instruction_sets()[-1]
        )
        self._entries = list(entries)
        self._params = [entry.param for entry in entries]
        self._exp_avgs = [entry.exp_avg for entry in entries]
        self._residuals = [entry.residual for entry in entries if entry.residual is not None]
        self._written = [*self._params, *self._exp_avgs, *self._residuals]
        self._memory = _memory(self._written)
        self._empty = sum(param.numel() == 0 for param in self._params)
        self._contiguous = all(map(_IS_CONTIGUOUS, self._params))
        dtypes = [param.dtype for param in self._params]
        wanted = dtypes if grad_dtypes is None else grad_dtypes
        self._wide = [a != b for a, b in zip(dtypes, wanted, strict=True)]
        self._schedules: dict[tuple[Mode, ...], Schedule] = {}

    @staticmethod
    def unsupported(
        param: Tensor, grad: Tensor, exp_avg: Tensor, residual: Tensor | None = None
    ) -> str | None:
        """Why the kernel cannot do a step on these tensors, or None if it can.

        A gradient of another layout is no reason: a copy of it is made. Nor is one that is negated
        only when it is read, but `step` takes it resolved.
        """
        reason = cpu_library.why_none()
        if reason is not None:
            return reason
        rest = [exp_avg] if residual is None else [exp_avg, residual]
        tensors = [param, grad, *rest]
        if any(tensor.device.type != "cpu" for tensor in tensors):
            return f"the CPU kernel does not reach {param.device}"
        if any(tensor.layout != torch.strided for tensor in tensors):
            return f"the kernel does not know the layout {grad.layout}"
        for tensor in (param, grad.resolve_neg(), *rest):
            if reason := unreadable(tensor):
                return f"the kernel does not know {reason}"
        if param.dtype not in (_FLOAT32, _BFLOAT16) or grad.dtype not in (param.dtype, _FLOAT32):
            return f"the kernel does not know {param.dtype} weights with {grad.dtype} gradients"
        if exp_avg.dtype not in (_FLOAT32, _BFLOAT16):
            return f"the kernel does not know {exp_avg.dtype} momentum"
        if residual is not None and (param.dtype, residual.dtype) != (_BFLOAT16, torch.int16):
            return f"the kernel does not know {residual.dtype} residuals of {param.dtype}"
        shapes = {each.shape for each in tensors}
        if len(shapes) > 1 or not all(same_layout(each, param) for each in rest):
            return "the kernel needs weights, gradients and state of one shape and layout"
        return None if is_dense(param) else "the kernel needs weights without gaps in memory"

    def holds(self) -> bool:
        """Whether weights and state are still what they were; if not, make another plan."""
        return _memory(self._written) == self._memory

    def step(
        self, grads: Sequence[Tensor], hypers: Sequence[Hypers], threads: int | None = None
    ) -> bool:
        """Do a step on all tensors.

        Args:
            grads: One gradient for each entry, of its shape and the promised dtype, which nobody
                checks here; they are not changed.
            hypers: Of each group.
            threads: How many may work, or None for torch's number.

        Returns:
            Whether it was done; nothing was if there are gradients without memory.
        """
        schedule = self._schedule(hypers)
        grads = self._laid_out(grads)
        addresses = array("Q", map(_ADDRESS, grads))
        if addresses.count(0) != self._empty:
            return False
        groups = b"".join(map(_group_row, hypers))
        codes = schedule.codes
        self._kernel.liontool_step(
            *(_start(schedule.tensors), len(self._entries), _start(addresses)),
            *(_start(schedule.items), schedule.item_count, groups, len(hypers)),
            *(_start(schedule.cells), None if codes is None else codes.data_ptr()),
            *(self._set, cpu_threads.count() if threads is None else threads, cpu_threads.pool()),
        )
        torch.autograd.graph.increment_version(self._params)
        self._last = schedule
        return True

    def counts(self) -> list[tuple[int, int]]:
        """Of each entry in the last step: agreeing elements, elements with a gradient.

        0 where no option needed them; the second only with a signed agreement.
        """
        cells = self._last.cells[: CELL * len(self._entries)]
        return list(zip(cells[3::CELL], cells[4::CELL], strict=True))

    def _laid_out(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """Gradients laid out as the weights, copied where they are not."""
        if self._contiguous and all(map(_IS_CONTIGUOUS, grads)):
            return grads
        return [
            grad if same_layout(grad, param) else laid_out(grad, param)
            for grad, param in zip(grads, self._params, strict=True)
        ]

    def _schedule(self, hypers: Sequence[Hypers]) -> Schedule:
        modes = tuple(map(_mode, hypers))
        if modes not in self._schedules:
            self._schedules = {modes: Schedule(self._entries, modes, self._wide)}
        return self._schedules[modes]


def _mode(hypers: Hypers) -> Mode:
    cautious = hypers.cautious_factor != 1
    together = hypers.agreement is not None and hypers.agreement.startswith("group")
    return Mode(cautious or hypers.agreement is not None, together, cautious)


def _group_row(hypers: Hypers) -> bytes:
    mode = _mode(hypers)
    agreement = 0 if hypers.agreement is None else 1 + hypers.agreement.endswith("_signed")
    return _GROUP.pack(
        *(hypers.decay, hypers.beta1, hypers.gradient1, hypers.beta2, hypers.gradient2),
        *(hypers.size, hypers.pow, hypers.cautious_factor),
        *(hypers.maximize, agreement, mode.together, mode.cautious, hypers.cautious_wd),
    )


def _memory(tensors: Sequence[Tensor]) -> tuple[object, ...]:
    """Where tensors lie, and what can change of them at the same place."""
    layouts = all(map(_IS_CONTIGUOUS, tensors)) or list(map(_STRIDE, tensors))
    kinds = (list(map(kind, tensors)) for kind in (_ADDRESS, _NBYTES, _DTYPE))
    return (*kinds, layouts)


def _start(numbers: array[int]) -> int:
    return numbers.buffer_info()[0]
