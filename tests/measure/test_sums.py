"""Sums over values, against plain formulas in higher precision."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from liontool.checkpoint.document import TensorRef
from liontool.measure import sums as sums_module
from liontool.measure.passes import BLOCK, Job, passed
from liontool.measure.summary import ValueSummary
from liontool.measure.sums import sums_for
from support.stored import loaded, stored

DTYPES = (
    *(getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16")),
    *(getattr(torch, f"float8_{kind}") for kind in ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz")),
    *(getattr(torch, name) for name in ("int64", "int32", "int16", "int8", "uint8", "bool")),
    *(getattr(torch, name) for name in ("complex64", "complex128")),
)


def summary(*tensors: TensorRef) -> ValueSummary:
    """What one tensor comes to."""
    (tensor,) = tensors
    job = Job((tensor,), lambda: sums_for(tensor.dtype, tensor.numel))
    (found,) = passed([job], lambda _: None)
    result: ValueSummary = found.concluded()
    return result


def values_of(tensor: torch.Tensor) -> list[float]:
    """Every number in it, complex ones as two, exactly."""
    wide = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return wide.reshape(-1).to(torch.float64).tolist()


def check(found: ValueSummary, numbers: list[float]) -> None:
    """Every field against its plain formula."""
    finite = [number for number in numbers if math.isfinite(number)]
    assert found.count == len(numbers)
    assert found.nan == sum(map(math.isnan, numbers))
    assert found.infinite == sum(map(math.isinf, numbers))
    assert found.zeros == finite.count(0.0)
    square = float(sum(Fraction(number) ** 2 for number in finite))
    assert found.norm == pytest.approx(math.sqrt(square), rel=1e-12, abs=0)
    assert found.rms == pytest.approx(math.sqrt(square / len(finite)), rel=1e-12, abs=0)
    size = math.fsum(map(abs, finite)) / len(finite)
    assert found.mean == pytest.approx(math.fsum(finite) / len(finite), rel=0, abs=1e-12 * size)
    assert (found.min, found.max) == (min(finite), max(finite))
    exponents = [math.frexp(number)[1] - 1 for number in finite if number]
    assert found.lowest_exponent == min(exponents, default=None)
    span = range(min(exponents, default=0), max(exponents, default=-1) + 1)
    assert found.exponents == tuple(exponents.count(exponent) for exponent in span)


def some(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers of either sign, some zero; NaN and infinities where there are any."""
    torch.manual_seed(0)
    if dtype.is_complex:
        return torch.randn(shape, dtype=dtype)
    if not dtype.is_floating_point:
        return torch.randint(0, 2 if dtype == torch.bool else 100, shape).to(dtype)
    numbers = torch.randn(shape, dtype=torch.float64)
    numbers.view(-1)[::7] = 0
    numbers.view(-1)[3], numbers.view(-1)[5], numbers.view(-1)[9] = math.nan, math.inf, -math.inf
    return numbers.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(7, 11), (3, 5, 101)], ids=str)
