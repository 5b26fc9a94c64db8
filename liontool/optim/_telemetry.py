"""Numbers about a step, computed where the tensors are and read by nobody until asked for."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from liontool.optim import _agreement, _scalars, _sharding, reference
from liontool.optim._agreement import Counts
from liontool.optim._batch import Batch, Group, Piece, every_piece, keep

METRICS = ("agreement", "scale", "skipped", "vanished")
HALVES = (torch.bfloat16, torch.float16)
_NOT_THE_USERS = ("liontool.optim", "torch.")


@dataclass
class Look:
    """A piece before its update.

    Attributes:
        piece: The piece.
        weight: Its weights, wide.
        updated: Which of them get an update that is not 0.
    """

    piece: Piece
    weight: Tensor
    updated: Tensor

    def compare(self) -> None:
        """Count, after the update, which weights are as they were."""
        gone = self.updated & (self.piece.wide_weight() == self.weight)
        self.piece.vanished = torch.stack([gone.sum(), self.updated.sum()])


def look(piece: Piece, group: Group) -> Look:
    """See a piece before its update."""
    direction = piece.direction()
    factors = _scalars.coefficients(group)
    update = reference.mixed_sign(direction, piece.wide_exp_avg(), factors)
    updated = reference.step_sizes(update, direction, piece.size) * update != 0
    return Look(piece, piece.wide_weight().clone(), updated)


def is_coarse(weight: Tensor, group: Group) -> bool:
    """Whether weights may be too coarse for their updates."""
    return weight.dtype in HALVES and group["rounding"] == "nearest" and not group["capturable"]


def warn_if_stalled(batches: list[Batch]) -> None:
    """Warn if rounding took most of the updates that were looked at, on this rank."""
    counts = [
        piece.vanished.cpu()
        for batch in batches
        for piece in batch.pieces
        if piece.vanished is not None and is_coarse(piece.weight, batch.group)
    ]
    share = float(_share(counts))
    if share > 0.5:
        warnings.warn(
            f"{share:.0%} of the updates of half-precision weights were rounded away: lr is too "
            "small for their dtype; for bfloat16, rounding='split' (2 bytes a weight more) or "
            "'stochastic' keeps them",
            stacklevel=_depth_of_caller(),
        )


def metrics(
    batches: list[Batch], counts: list[list[Counts]], stay: bool | Tensor
) -> list[dict[str, Tensor]]:
    """The metrics of each group; see `LionBase.step_metrics`."""
    pieces = every_piece(batches)
    found = [piece.vanished for piece in pieces if piece.vanished is not None]
    totals = iter(_sharding.summed(found, [piece.param for piece in pieces]))
    return [
        _of_group(batch, of_batch, _share([next(totals) for _ in batch.pieces]), stay)
        for batch, of_batch in zip(batches, counts, strict=True)
    ]


def _depth_of_caller() -> int:
    """How far up the stack the user's own line is, past torch's and ours."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith(_NOT_THE_USERS):
        frame, depth = frame.f_back, depth + 1
    return depth


def _share(pairs: list[Tensor]) -> Tensor:
    if not pairs:
        return torch.zeros((), dtype=torch.float64)
    part, whole = torch.stack([pair.to(pairs[0].device) for pair in pairs]).sum(0).unbind()
    return torch.where(whole == 0, 0.0, part.double() / whole.double())


def _of_group(
    batch: Batch, counts: list[Counts], vanished: Tensor, stay: bool | Tensor
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
    skipped = keep(torch.ones_like(masked), masked, stay)
    vanished = keep(torch.zeros_like(vanished), vanished, stay)
    return dict(zip(METRICS, (agreement, scale, skipped, vanished), strict=True))
