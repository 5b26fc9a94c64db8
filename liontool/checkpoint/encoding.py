"""Between the bytes of a dtype and numpy arrays, for the types that numpy lacks too.

bfloat16 and the 8-bit floats go through integers: bfloat16 is the upper half of a float32, and an
8-bit float is one of 256 numbers, whose magnitudes are in the order of their codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.document import ITEM_SIZES
from liontool.errors import LayoutError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[Any]

# Exponent bits, mantissa bits, bias, and the first positive code that is no finite number.
FP8: Mapping[str, tuple[int, int, int, int]] = {
    "float8_e4m3fn": (4, 3, 7, 0x7F),
    "float8_e5m2": (5, 2, 15, 0x7C),
    "float8_e4m3fnuz": (4, 3, 8, 0x80),
    "float8_e5m2fnuz": (5, 2, 16, 0x80),
    "float8_e8m0fnu": (8, 0, 127, 0xFF),
}

# The one code of the other 8-bit floats that is NaN; they have no infinity.
ONLY_NAN: Mapping[str, int] = {
    "float8_e4m3fnuz": 0x80,
    "float8_e5m2fnuz": 0x80,
    "float8_e8m0fnu": 0xFF,
}


def is_float(dtype: str) -> bool:
    """Whether elements are real floating-point numbers."""
    return dtype.startswith(("float", "bfloat"))


def decoded(block: bytes | memoryview, dtype: str) -> Array:
    """A block of whole elements as a flat array: floats of 32 bits and less as float32."""
    import numpy as np

    if dtype == "bfloat16":
        wide = np.frombuffer(block, "<u2").astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype in FP8:
        return np.take(_fp8_table(dtype), np.frombuffer(block, np.uint8))
    if dtype == "float16":
        return np.frombuffer(block, "<f2").astype(np.float32)
    if dtype == "complex32":
        return np.frombuffer(block, "<f2").astype(np.float32).view(np.complex64)
    if dtype == "bool":
        return np.frombuffer(block, np.uint8).astype(np.bool_)
    return np.frombuffer(block, numpy_dtype(dtype))


def numpy_dtype(dtype: str) -> np.dtype[Any]:
    """numpy's type of the same name; quantised integers are integers."""
    import numpy as np

    return np.dtype(dtype.removeprefix("q") if dtype.startswith("q") else dtype).newbyteorder("<")


def fp8_value(code: int, dtype: str) -> float:
    """The number that an 8-bit code stands for."""
    _, mantissa, bias, special = FP8[dtype]
    if dtype == "float8_e8m0fnu":
        return 2.0 ** (code - bias) if code != special else float("nan")
    if code == ONLY_NAN.get(dtype):
        return float("nan")
    sign, code = (-1.0, code & 0x7F) if code & 0x80 else (1.0, code)
    if code >= special:
        return sign * float("inf" if dtype == "float8_e5m2" and code == special else "nan")
    return sign * _fp8_magnitude(code, mantissa, bias)


def _fp8_magnitude(code: int, mantissa: int, bias: int) -> float:
    exponent, fraction = code >> mantissa, code & ((1 << mantissa) - 1)
    if exponent:
        fraction += 1 << mantissa
    return float(fraction * 2.0 ** (max(exponent, 1) - bias - mantissa))


def _fp8_table(dtype: str) -> Array:
    import numpy as np

    return np.array([fp8_value(code, dtype) for code in range(256)], np.float32)


def to_bytes(array: Array, dtype: str) -> bytes:
    """The elements as `dtype`, little-endian, rounded to nearest, ties to even, as torch rounds.

    Raises:
        LayoutError: `dtype` is one that nothing is computed in.
    """
    import numpy as np

    if dtype not in ITEM_SIZES or dtype in ("complex32", "float8_e8m0fnu"):
        raise LayoutError(f"{dtype} can be copied, but nothing can be computed in it")
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are right answers
        if dtype == "bfloat16":
            return _to_bfloat16(np.ascontiguousarray(array, np.float32)).tobytes()
        if dtype in FP8:
            return _to_fp8(np.asarray(array, np.float32), dtype).tobytes()
        return np.asarray(array).astype(numpy_dtype(dtype)).tobytes()


def _to_bfloat16(array: Array) -> Array:
    import numpy as np

    bits = array.view(np.uint32)
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))
    short = (rounded >> 16).astype("<u2")
    short[np.isnan(array)] = 0x7FC0
    return short


def _to_fp8(array: Array, dtype: str) -> Array:
    """Codes of the nearest numbers; magnitudes are in the order of their codes."""
    import numpy as np

    _, mantissa, bias, special = FP8[dtype]
    # One number more than there is: what rounds up to it overflows into infinity or NaN.
    grid = np.array([_fp8_magnitude(code, mantissa, bias) for code in range(special + 1)])
    middles = (grid[:-1] + grid[1:]) / 2
    size = np.abs(array).astype(np.float64)
    code = np.searchsorted(middles, size, side="left")
    ties = middles[np.minimum(code, special - 1)] == size
    code += ties & (code & 1 == 1)
    if dtype == "float8_e4m3fn":  # saturates, as in torch since 2.13
        code = np.minimum(code, special - 1)
    nan = ONLY_NAN.get(dtype, 0x7F)
    code[np.isnan(array)] = nan
    if dtype in ONLY_NAN:  # no negative zero: its code is NaN
        negative = np.signbit(array) & (code != 0) & (code != nan)
    else:
        negative = np.signbit(array)
    return (code | np.where(negative, 0x80, 0)).astype(np.uint8)
