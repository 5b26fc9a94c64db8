"""Decay, update and momentum of a parameter group, written back as its options say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from liontool.optim import _blocks, _dispatch, _scalars, _telemetry
from liontool.optim._batch import Batch, Group, Piece, tell_autograd
from liontool.optim._writing import write_exp_avgs, write_weights
from liontool.optim.reference import Coefficients

# Bounds what the intermediate results of a path take: a few times this many elements. On a CPU they
# stay in its cache.
CHUNK = 2**22
CHUNK_OF_CPU = 2**17


def update(
    batch: Batch, stay: bool | Tensor, is_watched: Callable[[Tensor, Group], bool] | None
) -> None:
    """Do a step on the weights and momenta of a group.

    Args:
        batch: Its pieces have gradients and step sizes.
        stay: A flag on a device that holds everything back, or False.
        is_watched: Says of which weights to count the updates that vanish; None is of none.
    """
    factors = _scalars.coefficients(batch.group)
    blocks = _blocks.Blocks(batch.group, factors, stay)
    for pieces in _chunks(batch, is_whole=is_watched is not None):
        looks = [
            _telemetry.look(piece, batch.group)
            for piece in pieces
            if is_watched is not None and is_watched(piece.weight, batch.group)
        ]
        if _dispatch.in_blocks(batch.group, pieces[0].weight.device):
            blocks.update(pieces)
        else:
            _update_lists(pieces, batch.group, factors, stay)
        for piece in pieces:
            tell_autograd(piece.param)
        for each in looks:
            each.compare()


def _update_lists(
    pieces: list[Piece], group: Group, factors: Coefficients, stay: bool | Tensor
) -> None:
    weights, exp_avgs = _dispatch.path(group)(
        [_source(piece.wide_weight(), group) for piece in pieces],
        [piece.direction() for piece in pieces],
        [_source(piece.wide_exp_avg(), group) for piece in pieces],
        [piece.size for piece in pieces],
        factors,
        group["cautious_wd"],
    )
    write_exp_avgs(pieces, exp_avgs, stay)
    write_weights(pieces, weights, group, stay)


def _chunks(batch: Batch, *, is_whole: bool) -> Iterator[list[Piece]]:
    """Pieces of one device and dtype, together not much larger than a chunk.

    Args:
        batch: The pieces.
        is_whole: Cut none of them.
    """
    alike: dict[tuple[torch.device, torch.dtype], list[Piece]] = {}
    for piece in batch.pieces:
        alike.setdefault((piece.weight.device, piece.dtype), []).append(piece)
    for (device, _), bucket in alike.items():
        if device.type != "cpu" or torch.compiler.is_compiling():
            yield from _filled(bucket, CHUNK)
        elif is_whole or batch.group["rounding"] == "stochastic" or batch.group["differentiable"]:
            yield from _filled(bucket, CHUNK_OF_CPU)
        else:
            parts = [part for piece in bucket for part in piece.parts(CHUNK_OF_CPU)]
            yield from _filled(parts, CHUNK_OF_CPU)


def _filled(pieces: list[Piece], size: int) -> Iterator[list[Piece]]:
    chunk: list[Piece] = []
    elements = 0
    for piece in pieces:
        if chunk and elements + piece.weight.numel() > size:
            yield chunk
            chunk, elements = [], 0
        chunk.append(piece)
        elements += piece.weight.numel()
    yield chunk


def _source(tensor: Tensor, group: Group) -> Tensor:
    # Autograd must not see what it has saved change.
    return tensor.clone() if group["differentiable"] else tensor
