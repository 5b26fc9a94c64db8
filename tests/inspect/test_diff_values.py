"""`compare`: distances between tensors, against NumPy in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.source import open_source
from liontool.inspect.diff_tensors import compared
from liontool.inspect.diff_values import Sums, Tolerance, Values
from liontool.inspect.listing import STATE, Item
from liontool.measure import passes

EXACT = Tolerance()
Pair = Callable[[torch.Tensor, torch.Tensor], tuple[TensorRef, TensorRef]]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Saves two tensors and gives them back as nobody has loaded them."""

    def save(a: torch.Tensor, b: torch.Tensor) -> tuple[TensorRef, TensorRef]:
        torch.save({"a": a, "b": b}, tmp_path / "pair.pt")
        tree = open_source(tmp_path / "pair.pt").document().tree
        return tree["a"], tree["b"]

    return save


@pytest.fixture(params=[False, True], ids=["blocks", "small blocks"])
def step(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with all in one block, and with several parts of several blocks."""
    if request.param:
        monkeypatch.setattr(passes, "BLOCK", 7)
        monkeypatch.setattr(passes, "_PART", 50)


def compare(
    a: TensorRef, b: TensorRef, tolerance: Tolerance, signs: bool = False, **options: bool
) -> Values:
    """The values of one pair, signs counted as those of momenta are."""
    field = "exp_avg" if signs else None
    items = tuple(Item("x", "x", STATE, tensor, field=field) for tensor in (a, b))
    (found,) = compared([items], tolerance, **options)
    assert found.values is not None
    return found.values


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def wide(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


def check(found: Values, a: torch.Tensor, b: torch.Tensor, rel: float = 1e-6) -> None:
    """All distances are what NumPy makes of the same numbers in float64."""
    x, y = wide(a), wide(b)
    assert found.sums is not None
    norm = np.linalg.norm(x)
    assert found.sums.relative_l2 == pytest.approx(np.linalg.norm(x - y) / norm, rel=rel)
    cosine = (x * y).sum() / norm / np.linalg.norm(y)
    assert found.sums.cosine == pytest.approx(cosine, rel=rel)
    size = np.abs(x - y)
    assert found.largest == pytest.approx(size.max(), rel=1e-6)
    assert size[found.index] == pytest.approx(size.max(), rel=1e-6)
    assert (found.a, found.b) == (x[found.index], y[found.index])
    assert found.differing == np.count_nonzero(x != y)
    same = ((x > 0) & (y > 0)) | ((x < 0) & (y < 0))
    assert found.sums.agreeing == same.sum()
    assert found.sums.judged == ((x != 0) | (y != 0)).sum()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_against_numpy(pair: Pair, step: None, dtype: str, scale: float) -> None:
    """Every dtype, in one block and in many."""
    a = (noise(37, 29) * scale).to(getattr(torch, dtype))
    b = (a.float() + noise(37, 29, seed=1) * scale / 10).to(a.dtype)
    b[3:9] = a[3:9]
    a[0, :5] = 0
    check(compare(*pair(a, b), EXACT, signs=True), a, b)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-6])
def test_nearly_parallel(pair: Pair, distance: float) -> None:
    """Of a cosine close to 1 the digits of what is missing are right."""
    a = noise(30_000)
    b = a + distance * noise(30_000, seed=1)
    x, y = wide(a), wide(b)
    cross = np.linalg.norm(y - x * (x @ y) / (x @ x)) / np.linalg.norm(y)  # the sine
    found = compare(*pair(a, b), EXACT)
    assert found.sums is not None
    assert found.sums.cosine is not None
    assert 1 - found.sums.cosine == pytest.approx(1 - math.sqrt(1 - cross**2), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-25, 1e-19, 1e18, 1e30])
def test_far_from_one(pair: Pair, scale: float) -> None:
    """Squares that leave the range of float32 are summed in float64."""
    a = noise(1000) * scale
    b = a + noise(1000, seed=1) * (scale / 10)
    check(compare(*pair(a, b), EXACT, signs=True), a, b)


def test_constant_tensors(pair: Pair) -> None:
    """Where all rounding errors point the same way the sums are still right to 1e-6."""
    a, b = torch.full((100_003,), 1 / 3), torch.full((100_003,), 0.1)
    check(compare(*pair(a, b), EXACT, signs=True), a, b)


def test_large_tensor_and_its_beginning(pair: Pair) -> None:
    """Blocks before the first difference count, though nobody looked into them at first."""
    a = noise(3 * passes._PART + 5)
    b = a.clone()
    b[-3] += 1
    found = compare(*pair(a, b), EXACT, signs=True)
    check(found, a, b)
    assert (found.index, found.differing) == ((a.numel() - 3,), 1)


@pytest.mark.parametrize("other", ["float64", "bfloat16", "float16"])
def test_recast(pair: Pair, step: None, other: str) -> None:
    """Two dtypes are compared as numbers, and are never identical."""
    a = noise(11, 13)
    b = a.to(getattr(torch, other))
    found = compare(*pair(a, b), EXACT, signs=True)
    assert not found.identical
    if other == "float64":
        assert (found.differing, found.largest) == (0, None)
    else:
        check(found, a, b)


def test_identical(pair: Pair, step: None) -> None:
    """The same bits are told as such, NaN included."""
    a = noise(50)
    a[7] = math.nan
    assert compare(*pair(a, a.clone()), EXACT) == Values(50, True)


@pytest.mark.parametrize("shape", [(0,), (3, 0), ()])
def test_odd_shapes(pair: Pair, shape: tuple[int, ...]) -> None:
    """Empty tensors are the same; of a single number the index is ()."""
    a, b = torch.zeros(shape), torch.ones(shape)
    found = compare(*pair(a, b), EXACT)
    if a.numel():
        assert (found.index, found.a, found.b, found.largest) == ((), 0.0, 1.0, 1.0)
        assert found.sums == Sums(1.0, 0.0, 1.0, 0.0)
        assert (found.sums.relative_l2, found.sums.cosine) == (math.inf, None)
    else:
        assert found.identical


def test_views_that_do_not_lie_in_order(pair: Pair, step: None) -> None:
    """Transposed and strided tensors are compared element by element."""
    base = noise(24, 30)
    a = base.t()
    b = (base + noise(24, 30, seed=1)).t().contiguous()
    check(compare(*pair(a, b), EXACT, signs=True), a, b)
    strided = noise(60, 30)[::2, ::3]
    found = compare(*pair(strided, strided.clone()), EXACT)
    assert found.identical


def test_zeros_of_both_signs(pair: Pair) -> None:
    """0 and -0 are equal in value and not in bits."""
    found = compare(*pair(torch.zeros(4), -torch.zeros(4)), EXACT, signs=True)
    assert (found.identical, found.differing, found.largest) == (False, 0, None)
    assert found.sums is not None
    assert (found.sums.relative_l2, found.sums.sign_agreement) == (0.0, None)


def test_nonfinite(pair: Pair, step: None) -> None:
    """NaN and infinity stay out of the distances; only equal bits are the same."""
    nan, inf = math.nan, math.inf
    a = torch.tensor([nan, nan, inf, inf, 1.0, 2.0, -inf, 3.0, 5.0])
    b = torch.tensor([nan, 1.0, inf, -inf, inf, 2.5, -inf, 3.0, 5.0])
    found = compare(*pair(a, b), EXACT)
    assert (found.nonfinite_a, found.nonfinite_b, found.nonfinite_differing) == (5, 5, 3)
    assert (found.differing, found.largest, found.index) == (4, 0.5, (5,))
    assert found.sums is not None
    assert found.sums.relative_l2 == pytest.approx(0.5 / math.sqrt(4 + 9 + 25))


def test_nan_with_other_bits(pair: Pair) -> None:
    """A NaN with another payload is a difference."""
    a = torch.tensor([0x7FC00000, 0x3F800000], dtype=torch.int32).view(torch.float32)
    b = torch.tensor([0x7FC00001, 0x3F800000], dtype=torch.int32).view(torch.float32)
    found = compare(*pair(a, b), EXACT)
    assert (found.differing, found.nonfinite_differing, found.largest) == (1, 1, None)


def test_nothing_finite(pair: Pair) -> None:
    """All NaN against numbers: everything differs and nothing can be measured."""
    found = compare(*pair(torch.full((5,), math.nan), torch.ones(5)), EXACT, signs=True)
    assert (found.differing, found.largest, found.index) == (5, None, None)
    assert found.sums == Sums()


@pytest.mark.parametrize(("atol", "rtol"), [(0.05, 0.0), (0.0, 0.05), (0.01, 0.03)])
def test_tolerance(pair: Pair, atol: float, rtol: float) -> None:
    """What lies within is counted as NumPy's `isclose` counts."""
    a, b = noise(2000), noise(2000) + noise(2000, seed=1) / 30
    found = compare(*pair(a, b), Tolerance(atol, rtol))
    close = np.isclose(wide(a), wide(b), rtol=rtol, atol=atol)
    assert 0 < found.differing == np.count_nonzero(~close) < 2000


@pytest.mark.parametrize("options", [{"atol": -1}, {"rtol": math.nan}, {"atol": math.inf}])
def test_tolerance_is_checked(options: dict[str, float]) -> None:
    """A tolerance is a number of 0 or more."""
    with pytest.raises(ValueError, match="tol must be a number of 0 or more, got"):
        Tolerance(**options)


@pytest.mark.parametrize(
    ("dtype", "a", "b", "largest"),
    [
        ("int64", 2**62, 2**62 + 1, 1),
        ("int64", -(2**63), 2**63 - 1, 2**64 - 1),
        ("int8", -128, 127, 255),
        ("uint8", 3, 250, 247),
        ("bool", False, True, 1),
    ],
)
def test_integers(pair: Pair, dtype: str, a: int, b: int, largest: int) -> None:
    """Integers are compared exactly, beyond what float64 can tell apart."""
    left, right = (torch.tensor([0, x, 0]).to(getattr(torch, dtype)) for x in (a, b))
    found = compare(*pair(left, right), EXACT)
    assert (found.differing, found.index) == (1, (1,))
    assert found.largest == float(largest)
    assert (found.a, found.b) == (a, b)


def test_complex(pair: Pair) -> None:
    """Of complex numbers each half counts for itself; the index is the number's."""
    a = torch.complex(noise(40), noise(40, seed=1)).reshape(5, 8)
    b = a.clone()
    b[2, 3] += 0.5j
    found = compare(*pair(a, b), EXACT)
    assert (found.index, found.differing) == ((2, 3), 1)
    assert found.largest == pytest.approx(0.5, rel=1e-6)
    assert found.sums is not None
    assert found.sums.relative_l2 == pytest.approx(0.5 / np.linalg.norm(a.numpy()), rel=1e-6)


def test_complex_in_several_parts(pair: Pair, step: None) -> None:
    """The index is the number's in every block of every part, whose elements are two floats."""
    a = torch.complex(noise(30, 8), noise(30, 8, seed=1))
    for place in ((0, 1), (7, 3), (16, 5), (29, 7)):
        b = a.clone()
        b[place] += 0.5j
        found = compare(*pair(a, b), EXACT)
        assert (found.index, found.differing) == (place, 1)


def test_nonfinite_of_equal_blocks(pair: Pair, step: None) -> None:
    """Where equal blocks are summed too, their NaN are counted on both sides and differ nowhere."""
    a = noise(300)
    a[3], a[4], a[80] = math.nan, math.inf, -math.inf
    b = a.clone()
    b[299] += 1
    found = compare(*pair(a, b), EXACT, signs=True)
    assert (found.nonfinite_a, found.nonfinite_b, found.nonfinite_differing) == (3, 3, 0)
    assert (found.differing, found.index) == (1, (299,))
    assert found.sums is not None
    x, y = (wide(t)[np.isfinite(wide(a))] for t in (a, b))
    assert found.sums.relative_l2 == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x))
    assert found.sums.judged == 297


