"""What a step leaves: weights and momenta, rounded and held back as the options say."""

from __future__ import annotations

import torch
from torch import Tensor

from liontool.optim import _scalars, _sharding, rounding
from liontool.optim._batch import Group, Piece, Tensors, keep, write


def write_weights(pieces: list[Piece], news: Tensors, group: Group, stay: bool | Tensor) -> None:
    """Write the weights of pieces.

    Args:
        pieces: Of a parameter group.
        news: Their new weights, in the dtype that is computed in.
        group: The parameter group.
        stay: A flag on a device that holds everything back, or False.
    """
    for piece, new in zip(pieces, news, strict=True):
        write(piece.weight, piece.residual, _rounded(new, piece, group), stay)


def write_exp_avgs(pieces: list[Piece], news: Tensors, stay: bool | Tensor) -> None:
    """Write the momenta of pieces; see `write_weights`."""
    for piece, new in zip(pieces, news, strict=True):
        piece.exp_avg.copy_(keep(piece.exp_avg, new, stay))


def _rounded(weight: Tensor, piece: Piece, group: Group) -> Tensor:
    if group["rounding"] != "stochastic" or piece.weight.dtype != torch.bfloat16:
        return weight
    key = rounding.key(group["rounding_seed"], _scalars.step_number(group), piece.ordinal)
    return rounding.stochastic(weight, key, _sharding.index(piece.param))
