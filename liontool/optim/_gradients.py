"""From the gradients that autograd left to the direction to go up: a few eager lines.

In the order of Keras: unscale, look for what is not finite, divide by the loss scale, average over
micro-steps, clip. The user's gradients are never changed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from liontool.optim import _scalars, _sharding, reference
from liontool.optim._batch import Batch, Piece, every_piece, keep


class Gate(NamedTuple):
    """How much of a step takes effect. A tensor is a flag on a device that nobody reads.

    Attributes:
        skip: Nothing at all changes, because of what is not finite.
        hold: Gradients are summed up; weights and momentum stay.
    """

    skip: bool | Tensor = False
    hold: bool | Tensor = False

    @property
    def stay(self) -> bool | Tensor:
        """Whether weights and momentum stay."""
        return self.skip | self.hold


def prepare(batches: list[Batch], grad_scale: Tensor | None, found_inf: Tensor | None) -> Gate:
    """Set how the gradient of every piece becomes the direction to go up.

    Args:
        batches: All groups of the optimizer.
        grad_scale: What GradScaler multiplied the loss by, or None.
        found_inf: Nonzero if GradScaler found gradients that are not finite, or None.
    """
    found = None if found_inf is None else found_inf.reshape(()) != 0
    _raise_if_not_finite(batches, found)
    if grad_scale is not None:
        inverse = grad_scale.double().reciprocal().reshape(())
        _transform(every_piece(batches), lambda grad: grad * reference.rounded(inverse, grad))
    for batch in batches:
        _divide(batch, batch.group["loss_scale_factor"])
    skip = _skip(batches, found)
    gate = Gate(skip, _accumulate(batches, skip))
    if gate.hold is not True:
        _clip(batches)
        for batch in batches:
            if batch.group["maximize"]:
                _transform(batch.pieces, torch.neg)
    return gate


def clear_sums(sums: list[Tensor], gate: Gate) -> None:
    """Forget the gradients that were summed up, once they have had their effect."""
    for total in sums:
        total.copy_(keep(total, torch.zeros_like(total), gate.stay))


def _transform(pieces: list[Piece], transform: Callable[[Tensor], Tensor]) -> None:
    for piece in pieces:
        piece.transforms.append(transform)


def _divide(batch: Batch, divisor: float | None) -> None:
    if divisor is not None:
        _transform(batch.pieces, partial(torch.mul, other=1 / divisor))


def _skip(batches: list[Batch], found_inf: Tensor | None) -> bool | Tensor:
    """Whether the whole step is to be skipped, on every rank; False where no group asks for it."""
    flags = [] if found_inf is None else [found_inf]
    watched = every_piece([batch for batch in batches if batch.group["nonfinite"] == "skip"])
    if watched:
        bad = _stacked([_is_bad(piece.grad) for piece in watched]).any()
        flags.append(_sharding.any_rank(bad, [piece.param for piece in watched]))
    return _stacked(flags).any() if flags else False


def _raise_if_not_finite(batches: list[Batch], found_inf: Tensor | None) -> None:
    """Raise on every rank; but what GradScaler has found is its to deal with."""
    watched = [batch for batch in batches if batch.group["nonfinite"] == "raise"]
    pieces = every_piece(watched)
    if not pieces:
        return
    bad = _stacked([_is_bad(piece.grad) for piece in pieces])
    anywhere = _sharding.any_rank(bad.any(), [piece.param for piece in pieces])
    if bool(anywhere if found_inf is None else anywhere & ~found_inf):
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


def _accumulate(batches: list[Batch], skip: bool | Tensor) -> bool | Tensor:
    """Sum up; the direction is the mean. Returns whether the sum goes on after this step."""
    steps: int | None = batches[0].group["gradient_accumulation_steps"]
    if steps is None:
        return False
    for piece in every_piece(batches):
        total = piece.accumulator
        if total is not None:
            total.copy_(keep(total, total + piece.direction(), skip))
            piece.grad = total
            # A CUDA device divides by a number so, and every other path must.
            piece.transforms = [partial(torch.mul, other=1 / steps)]
    return _scalars.most([batch.group for batch in batches], "micro_step") + 1 < steps


def _clip(batches: list[Batch]) -> None:
    """At most one clip in a group; norms in float64, rounded once."""
    for batch in batches:
        limit = batch.group["clipvalue"]
        if limit is not None:
            _transform(batch.pieces, partial(torch.clamp, min=-limit, max=limit))
    pieces = [
        piece
        for batch in batches
        for piece in batch.pieces
        if batch.group["clipnorm"] is not None or batch.group["global_clipnorm"] is not None
    ]
    if pieces:
        for piece, factor in zip(pieces, _factors(batches, pieces), strict=True):
            piece.transforms.append(_times(factor))


def _factors(batches: list[Batch], pieces: list[Piece]) -> list[Tensor]:
    """What each gradient is multiplied by so that no norm is over its limit."""
    norms = [torch.linalg.vector_norm(p.direction(), dtype=torch.float64) for p in pieces]
    squares = _sharding.summed([norm**2 for norm in norms], [piece.param for piece in pieces])
    limit = batches[0].group["global_clipnorm"]
    if limit is not None:
        norm = _stacked(squares).sum().sqrt()
        # 0 * norm: a norm that is not finite makes every gradient NaN.
        return [limit / norm.clamp(min=limit) + 0 * norm] * len(pieces)
    limits = [batch.group["clipnorm"] for batch in batches for _ in batch.pieces]
    return [
        own / square.sqrt().clamp(min=own)
        for own, square in zip((own for own in limits if own is not None), squares, strict=True)
    ]


def _times(factor: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda grad: grad * reference.rounded(factor, grad)
