"""A step on a CPU without a kernel, in blocks that its cache holds.

The operations are those of `reference.updated`, the momentum's before the weights', each on all
tensors of a block side by side, in three buffers. The next block uses the buffers again, so the
memory that a step takes does not grow with the model. A part of a large tensor is a block of its
own, read and written where it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from liontool.optim import _paths, reference
from liontool.optim._batch import Group, Piece, Tensors
from liontool.optim._writing import write_exp_avgs, write_weights
from liontool.optim.reference import Coefficients


class Blocks:
    """The blocks of a parameter group."""

    def __init__(self, group: Group, factors: Coefficients, stay: bool | Tensor) -> None:
        """Nothing is done yet.

        Args:
            group: The parameter group.
            factors: The coefficients of the step.
            stay: A flag on a device that holds everything back, or False.
        """
        self._group, self._factors, self._stay = group, factors, stay
        self._memory: dict[torch.dtype, Tensor] = {}

    def update(self, pieces: list[Piece]) -> None:
        """Do the step on the weights and momenta of one block, all of one dtype."""
        first, second, third = self._buffers(pieces)
        a, b = first.whole, second.whole
        factors: list[Any] = [reference.rounded(factor, a) for factor in self._factors]
        decay, beta1, gradient1, beta2, gradient2 = factors
        exp_avgs = [piece.exp_avg for piece in pieces]
        g = third.side_by_side(
            [each.direction() if each.transforms else each.grad for each in pieces]
        )
        m = first.side_by_side(exp_avgs)
        mix = torch.mul(m, beta1, out=a).add_(torch.mul(g, gradient1, out=b))
        torch.sign(mix, out=b).add_(mix.mul_(0))
        second.multiply_by_sizes(pieces, g)
        # Before the weights, whose memory may be that of the gradients.
        m = first.side_by_side(exp_avgs)
        old, new = torch.mul(m, beta2, out=a), torch.mul(g, gradient2, out=third.whole)
        if self._stay is False:
            first.put(torch.add, old, new, exp_avgs)
        else:
            old.add_(new)
            write_exp_avgs(pieces, first.parts, self._stay)
        self._move(pieces, decay, first, step=b)

    def _move(self, pieces: list[Piece], decay: Any, buffer: Buffer, step: Tensor) -> None:
        """Write the weights, decayed and moved."""
        p = buffer.side_by_side(
            [each.weight if each.residual is None else each.wide_weight() for each in pieces]
        )
        if self._group["cautious_wd"]:
            decayed = torch.where(step * p > 0, p * decay, p)
        else:
            decayed = torch.mul(p, decay, out=buffer.whole)
        if self._stay is False and self._group["rounding"] == "nearest":
            buffer.put(torch.sub, decayed, step, [piece.weight for piece in pieces])
        else:
            torch.sub(decayed, step, out=buffer.whole)
            write_weights(pieces, buffer.parts, self._group, self._stay)

    def _buffers(self, pieces: list[Piece]) -> list[Buffer]:
        """Three for a block; there is anything in them."""
        shapes = [piece.weight for piece in pieces]
        numel, dtype = sum(map(torch.numel, shapes)), pieces[0].dtype
        if dtype not in self._memory or self._memory[dtype].shape[1] < numel:
            self._memory.pop(dtype, None)  # gives it back first
            self._memory[dtype] = torch.empty(3, numel, dtype=dtype, device=shapes[0].device)
        return [Buffer(memory, shapes) for memory in self._memory[dtype][:, :numel].unbind()]


class Buffer:
    """Memory for one number for each element of a block."""

    def __init__(self, whole: Tensor, like: list[Tensor]) -> None:
        """Of one dimension; `like` are tensors in the shapes of those in the block."""
        self.whole, self._like = whole, like

    @cached_property
    def parts(self) -> Tensors:
        """Those of each tensor, in its shape."""
        # One by one in Python this takes longer than the arithmetic of small tensors.
        parts: Tensors = torch._C._nn.unflatten_dense_tensors(self.whole, self._like)
        return parts

    def side_by_side(self, tensors: list[Tensor]) -> Tensor:
        """The elements of the tensors, in the dtype of the buffer: in it, or where they lie."""
        memory = self._memory(tensors)
        if memory is not None:
            return memory
        torch._foreach_copy_(self.parts, tensors)
        return self.whole

    def put(
        self, operation: Callable[..., Tensor], one: Tensor, other: Tensor, tensors: list[Tensor]
    ) -> None:
        """Write the result of an operation into the tensors, by way of the buffer if need be."""
        memory = self._memory(tensors)
        operation(one, other, out=self.whole if memory is None else memory)
        if memory is None:
            torch._foreach_copy_(tensors, self.parts)

    def multiply_by_sizes(self, pieces: list[Piece], grads: Tensor) -> None:
        """Make of updates the steps; the gradients lie side by side."""
        sizes = [piece.size for piece in pieces]
        common = _paths.common_size(sizes)
        if common is not None:
            self.whole.mul_(reference.rounded(common, self.whole))
        else:
            _paths.multiply_by_sizes(self.parts, Buffer(grads, self._like).parts, sizes)

    def _memory(self, tensors: list[Tensor]) -> Tensor | None:
        """That of the tensors, if it is one stretch in the dtype of the buffer."""
        tensor = tensors[0]
        if len(tensors) == 1 and tensor.dtype == self.whole.dtype and tensor.is_contiguous():
            return tensor.view(-1)
        return None
