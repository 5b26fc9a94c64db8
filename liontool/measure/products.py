"""Sums, and sums of products, at the speed of BLAS, in the calling thread alone."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_ROW = 8192  # OpenBLAS takes more threads from 10,000 elements on, which stand in the way of ours


def dot(first: Array, second: Array) -> float:
    """Sum of the products of two flat arrays; the rows that they are cut into add up in float64."""
    import numpy as np

    whole = len(first) // _ROW * _ROW
    rows, columns = first[:whole].reshape(-1, 1, _ROW), second[:whole].reshape(-1, _ROW, 1)
    return _of_rows(rows, columns) + float(np.dot(first[whole:], second[whole:]))


def total(numbers: Array) -> float:
    """Sum of a flat array of floats; the rows that it is cut into add up in float64."""
    import numpy as np

    whole = len(numbers) // _ROW * _ROW
    ones = _ones(numbers.dtype.char)
    rest = numbers[whole:]
    return _of_rows(numbers[:whole].reshape(-1, 1, _ROW), ones[:, None]) + float(
        np.dot(rest, ones[: len(rest)])
    )


def _of_rows(rows: Array, columns: Array) -> float:
    import numpy as np

    return float(np.matmul(rows, columns).sum(dtype=np.float64))


@cache
def _ones(dtype: str) -> Array:
    import numpy as np

    return np.ones(_ROW, dtype)