def test_every_dtype(tmp_path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Counts are exact, sums within 1e-12, for every element type."""
    tensor = some(dtype, shape)
    check(summary(stored(tmp_path / "t", tensor)), values_of(tensor))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int16], ids=str)
def test_many_of_16_bits(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where codes are counted instead of numbers added, the result is the same."""
    monkeypatch.setattr(sums_module, "_MANY", 1)
    tensor = some(dtype, (999,))
    check(summary(stored(tmp_path / "t", tensor)), values_of(tensor))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_several_blocks(tmp_path: Path, dtype: torch.dtype) -> None:
    """Blocks and parts add up, also the odd ones at the end; a tensor of ordinary size."""
    tensor = some(dtype, (BLOCK + 12_345,))
    found = summary(stored(tmp_path / "t", tensor))
    numbers = tensor.double().numpy()
    finite = numbers[np.isfinite(numbers)]
    assert found.norm == pytest.approx(math.sqrt(math.fsum(finite**2)), rel=1e-13)
    assert found.zeros == np.count_nonzero(finite == 0)
    assert sum(found.exponents) == np.count_nonzero(finite)


@pytest.mark.parametrize("size", [1e30, 1e-30, 1e-40], ids=str)
def test_sizes_of_float32(tmp_path: Path, size: float) -> None:
    """Large numbers do not overflow, and subnormal ones have their own exponents."""
    tensor = torch.tensor([size, -size, 0.0, size / 3], dtype=torch.float32)
    check(summary(stored(tmp_path / "t", tensor)), values_of(tensor))


@pytest.mark.parametrize("size", [1e300, 1e200, 1e-200, 1e-300, 5e-324], ids=str)
def test_sizes_of_float64(tmp_path: Path, size: float) -> None:
    """Squares that no float64 could hold are summed all the same."""
    tensor = torch.tensor([size, 0.0, -size, size], dtype=torch.float64)
    found = summary(stored(tmp_path / "t", tensor))
    assert found.norm == pytest.approx(size * math.sqrt(3), rel=1e-12, abs=0)
    assert found.mean == pytest.approx(size / 4, rel=1e-12, abs=5e-324)
    assert (found.min, found.max, found.zeros) == (-size, size, 1)
    assert found.lowest_exponent == math.frexp(size)[1] - 1
    assert found.exponents == (3,)


def test_norms_beyond_every_number(tmp_path: Path) -> None:
    """A norm that is too large for float64 is infinite; the root mean square is not."""
    tensor = torch.full((9,), 1.5e308, dtype=torch.float64)
    found = summary(stored(tmp_path / "t", tensor))
    assert found.norm == math.inf
    assert found.rms == pytest.approx(1.5e308)
    assert found.mean == pytest.approx(1.5e308)


def test_large_and_small_in_one_tensor(tmp_path: Path) -> None:
    """Blocks of very different size add up."""
    tensor = torch.ones(2 * BLOCK, dtype=torch.float64)
    tensor[:BLOCK] = 1e200
    found = summary(stored(tmp_path / "t", tensor))
    assert found.norm == pytest.approx(1e200 * math.sqrt(BLOCK), rel=1e-12)


@pytest.mark.parametrize(
    "numbers", [[math.nan, math.nan], [math.inf, -math.inf], []], ids=["nan", "inf", "empty"]
)
def test_nothing_finite(tmp_path: Path, numbers: list[float]) -> None:
    """Where no number is finite, there is no mean."""
    found = summary(stored(tmp_path / "t", torch.tensor(numbers)))
    assert found.nan + found.infinite == found.count == len(numbers)
    assert (found.rms, found.mean, found.min, found.max) == (None, None, None, None)
    assert (found.norm, found.exponents) == (0.0, ())


def test_an_exponent_alone(tmp_path: Path) -> None:
    """float8_e8m0fnu has no zero: a zero byte is a number."""
    tensor = torch.tensor([0, 127, 130, 255], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    found = summary(stored(tmp_path / "t", tensor))
    assert (found.count, found.nan, found.zeros) == (4, 1, 0)
    assert (found.min, found.max) == (2.0**-127, 8.0)


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t(),
        lambda t: t[:, ::2],
        lambda t: t[1:2].expand(4, -1),
        lambda t: t.reshape(4, 5, 10).permute(2, 0, 1),
    ],
    ids=["transposed", "gaps", "expanded", "permuted"],
)
def test_views(tmp_path: Path, view: object) -> None:
    """A view counts what it shows, and nothing beside it."""
    assert callable(view)
    tensor = view(some(torch.float32, (20, 10)))
    reference = stored(tmp_path / "t", tensor)
    check(summary(reference), values_of(loaded(reference)))


def test_big_endian(tmp_path: Path) -> None:
    """The order of bytes is respected."""
    tensor = some(torch.float32, (33,))
    check(summary(stored(tmp_path / "t", tensor, byteorder="big")), values_of(tensor))
