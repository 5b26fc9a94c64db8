"""How the optimizers call the Triton kernels; see `kernels.triton_plan`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liontool.optim import _scalars, _sharding
from liontool.optim._batch import Batch, Group, Piece
from liontool.optim.kernels import triton_layout
from liontool.optim.kernels.memory import unreadable
from liontool.optim.kernels.triton_layout import Entry, Hypers
from liontool.optim.kernels.triton_owner import Owner


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
        self._parts = [
            _Part(members, [pieces[member] for member in members], places)
            for members in _by_device(pieces)
        ]

    def holds(self) -> bool:
        """The plans see by themselves whether their tensors have moved."""
        return True

    def step(
        self,
        groups: Sequence[Group],
        grads: Sequence[Tensor],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> bool:
        """Do a step; with GradScaler's scale and flag, or None; False if one has no memory."""
        if any(map(unreadable, grads)):
            return False
        hypers = [_hypers(group) for group in groups]
        for part in self._parts:
            part.step(
                [grads[member] for member in part.members],
                hypers,
                grad_scale=_on(part.device, grad_scale),
                found_inf=_on(part.device, found_inf),
                global_clipnorm=groups[0]["global_clipnorm"],
            )
        return True


class _Part:
    """What of a step is on one device.

    Attributes:
        members: Which of all pieces.
        device: Theirs.
    """

    def __init__(
        self, members: Sequence[int], pieces: Sequence[Piece], places: Sequence[int]
    ) -> None:
        from liontool.optim.kernels import triton_plan

        self.members = members
        self.device = pieces[0].weight.device
        self._params = [piece.param for piece in pieces]
        self._plan = triton_plan.Plan(
            [_entry(piece, places[member]) for piece, member in zip(pieces, members, strict=True)]
        )

    def step(self, grads: Sequence[Tensor], hypers: Sequence[Hypers], **options: Any) -> None:
        """Do it; options as of `triton_plan.Plan.step`."""
        self._plan.step(grads, hypers, sum_counts=self._summed, sum_squares=self._summed, **options)

    def _summed(self, values: Tensor) -> Tensor:
        return torch.stack(_sharding.summed(list(values.unbind()), self._params))


def trace(
    owner: Owner, batches: Sequence[Batch], grad_scale: Tensor | None, found_inf: Tensor | None
) -> bool:
    """Put a step into the graph that torch.compile traces: one operator for each device.

    Args:
        owner: Keeps the plans of the graph.
        batches: Those with a gradient, of groups that the kernels can do.
        grad_scale: GradScaler's, or None.
        found_inf: See there.

    Returns:
        Whether the kernels can do all of it; sums over shards they cannot from within a graph.
    """
    from liontool.optim.kernels import triton_op

    numbered = [(piece, place) for place, batch in enumerate(batches) for piece in batch.pieces]
    groups = [batch.group for batch in batches]
    if any(unsupported(piece, groups[place]) for piece, place in numbered):
        return False
    pieces = [piece for piece, _ in numbered]
    if any(_sharding.local(piece.param) is not piece.param for piece in pieces) and any(
        map(_sums, groups)
    ):
        return False
    hypers = [_hypers(group) for group in groups]
    for members in _by_device(pieces):
        device = pieces[members[0]].weight.device
        triton_op.step(
            owner,
            [_entry(*numbered[member]) for member in members],
            [pieces[member].grad for member in members],
            hypers,
            grad_scale=_on(device, grad_scale),
            found_inf=_on(device, found_inf),
            global_clipnorm=groups[0]["global_clipnorm"],
        )
    return True


def _sums(group: Group) -> bool:
    """Whether a step of a group needs sums over whole tensors."""
    return (
        "agreement" in group
        or group["cautious_factor"] != 1
        or group["global_clipnorm"] is not None
    )


def _by_device(pieces: Sequence[Piece]) -> list[list[int]]:
    """Which pieces are on each device; what is summed over devices has no kernel."""
    members: dict[torch.device, list[int]] = {}
    for place, piece in enumerate(pieces):
        members.setdefault(piece.weight.device, []).append(place)
    return list(members.values())


def _on(device: torch.device, scalar: Tensor | None) -> Tensor | None:
    return None if scalar is None else scalar.to(device, non_blocking=True)


def _entry(piece: Piece, place: int) -> Entry:
    return Entry(
        piece.weight,
        piece.exp_avg,
        piece.residual,
        place,
        ordinal=piece.ordinal,
        whole=piece.numel,
    )


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
