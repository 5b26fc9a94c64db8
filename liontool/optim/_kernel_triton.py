"""How the optimizers call the Triton kernels; see `kernels.triton_plan`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from liontool.optim import _scalars, _sharding
from liontool.optim._batch import Group, Piece
from liontool.optim.kernels import triton_layout
from liontool.optim.kernels.triton_layout import Entry, Hypers


def unsupported(piece: Piece, group: Group) -> str | None:
    """Why the kernels cannot do the step of a parameter, or None if they can."""
    if group["rounding"] == "stochastic" and piece.weight.numel() != piece.numel:
        return "stochastic rounding of shards"
    return triton_layout.reason_against(
        piece.weight, piece.grad, piece.exp_avg, piece.residual, group["rounding"]
    )


class Plan:
    """Steps on the pieces of some groups, for as long as these are the same."""

    def __init__(self, pieces: Sequence[Piece], places: Sequence[int]) -> None:
        """Make the tables.

        Args:
            pieces: Each without a reason against it, see `unsupported`.
            places: The group of each.
        """
        from liontool.optim.kernels import triton_plan

        self._params = [piece.param for piece in pieces]
        self._plan = triton_plan.Plan(
            [
                Entry(
                    piece.weight,
                    piece.exp_avg,
                    piece.residual,
                    place,
                    ordinal=piece.ordinal,
                    whole=piece.numel,
                )
                for piece, place in zip(pieces, places, strict=True)
            ]
        )

    def holds(self) -> bool:
        """The plan sees by itself whether its tensors have moved."""
        return True

    def step(
        self,
        groups: Sequence[Group],
        grads: Sequence[Tensor],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Do a step; with GradScaler's scale and flag, or None."""
        self._plan.step(
            grads,
            [_hypers(group) for group in groups],
            grad_scale=grad_scale,
            found_inf=found_inf,
            global_clipnorm=groups[0]["global_clipnorm"],
            sum_counts=self._summed,
            sum_squares=self._summed,
        )

    def _summed(self, values: Tensor) -> Tensor:
        return torch.stack(_sharding.summed(list(values.unbind()), self._params))


def _hypers(group: Group) -> Hypers:
    return Hypers(
        lr=_scalars.learning_rate(group),
        weight_decay=_scalars.weight_decay(group),
        betas=group["betas"],
        horizon=group["horizon"],
        step=_scalars.counted(group, "step"),
        maximize=group["maximize"],
        cautious=group["cautious_factor"] == 0,
        agreement=group.get("agreement"),
        pow=group.get("pow", 1.0),
        rounding=group["rounding"],
        seed=group["rounding_seed"],
    )
