"""One launch a step for all tensors of a dtype combination, from tables kept while they hold.

What moves from step to step is small: the addresses of the gradients and the numbers of the groups.
It is sent again only when it changed. Nothing waits for the device, nothing is tuned at run time.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from liontool.optim import reference
from liontool.optim.kernels import (
    triton_agreement,
    triton_lion,
    triton_norm,
    triton_table,
)
from liontool.optim.kernels.memory import laid_out, same_layout
from liontool.optim.kernels.triton_buckets import Bucket, Tables, Tile, arranged
from liontool.optim.kernels.triton_layout import (
    WIDTH,
    Entry,
    Hypers,
    reason_against,
)
from liontool.optim.kernels.triton_moving import Moving

Reduce = Callable[[Tensor], Tensor]

_HYPERS: int = triton_table.HYPERS.value
_DTYPE = operator.attrgetter("dtype")
_TENSORS = 256  # that a program takes, where a thread does a whole tensor
_PARTS = 1024  # that are summed up at once


class Plan:
    """Steps on tensors of one device, for as long as they are the same tensors.

    Example:
        plan = Plan([Entry(param, exp_avg, None, group=0)])
        plan.step([param.grad], [Hypers(lr=1e-4, weight_decay=0.1, betas=(0.9, 0.99))])
    """

    def __init__(self, entries: Sequence[Entry], *, tile: Tile = Tile()) -> None:  # noqa: B008
        """Take over the tensors; the tables are made when the gradients are known.

        Args:
            entries: At least one, each without a reason against it, see `unsupported`.
            tile: Another one only for tests.
        """
        self.adopt(entries)
        self._tile = tile
        self._device = self._entries[0].param.device
        self._groups = 1 + max(entry.group for entry in self._entries)
        in_group = [entry.group for entry in self._entries]
        whole = [entry.all_elements for entry in self._entries]
        members: list[list[int]] = [[] for _ in range(self._groups)]
        for place, group in enumerate(in_group):
            members[group].append(place)
        self._in_all = [sum(whole[place] for place in places) for places in members]
        self._in_group, self._whole = self._put(in_group), self._put(whole)
        self._members = [self._put(places) for places in members]
        self._tables: Tables | None = None
        self._arranged_for: Any = None
        self._strides: Any = None
        self._here: Any = None
        self._addresses: list[int] = []
        self._aligned: list[bool] = []
        self._misfits: list[int] = []
        self._moving = Moving(self._device, self._groups, len(self._entries))

    @property
    def captured(self) -> bool:
        """Whether a graph needs this plan for as long as it is replayed."""
        return self._moving.captured

    def adopt(self, entries: Sequence[Entry]) -> None:
        """Step on these tensors from now on; they are where the others were, and what they were.

        Args:
            entries: Empty to keep nothing alive until the next ones come.
        """
        self._entries = list(entries)
        self._params = [entry.param for entry in self._entries]
        self._changed = [tensor for entry in self._entries for tensor in entry.tensors()]

    @staticmethod
    def unsupported(
        param: Tensor,
        grad: Tensor,
        exp_avg: Tensor,
        residual: Tensor | None,
        rounding: str = "nearest",
    ) -> str | None:
        """Why a plan cannot do the step of a parameter, or None if it can."""
        return reason_against(param, grad, exp_avg, residual, rounding)

    def step(
        self,
        grads: Sequence[Tensor],
        hypers: Sequence[Hypers],
        *,
        grad_scale: Tensor | None = None,
        found_inf: Tensor | None = None,
        global_clipnorm: float | None = None,
        sum_counts: Reduce | None = None,
        sum_squares: Reduce | None = None,
    ) -> None:
        """One step on all tensors.

        Args:
            grads: One for each entry; they are not changed.
            hypers: One for each group; more than that are ignored.
            grad_scale: What the loss was multiplied by: float32, one element, on the device.
            found_inf: Nothing changes if it is not 0; the same kind of tensor.
            global_clipnorm: Limit of the norm of all gradients of the plan together.
            sum_counts: Sums int64 counts, `[tensors, 2]`, over the ranks that share each tensor.
            sum_squares: Sums squares of norms, float64, `[tensors]`, likewise.
        """
        hypers = hypers[: self._groups]
        with self._guard():
            grads = self._fitting(grads)  # keeps copies alive until all is launched
            addresses = list(map(Tensor.data_ptr, grads))
            tables = self._arrange(grads, addresses, hypers)
            self._moving.send(addresses, hypers, self._in_all, global_clipnorm, keep=tables)
            scales = {"grad_scale_ptr": grad_scale, "found_inf_ptr": found_inf}
            if global_clipnorm is not None:
                scales["clip_ptr"] = self._clip(tables, scales, sum_squares)
            else:
                scales["clip_ptr"] = None
            if any(bucket.kind.two_passes for bucket in tables.buckets):
                self._step_in_two(tables, hypers, scales, sum_counts)
            for bucket in tables.buckets:
                if not bucket.kind.two_passes:
                    self._launch(
                        triton_lion.lion,
                        bucket,
                        grads_ptr=self._moving.addresses,
                        ROUNDING=bucket.kind.rounding,
                        **scales,
                        **bucket.kind.types("param", "grad", "exp_avg"),
                    )
        torch.autograd.graph.increment_version(self._params)

    def _step_in_two(
        self,
        tables: Tables,
        hypers: Sequence[Hypers],
        scales: dict[str, Tensor | None],
        sum_counts: Reduce | None,
    ) -> None:
        """First momenta, counts and marks of the updates, then weights."""
        tensors = len(self._entries)
        buckets = [bucket for bucket in tables.buckets if bucket.kind.two_passes]
        marks = torch.empty(tables.marks // 4, dtype=torch.int8, device=self._device)
        counts = torch.zeros(tensors + self._groups, 2, dtype=torch.int64, device=self._device)
        for bucket in buckets:
            marked = bucket.kind.marked("grad", "exp_avg")
            self._launch(
                triton_agreement.mark,
                bucket,
                grads_ptr=self._moving.addresses,
                marks_ptr=_packed(marks, marked),
                counts_ptr=counts,
                CAREFUL=bucket.kind.cautious,
                SIGNED=bucket.kind.signed,
                MARKED=marked,
                **scales,
                **bucket.kind.types("grad", "exp_avg"),
            )
        if sum_counts is not None:
            counts[:tensors] = sum_counts(counts[:tensors])
        if any(hyper.together for hyper in hypers):
            counts[tensors:].index_add_(0, self._in_group, counts[:tensors])
        sizes = self._sizes(tables, counts, hypers)
        for bucket in buckets:
            marked = bucket.kind.marked("param")
            self._launch(
                triton_agreement.apply_marks,
                bucket,
                found_inf_ptr=scales["found_inf_ptr"],
                marks_ptr=_packed(marks, marked),
                sizes_ptr=sizes,
                ROUNDING=bucket.kind.rounding,
                MARKED=marked,
                **bucket.kind.types("param"),
            )

    def _sizes(self, tables: Tables, counts: Tensor, hypers: Sequence[Hypers]) -> Tensor:
        """What the updates of each tensor are multiplied by, float32."""
        tensors = len(self._entries)
        sizes = torch.empty(tensors, dtype=torch.float32, device=self._device)
        triton_agreement.sizes_of[(-(-tensors // _TENSORS),)](
            tables.rows,
            self._moving.hypers,
            counts,
            sizes,
            tensors,
            BLOCK=_TENSORS,
            num_warps=4,
            enable_fp_fusion=False,
        )
        for group, hyper in enumerate(hypers):
            if hyper.agreement is not None and hyper.pow != 1:
                places = self._members[group]
                sizes[places] = self._powered(counts, group, hyper).float()
        return sizes

    def _powered(self, counts: Tensor, group: int, hyper: Hypers) -> Tensor:
        """The sizes of a group, float64, for which torch has the power of the scale."""
        places = self._members[group]
        agreeing, given = counts[places].unbind(-1)
        whole = self._whole[places]
        all_agreeing, all_given, all_in = agreeing, given, whole
        if hyper.together:
            all_agreeing, all_given = counts[len(self._entries) + group].unbind()
            all_in = whole.sum()
        scale = reference.agreement_scale(
            all_agreeing, all_given if hyper.signed else all_in, pow=hyper.pow, signed=hyper.signed
        )
        size = self._moving.hypers[group * _HYPERS + triton_table.LR.value] * scale
        if hyper.cautious:
            size = size * (1 / reference.share(agreeing, whole).clamp(min=1e-5))
        return size.expand(len(places))

    def _clip(
        self, tables: Tables, scales: dict[str, Tensor | None], sum_squares: Reduce | None
    ) -> Tensor:
        """What the gradients are multiplied by, float64: sums of chunks, of tensors, of all."""
        tensors = len(self._entries)
        parts = torch.empty(tables.records, dtype=torch.float64, device=self._device)
        squares = torch.empty(tensors, dtype=torch.float64, device=self._device)
        clip = torch.empty(1, dtype=torch.float64, device=self._device)
        for bucket in tables.buckets:
            self._launch(
                triton_norm.squares_of_chunks,
                bucket,
                grads_ptr=self._moving.addresses,
                squares_ptr=parts[bucket.place :],
                **scales,
                **bucket.kind.types("grad"),
            )
        fixed = {"num_warps": 4, "enable_fp_fusion": False}
        triton_norm.squares_of_tensors[(tensors,)](
            tables.rows, parts, squares, BLOCK=_PARTS, **fixed
        )
        if sum_squares is not None:
            squares = sum_squares(squares)
        triton_norm.clip_of[(1,)](squares, tensors, self._moving.limit, clip, BLOCK=_PARTS, **fixed)
        return clip

    def _launch(self, kernel: Any, bucket: Bucket, **arguments: Any) -> None:
        """One program for each chunk of a bucket."""
        tables = self._tables
        assert tables is not None
        kernel[(len(bucket.records),)](
            records_ptr=bucket.records,
            rows_ptr=tables.rows,
            hypers_ptr=self._moving.hypers,
            CHUNK=self._tile.chunk,
            BLOCK=self._tile.block,
            num_warps=self._tile.warps,
            enable_fp_fusion=False,
            **arguments,
        )

    def _fitting(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, those copied that lie in memory in another way than their weights."""
        strides = list(map(Tensor.stride, grads))
        here = list(map(Tensor.data_ptr, self._changed))
        if strides != self._strides or here != self._here:
            pairs = enumerate(zip(grads, self._params, strict=True))
            self._misfits = [place for place, pair in pairs if not same_layout(*pair)]
            self._strides, self._here, self._tables = strides, here, None
        result = list(grads)
        for place in self._misfits:
            result[place] = laid_out(grads[place], self._params[place])
        return result

    def _arrange(
        self, grads: list[Tensor], addresses: list[int], hypers: Sequence[Hypers]
    ) -> Tables:
        """The tables; made anew if tensors have moved, or need other kernels."""
        dtypes = list(map(_DTYPE, grads))
        if addresses != self._addresses:
            self._addresses = addresses
            self._aligned = [address % WIDTH == 0 for address in addresses]
        aligned = self._aligned
        options = [(h.rounding, h.seed, h.cautious, h.agreement) for h in hypers]
        if self._tables is None or self._arranged_for != (dtypes, aligned, options):
            for entry, grad in zip(self._entries, grads, strict=True):
                self._check(entry, grad, hypers[entry.group].rounding)
            self._tables = arranged(self._entries, dtypes, aligned, hypers, self._tile.chunk)
            self._arranged_for = (dtypes, aligned, options)
        return self._tables

    def _check(self, entry: Entry, grad: Tensor, rounding: str) -> None:
        reason = reason_against(entry.param, grad, entry.exp_avg, entry.residual, rounding)
        if reason is not None:
            raise RuntimeError(f"the Triton kernels cannot do this step: {reason}")

    def _put(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self._device)

    def _guard(self) -> AbstractContextManager[Any]:
        """Triton launches on the current device, whatever the tensors are on."""
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()


def _packed(marks: Tensor, marked: int) -> Tensor:
    """The scratch of marks as elements that hold so many of them."""
    return marks if marked == 4 else marks.view(torch.int16)
