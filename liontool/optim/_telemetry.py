"""Numbers about a step, computed where the tensors are and read by nobody until asked for."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from liontool.optim import _agreement, _scalars, _sharding, reference
from liontool.optim._agreement import Counts
from liontool.optim._batch import Batch, Piece, every_piece

METRICS = ("agreement", "scale", "skipped", "vanished")
HALVES = (torch.bfloat16, torch.float16)


class Watch:
    """Sees the pieces of some groups before and after their update.

    Args:
        batches: The groups, with gradients and step sizes.
    """

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches
        self._before = [
            (piece.wide_weight().clone(), _is_updated(piece, batch))
            for batch in batches
            for piece in batch.pieces
        ]

    def vanished(self) -> list[Tensor]:
        """For each group, the share of nonzero updates that left their weight as it was."""
        pieces = every_piece(self._batches)
        counts = [
            torch.stack([(updated & (piece.wide_weight() == before)).sum(), updated.sum()])
            for piece, (before, updated) in zip(pieces, self._before, strict=True)
        ]
        totals = iter(_sharding.summed(counts, [piece.param for piece in pieces]))
        return [_share([next(totals) for _ in batch.pieces]) for batch in self._batches]


def metrics(
    batches: list[Batch],
    counts: list[list[Counts]],
    vanished: list[Tensor],
    skip: Tensor | None,
) -> list[dict[str, Tensor]]:
    """The metrics of each group; see `LionBase.step_metrics`."""
    return [
        _of_group(batch, of_batch, gone, skip)
        for batch, of_batch, gone in zip(batches, counts, vanished, strict=True)
    ]


def may_stall(batches: list[Batch]) -> list[Batch]:
    """The groups whose weights may be too coarse for their updates, and can be looked at."""
    return [
        batch
        for batch in batches
        if batch.group["rounding"] == "nearest"
        and not batch.group["capturable"]
        and any(piece.weight.dtype in HALVES for piece in batch.pieces)
    ]


def warn_if_stalled(watch: Watch) -> None:
    """Warn if rounding took most of the updates of half-precision weights."""
    worst = max(float(share) for share in watch.vanished())
    if worst > 0.5:
        warnings.warn(
            f"{worst:.0%} of the updates of half-precision weights were rounded away: lr is too "
            "small for their dtype; for bfloat16, rounding='split' (2 bytes a weight more) or "
            "'stochastic' keeps them",
            stacklevel=6,
        )


def _is_updated(piece: Piece, batch: Batch) -> Tensor:
    factors = _scalars.coefficients(batch.group)
    direction = piece.direction()
    update = reference.mixed_sign(direction, piece.wide_exp_avg(), factors)
    return reference.step_sizes(update, direction, piece.size) * update != 0


def _share(pairs: list[Tensor]) -> Tensor:
    if not pairs:
        return torch.zeros((), dtype=torch.float64)
    part, whole = torch.stack([pair.to(pairs[0].device) for pair in pairs]).sum(0).unbind()
    return torch.where(whole == 0, 0.0, part.double() / whole.double())


def _of_group(
    batch: Batch, counts: list[Counts], vanished: Tensor, skip: Tensor | None
) -> dict[str, Tensor]:
    if not counts:
        nothing = torch.zeros((), dtype=torch.float64)
        return dict.fromkeys(METRICS, nothing)
    total = _agreement.in_all(counts)
    agreement = reference.share(total.agreeing, total.counted)
    numel = max(total.numel, 1)
    scale = torch.zeros_like(agreement)
    for each, factor in zip(counts, _agreement.scales(batch.group, counts), strict=True):
        scale = scale + factor * (each.numel / numel)
    withheld = 1 - reference.share(total.agreeing, total.numel)
    masked = withheld if batch.group["cautious_factor"] == 0 else torch.zeros_like(agreement)
    skipped = masked if skip is None else torch.where(skip, 1.0, masked)
    return dict(zip(METRICS, (agreement, scale, skipped, vanished), strict=True))
