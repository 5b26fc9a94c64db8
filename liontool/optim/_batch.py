"""What takes part in a step: per parameter group, one piece for each parameter with a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, TypeAlias

import torch
from torch import Tensor

from liontool.optim import _sharding, reference, rounding

Group = dict[str, Any]
Tensors: TypeAlias = list[Tensor] | tuple[Tensor, ...]


@dataclass
class Piece:
    """One parameter's part in a step. Tensors are local shards, complex ones pairs of reals.

    Attributes:
        param: The parameter as its user holds it.
        ordinal: Its place among all parameters of the optimizer.
        weight: Its elements; written at the end of the step.
        grad: Its gradient, never written, or the sum of several.
        exp_avg: Its momentum.
        residual: What its bfloat16 elements lack of float32, or None.
        accumulator: Sum of the gradients of earlier micro-steps, or None.
        transforms: What makes of its gradient the direction to go up, in order. Applied where it is
            used, so that no step holds a copy of all gradients.
        size: What its update is multiplied by, in float64.
        vanished: Updates that left their element as it was, and all updates, if that was counted.
    """

    param: Tensor
    ordinal: int
    weight: Tensor
    grad: Tensor
    exp_avg: Tensor
    residual: Tensor | None
    accumulator: Tensor | None
    transforms: list[Callable[[Tensor], Tensor]] = field(default_factory=list)
    size: reference.StepSize = 0.0
    vanished: Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that it is computed in."""
        return torch.float64 if self.weight.dtype == torch.float64 else torch.float32

    @property
    def numel(self) -> int:
        """Elements of the whole parameter, over all shards."""
        return self.param.numel() * (2 if self.param.is_complex() else 1)

    def parts(self, size: int) -> list[Piece]:
        """The same in stretches of memory of at most `size` elements, where it is one stretch."""
        tensors = (self.weight, self.grad, self.exp_avg, self.residual)
        if self.weight.numel() <= size:
            return [self]
        if not all(tensor is None or tensor.is_contiguous() for tensor in tensors):
            return [self]
        cut = [
            repeat(None) if tensor is None else torch.split(tensor.view(-1), size)
            for tensor in tensors
        ]
        return [
            replace(self, weight=weight, grad=grad, exp_avg=exp_avg, residual=residual)
            for weight, grad, exp_avg, residual in zip(*cut, strict=False)
        ]

    def wide_weight(self) -> Tensor:
        """The weights in the dtype that is computed in."""
        return wide_weight(self.weight, self.residual)

    def direction(self) -> Tensor:
        """The direction to go up, in the dtype that is computed in."""
        direction = self.grad.to(self.dtype)
        for transform in self.transforms:
            direction = transform(direction)
        return direction

    def wide_exp_avg(self) -> Tensor:
        """The momentum in the dtype that is computed in."""
        return self.exp_avg.to(self.dtype)


@dataclass
class Average:
    """A parameter whose running average is kept.

    Attributes:
        param: As in `Piece`.
        weight: As in `Piece`.
        residual: As in `Piece`.
        ema: The average, in the dtype that is computed in.
    """

    param: Tensor
    weight: Tensor
    residual: Tensor | None
    ema: Tensor

    def write(self, new: Tensor, stay: bool | Tensor = False) -> None:
        """Write the weights, where a flag does not hold them back."""
        write(self.weight, self.residual, new, stay)
        tell_autograd(self.param)

    def restore(self, weight: Tensor, residual: Tensor | None) -> None:
        """Put back the bits of weights and residual."""
        self.weight.copy_(weight)
        if self.residual is not None and residual is not None:
            self.residual.copy_(residual)
        tell_autograd(self.param)


@dataclass
class Batch:
    """The pieces of a parameter group.

    Attributes:
        group: The parameter group.
        pieces: One for each parameter with a gradient.
        averages: One for each parameter, with a gradient or without, if they are averaged.
    """

    group: Group
    pieces: list[Piece]
    averages: list[Average]


def wide_weight(weight: Tensor, residual: Tensor | None) -> Tensor:
    """Weights in the dtype that is computed in, the bits that bfloat16 has no room for included."""
    return reference.widened(weight) if residual is None else rounding.combined(weight, residual)


def reals(tensor: Tensor) -> Tensor:
    """The local shard of a tensor in its own memory, complex as pairs of reals."""
    shard = _sharding.local(tensor)
    return torch.view_as_real(shard.resolve_conj()) if shard.is_complex() else shard


def real_gradient(param: Tensor) -> Tensor:
    """The local shard of the gradient, laid out as the parameter's."""
    grad = param.grad
    if grad is None:
        raise LookupError("the parameter has no gradient")
    return reals(_sharding.like_param(grad, param))


def every_piece(batches: list[Batch]) -> list[Piece]:
    """The pieces of all groups, in order."""
    return [piece for batch in batches for piece in batch.pieces]


def keep(old: Tensor, new: Tensor, stay: bool | Tensor) -> Tensor:
    """`new`, or `old` where `stay` says so: a flag on a device decides without being read."""
    if isinstance(stay, Tensor):
        return torch.where(stay.to(old.device), old, new.to(old.dtype))
    return old if stay else new


def write(weight: Tensor, residual: Tensor | None, new: Tensor, stay: bool | Tensor) -> None:
    """Write weights, and what bfloat16 has no room for into the residual, unless they stay."""
    if residual is not None:
        new, lo = rounding.split(new)
        residual.copy_(keep(residual, lo, stay))
    weight.copy_(keep(weight, new, stay))


def tell_autograd(param: Tensor) -> None:
    """Count a write to the local shard of a DTensor, which autograd does not see by itself."""
    if _sharding.local(param) is not param and not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(param)
