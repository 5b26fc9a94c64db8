"""Copies many tensors at once; each byte by whichever thread is free.

torch divides every large copy among its threads and waits for all of them each time. Where loader
workers or a save want the same cores, that is a wait for the scheduler with every tensor. Here the
threads take pieces until none is left, and what a busy core does not do another one does.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import torch
from torch import Tensor

_SMALL = 1 << 15  # elements; torch copies fewer with one thread
_LEAST = 8 << 20  # bytes of a piece, if it is not a whole tensor
_MOST_THREADS = 8  # more do not make memory faster

_Piece = tuple[int, int, int]


class Copier:
    """Copies with as many threads as torch uses."""

    def __init__(self) -> None:
        self._helpers: ThreadPoolExecutor | None = None

    def copy(self, targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
        """Copy each source to its target of the same dtype and shape; targets are contiguous.

        Copies from a GPU have begun when this returns, and are done after a synchronization.
        """
        # Lists of tensors, no pairs of them: the garbage collector looks at each container.
        small: tuple[list[Tensor], list[Tensor]] = [], []
        large: tuple[list[Tensor], list[Tensor]] = [], []
        for target, source in zip(targets, sources, strict=True):
            of_its_kind = large if _is_large(source) else small
            of_its_kind[0].append(target)
            of_its_kind[1].append(source)
        if small[0]:
            with torch.no_grad():
                torch._foreach_copy_(*small, non_blocking=True)
        threads = min(torch.get_num_threads(), _MOST_THREADS)
        total = sum(source.nbytes for source in large[1])
        self._share(list(_pieces(*large, max(total // (2 * threads), _LEAST))), threads)

    def _share(self, pieces: list[_Piece], threads: int) -> None:
        """Copy pieces, the largest first, here and in the helpers."""
        left = deque(sorted(pieces, key=lambda piece: -piece[2]))
        helping: list[Future[None]] = []
        try:
            with suppress(RuntimeError):  # no more threads, or the interpreter ends: alone then
                for _ in range(min(threads, len(pieces)) - 1):
                    helping.append(self._pool().submit(_drain, left))
            _drain(left)
        finally:
            for future in helping:
                future.result()

    def _pool(self) -> ThreadPoolExecutor:
        if self._helpers is None:
            self._helpers = ThreadPoolExecutor(_MOST_THREADS - 1, "liontool-copy")
        return self._helpers


def _is_large(tensor: Tensor) -> bool:
    """Whether it is worth a thread, and its bytes lie in memory as they are to be written."""
    return (
        tensor.numel() >= _SMALL
        and tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
    )


def _pieces(targets: Sequence[Tensor], sources: Sequence[Tensor], most: int) -> Iterator[_Piece]:
    """Addresses to copy to and from, and how many bytes."""
    for target, source in zip(targets, sources, strict=True):
        to, origin, nbytes = target.data_ptr(), source.data_ptr(), source.nbytes
        for start in range(0, nbytes, most):
            yield to + start, origin + start, min(most, nbytes - start)


def _drain(left: deque[_Piece]) -> None:
    """Copy pieces until none is left; other Python threads run meanwhile."""
    with suppress(IndexError):
        while True:
            ctypes.memmove(*left.popleft())
