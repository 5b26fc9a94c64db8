"""From the gradients that autograd left to the direction to go up: a few eager lines.

In the order of Keras: unscale, look for what is not finite, divide by the loss scale, average over
micro-steps, clip. The user's gradients are never changed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from liontool.optim import _scalars, _sharding, reference
from liontool.optim._batch import Batch, every_piece, keep


class Gate(NamedTuple):
    """How much of a step takes effect.

    Attributes:
        skip: Nothing at all changes, because of what is not finite; None where that cannot be.
        hold: Gradients are summed up; weights and momentum stay.
    """

    skip: Tensor | None = None
    hold: bool | Tensor = False

    @property
    def stay(self) -> bool | Tensor:
        """Whether weights and momentum stay."""
        if self.skip is None:
            return self.hold
        return self.skip | self.hold


def prepare(batches: list[Batch], grad_scale: Tensor | None, found_inf: Tensor | None) -> Gate:
    """Replace the gradient of every piece by the direction to go up, wide.

    Args:
        batches: All groups of the optimizer.
        grad_scale: What GradScaler multiplied the loss by, or None.
        found_inf: Nonzero if GradScaler found gradients that are not finite, or None.
    """
    for piece in every_piece(batches):
        piece.grad = reference.widened(piece.grad).to(piece.dtype)
        if grad_scale is not None:
            inverse = grad_scale.double().reciprocal()
            piece.grad = piece.grad * reference.rounded(inverse, piece.grad)
    _raise_if_not_finite(batches)
    skip = _skip(batches, found_inf)
    for batch in batches:
        loss_scale = batch.group["loss_scale_factor"]
        if loss_scale is not None:
            for piece in batch.pieces:
                piece.grad = piece.grad / loss_scale
    gate = Gate(skip, _accumulate(batches, skip))
    if gate.hold is not True:
        _clip(batches)
        for batch in batches:
            if batch.group["maximize"]:
                for piece in batch.pieces:
                    piece.grad = -piece.grad
    return gate


def _skip(batches: list[Batch], found_inf: Tensor | None) -> Tensor | None:
    """Whether the whole step is to be skipped, on every rank; None where no group asks for it."""
    flags = [] if found_inf is None else [found_inf.reshape(()) != 0]
    watched = every_piece([batch for batch in batches if batch.group["nonfinite"] == "skip"])
    if watched:
        bad = _stacked([_is_bad(piece.grad) for piece in watched]).any()
        flags.append(_sharding.any_rank(bad, [piece.param for piece in watched]))
    return _stacked(flags).any() if flags else None


def _raise_if_not_finite(batches: list[Batch]) -> None:
    watched = [batch for batch in batches if batch.group["nonfinite"] == "raise"]
    pieces = every_piece(watched)
    if not pieces:
        return
    bad = _stacked([_is_bad(piece.grad) for piece in pieces])
    if bool(_sharding.any_rank(bad.any(), [piece.param for piece in pieces])):
        names = [_name(batch, piece.param) for batch in watched for piece in batch.pieces]
        named = [name for name, is_bad in zip(names, bad.tolist(), strict=True) if is_bad]
        found = ", ".join(named[:3]) + (", ..." if len(named) > 3 else "")
        raise RuntimeError(
            f"gradients are not finite: {len(named)} of {len(names)} parameters, "
            f"{found or 'all of them on other ranks'}; nothing was changed; "
            "nonfinite='skip' leaves such steps out"
        )


def _is_bad(grad: Tensor) -> Tensor:
    return ~grad.isfinite().all()


def _stacked(scalars: list[Tensor]) -> Tensor:
    """0-d tensors of any devices side by side on the first one's."""
    return torch.stack([scalar.to(scalars[0].device) for scalar in scalars])


def _name(batch: Batch, param: Tensor) -> str:
    place = next(i for i, each in enumerate(batch.group["params"]) if each is param)
    if "param_names" in batch.group:
        return repr(batch.group["param_names"][place])
    return f"parameter {place} of a group of {len(batch.group['params'])}"


def _accumulate(batches: list[Batch], skip: Tensor | None) -> bool | Tensor:
    """Sum up, or replace the gradients by their mean; returns whether the sum goes on."""
    group = batches[0].group
    steps = group["gradient_accumulation_steps"]
    if steps is None:
        return False
    hold: bool | Tensor = _scalars.counted(group, "micro_step") + 1 < steps
    for piece in every_piece(batches):
        if piece.accumulator is None:
            raise LookupError("the parameter has no accumulator")
        total = piece.grad + piece.accumulator
        rest = keep(total, torch.zeros_like(total), hold)
        piece.accumulator.copy_(keep(piece.accumulator, rest, False if skip is None else skip))
        piece.grad = total / steps
    return hold


def _clip(batches: list[Batch]) -> None:
    """At most one clip; norms in float64, rounded once."""
    for batch in batches:
        limit = batch.group["clipvalue"]
        if limit is not None:
            for piece in batch.pieces:
                piece.grad = piece.grad.clamp(-limit, limit)
    limits = [batch.group["clipnorm"] for batch in batches for _ in batch.pieces]
    whole = batches[0].group["global_clipnorm"]
    if whole is None and all(limit is None for limit in limits):
        return
    pieces = every_piece(batches)
    squares = [torch.linalg.vector_norm(p.grad, dtype=torch.float64) ** 2 for p in pieces]
    squares = _sharding.summed(squares, [piece.param for piece in pieces])
    if whole is not None:
        norm = _stacked(squares).sum().sqrt()
        # 0 * norm: a norm that is not finite makes every gradient NaN.
        factors = [(whole / norm.clamp(min=whole) + 0 * norm)] * len(pieces)
    else:
        factors = [
            limit / square.sqrt().clamp(min=limit) if limit is not None else None
            for limit, square in zip(limits, squares, strict=True)
        ]
    for piece, factor in zip(pieces, factors, strict=True):
        if factor is not None:
            piece.grad = piece.grad * reference.rounded(factor, piece.grad)
