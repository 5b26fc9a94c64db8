"""Tensor objects that are back in the cache before Python looks at them.

A backward pass leaves nothing of an optimizer's objects in the cache, and Python waits for one line
of memory after the other. The CPU kernel asks for all of them at once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

from torch import Tensor

from liontool.optim.kernels import cpu_library

_LINE = 64
# What is read of torch's two structs, in bytes.
_TENSOR, _STORAGE = 192, 128


class Objects:
    """Where some tensors' objects lie.

    Only hints: what is gone by then costs a little time, and gradients often come back to the same
    places.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Look the places up.

        Raises:
            cpu_library.NoKernelError: There is no kernel.
        """
        self._kernel = cpu_library.library()
        self._lines = array("Q", [line for tensor in tensors for line in _lines(tensor)])

    def fetch(self) -> None:
        """Ask for them, without waiting."""
        start, count = self._lines.buffer_info()
        self._kernel.liontool_fetch(start, count)


def _lines(tensor: Tensor) -> Iterator[int]:
    structs = [(tensor, _TENSOR), (tensor.untyped_storage(), _STORAGE)]
    yield id(tensor)
    for struct, size in structs:
        start = int(getattr(struct, "_cdata", 0))
        yield from range(start, start + size, _LINE)
