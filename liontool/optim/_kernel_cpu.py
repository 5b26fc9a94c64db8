"""How the optimizers call the CPU kernel; see `kernels.cpu`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from liontool.optim import _scalars, _sharding
from liontool.optim._batch import Group, Piece
from liontool.optim.kernels import cpu
from liontool.optim.kernels.cpu_schedule import Entry


def unsupported(piece: Piece, group: Group) -> str | None:
    """Why the kernel cannot do the step of a parameter, or None if it can."""
    counts = "agreement" in group or group["cautious_factor"] != 1
    if counts and _sharding.is_sharded(piece.param):
        return "the CPU kernel does not count over shards"
    return cpu.Plan.unsupported(piece.weight, piece.grad, piece.exp_avg, piece.residual)


class Plan:
    """Steps on the pieces of some groups, for as long as these are the same."""

    def __init__(self, pieces: Sequence[Piece], places: Sequence[int]) -> None:
        """Make the tables.

        Args:
            pieces: Each without a reason against it, see `unsupported`.
            places: The group of each.
        """
        pairs = zip(pieces, places, strict=True)
        self._plan = cpu.Plan(
            [Entry(each.weight, each.exp_avg, each.residual, place) for each, place in pairs],
            grad_dtypes=[each.grad.dtype for each in pieces],
        )

    def holds(self) -> bool:
        """Whether weights and state are where they were."""
        return self._plan.holds()

    def step(
        self,
        groups: Sequence[Group],
        grads: Sequence[Tensor],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> bool:
        """Do a step; `grad_scale` and `found_inf` are None. False if a gradient has no memory."""
        return self._plan.step(grads, [_hypers(group) for group in groups])


def _hypers(group: Group) -> cpu.Hypers:
    factors = _scalars.coefficients(group)
    return cpu.Hypers(
        decay=float(factors.decay),
        size=float(_scalars.learning_rate(group)),
        beta1=float(factors.beta1),
        gradient1=float(factors.gradient1),
        beta2=float(factors.beta2),
        gradient2=float(factors.gradient2),
        maximize=group["maximize"],
        agreement=group.get("agreement"),
        pow=group.get("pow", 1.0),
        cautious_factor=group["cautious_factor"],
        cautious_wd=group["cautious_wd"],
    )
