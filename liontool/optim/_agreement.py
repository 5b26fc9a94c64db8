"""How far updates and gradients agree: LionSF's scale and caution, from counts over all shards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from liontool.optim import _scalars, _sharding, reference
from liontool.optim._batch import Batch, Group, Piece, every_piece
from liontool.optim.reference import Coefficients, StepSize


class Counts(NamedTuple):
    """Elements of a parameter, over all shards.

    Attributes:
        agreeing: Update and gradient point the same way; 0-d, int64.
        counted: All, or those with a gradient that is not zero.
        numel: All.
    """

    agreeing: Tensor
    counted: int | Tensor
    numel: int


def set_sizes(batches: list[Batch], *, always: bool) -> list[list[Counts]]:
    """Set the step size of every piece; returns the counts of each group.

    Args:
        batches: All groups of the optimizer, with gradients.
        always: Count even where no option needs it; else the result may be empty.
    """
    needed = always or any(_needs_counts(batch.group) for batch in batches)
    counts = _counts(batches) if needed else []
    for batch, of_batch in zip(batches, counts or [[] for _ in batches], strict=True):
        lr = _scalars.learning_rate(batch.group)
        for piece, scaled in zip(batch.pieces, _scaled(batch, of_batch, lr), strict=True):
            piece.size = scaled
    return counts


def _needs_counts(group: Group) -> bool:
    return "agreement" in group or group["cautious_factor"] != 1


def _counts(batches: list[Batch]) -> list[list[Counts]]:
    """Counted over everything before anything changes: one sum over the ranks for all tensors."""
    local = [_local_counts(batch) for batch in batches]
    pieces = every_piece(batches)
    flat = [pair for of_batch in local for pair in of_batch]
    totals = iter(_sharding.summed(flat, [piece.param for piece in pieces]))
    return [
        [_counts_of(piece, next(totals), batch.group) for piece in batch.pieces]
        for batch in batches
    ]


def _local_counts(batch: Batch) -> list[Tensor]:
    """Of each piece: agreeing elements, elements with a gradient."""
    factors = _scalars.coefficients(batch.group)
    signed = _is_signed(batch.group)
    return [_pair(piece, factors, signed) for piece in batch.pieces]


def _pair(piece: Piece, factors: Coefficients, signed: bool) -> Tensor:
    direction = piece.direction()
    update = reference.mixed_sign(direction, piece.wide_exp_avg(), factors)
    agreeing = reference.agreement_counts(update, direction)
    # Where all elements count, their number is known; all ranks send as much.
    return torch.stack([agreeing, (direction != 0).sum() if signed else agreeing])


def _counts_of(piece: Piece, total: Tensor, group: Group) -> Counts:
    agreeing, given = total.unbind()
    return Counts(agreeing, given if _is_signed(group) else piece.numel, piece.numel)


def _scaled(batch: Batch, counts: list[Counts], lr: reference.Scalar) -> list[StepSize]:
    group = batch.group
    if not counts:
        return [lr for _ in batch.pieces]
    sizes: list[StepSize] = [lr * scale for scale in scales(group, counts)]
    if group["cautious_factor"] == 1:
        return sizes
    return [
        tuple(size * factor for factor in _cautious(each, group))  # type: ignore[misc]
        for size, each in zip(sizes, counts, strict=True)
    ]


def scales(group: Group, counts: list[Counts]) -> list[Tensor | float]:
    """LionSF's factor of each parameter; 1 for Lion."""
    if "agreement" not in group:
        return [1.0 for _ in counts]
    signed = _is_signed(group)
    if group["agreement"].startswith("group"):
        counts = [in_all(counts)] * len(counts)
    return [
        reference.agreement_scale(each.agreeing, each.counted, pow=group["pow"], signed=signed)
        for each in counts
    ]


def in_all(counts: list[Counts]) -> Counts:
    """The counts of several parameters together."""
    device = counts[0].agreeing.device
    agreeing = torch.stack([each.agreeing.to(device) for each in counts]).sum()
    counted = [
        each.counted.to(device) if isinstance(each.counted, Tensor) else each.counted
        for each in counts
    ]
    return Counts(agreeing, sum(counted[1:], counted[0]), sum(each.numel for each in counts))


def _cautious(counts: Counts, group: Group) -> tuple[Tensor, Tensor]:
    return reference.cautious_factors(counts.agreeing, counts.numel, group["cautious_factor"])


def _is_signed(group: Group) -> bool:
    return str(group.get("agreement", "")).endswith("_signed")