def test_eight_bits(pair: Pair) -> None:
    """8-bit floats are decoded."""
    a = noise(300).to(torch.float8_e4m3fn)
    b = noise(300, seed=1).to(torch.float8_e4m3fn)
    check(compare(*pair(a, b), EXACT, signs=True), a, b)


def test_signs(pair: Pair) -> None:
    """Of the pairs that are not both zero, those count whose signs are equal."""
    a, b = torch.tensor([1.0, -1.0, 0.0, 0.0, 2.0]), torch.tensor([2.0, 1.0, 0.0, 3.0, 1e-30])
    found = compare(*pair(a, b), EXACT, signs=True)
    assert found.sums is not None
    assert found.sums.sign_agreement == 2 / 4


def test_stops_at_the_first_difference(pair: Pair) -> None:
    """Whoever only asks whether something differs does not wait for the rest."""
    a, b = pair(torch.zeros(100), torch.ones(100))
    same, other = Item("same", "", STATE, a), Item("other", "", STATE, b)
    found = compared([(same, same), (same, other), (other, same)], EXACT, first_only=True)
    assert [one.verdict for one in found] == ["identical", "different", "not compared"]


def test_sums_add_up(pair: Pair) -> None:
    """The sums of parts are those of the whole."""
    a, b = noise(90), noise(90, seed=1)
    parts = [compare(*pair(a[cut], b[cut]), EXACT, signs=True).sums
             for cut in (slice(40), slice(40, 90))]  # fmt: skip
    whole = compare(*pair(a, b), EXACT, signs=True).sums
    assert parts[0] is not None
    assert parts[1] is not None
    assert whole is not None
    total = parts[0] + parts[1]
    assert total.relative_l2 == pytest.approx(whole.relative_l2)
    assert (total.agreeing, total.judged) == (whole.agreeing, whole.judged)
