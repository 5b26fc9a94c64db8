"""bfloat16 weights: what is exact is exact for every number, what is random is so without bias."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from liontool.optim import rounding

EDGES = (-(2**15), 1 - 2**15, -2, -1, 0, 1, 2, 2**15 - 2, 2**15 - 1)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "strided": lambda x: torch.stack([x, -x], dim=-1)[..., 0],
}


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Equal as integers, so that zeros have signs and NaN equals itself."""
    integer = torch.int16 if left.dtype == torch.bfloat16 else torch.int32
    return torch.equal(left.view(integer), right.view(integer))


def as_float(bits: Tensor) -> Tensor:
    """float32 from its bits, given as int64 in [0, 2**32)."""
    return bits.to(torch.int32).view(torch.float32)


def every_bfloat16() -> Tensor:
    """All 65,536, NaN of every kind among them."""
    return torch.arange(2**16).to(torch.int16).view(torch.bfloat16)


def edge_floats() -> Tensor:
    """Every sign and exponent with the mantissas at which rounding changes its mind."""
    near = torch.tensor([0, 0x4000, 0x8000, 0xC000, 0x10000])[:, None] + torch.arange(-2, 3)
    mantissas = torch.cat([near.flatten(), near.flatten() + 0x3F0000, near.flatten() + 0x7F0000])
    upper = torch.arange(2**9)[:, None] << 23
    return as_float((upper + mantissas.unique().clamp(0, 0x7FFFFF)).flatten())


def random_floats(count: int) -> Tensor:
    """Any bits, every exponent alike."""
    generator = torch.Generator().manual_seed(0)
    return as_float(torch.randint(2**32, (count,), generator=generator))


FLOATS = {"edges": edge_floats, "random": lambda: random_floats(10**6)}


@pytest.mark.parametrize("floats", FLOATS)
def test_what_was_split_comes_back(floats: str) -> None:
    """Every finite float32 survives bit for bit; infinities and NaN survive as such."""
    wide = FLOATS[floats]()
    hi, lo = rounding.split(wide)
    back, finite = rounding.combined(hi, lo), wide.isfinite()
    assert (hi.dtype, lo.dtype, back.dtype) == (torch.bfloat16, torch.int16, torch.float32)
    assert same_bits(back[finite], wide[finite])
    assert torch.equal(back.isnan(), wide.isnan())
    assert torch.equal(back[wide.isinf()], wide[wide.isinf()])
    assert not lo[~finite].any()


@pytest.mark.parametrize(
    ("bits", "hi", "lo"),
    [
        (0x3F800000, 0x3F80, 0),
        (0x3F808000, 0x3F81, -(2**15)),  # a tie, away from zero; to even would be 0x3F80
        (0xBF808000, 0xBF81, -(2**15)),
        (0x3F807FFF, 0x3F80, 2**15 - 1),
        (0x7F7FFFFF, 0x7F80, -1),  # the largest float32, nearer to bfloat16's infinity
        (0x00000001, 0x0000, 1),  # the smallest
        (0x80000001, 0x8000, 1),
        (0x80000000, 0x8000, 0),  # -0.0
        (0x7F800001, 0x7FC0, 0),  # a NaN whose upper half is an infinity's
        (0xFFFFFFFF, 0xFFFF, 0),
    ],
)
def test_split_by_hand(bits: int, hi: int, lo: int) -> None:
    """Numbers that can be checked on paper."""
    upper, lower = rounding.split(as_float(torch.tensor(bits)))
    assert upper.view(torch.int16).item() & 0xFFFF == hi
    assert lower.item() == lo


def test_hi_is_the_nearest() -> None:
    """No bfloat16 is nearer; of two equally near the one with the larger magnitude is taken."""
    wide = torch.cat([edge_floats(), random_floats(10**5)])
    largest = torch.finfo(torch.bfloat16).max
    wide = wide[wide.isfinite() & (wide.abs() <= largest)]
    hi = rounding.split(wide)[0].double()
    even = wide.bfloat16().double()
    distance, least = (hi - wide.double()).abs(), (even - wide.double()).abs()
    assert torch.equal(distance, least)
    assert (hi.abs() >= even.abs()).all()
    assert (hi.abs() > even.abs()).any()


@pytest.mark.parametrize("lo", EDGES)
def test_a_residual_of_other_weights_does_no_harm(lo: int) -> None:
    """Whatever bfloat16 stands beside a residual, they make a float32 that rounds to it."""
    hi = every_bfloat16()
    wide = rounding.combined(hi, torch.full(hi.shape, lo, dtype=torch.int16))
    assert torch.equal(wide.isnan(), hi.isnan())
    assert same_bits(rounding.split(wide)[0][~hi.isnan()], hi[~hi.isnan()])


@pytest.mark.parametrize(("hi", "lo", "bits"), [
    (0x0000, -5, 0x00000000), (0x8000, -5, 0x80000000),
    (0x7F80, 5, 0x7F800000), (0xFF80, 5, 0xFF800000),
    (0x0000, 5, 0x00000005), (0x7F80, -5, 0x7F7FFFFB),
])  # fmt: skip
def test_a_residual_of_the_wrong_sign_counts_as_zero(hi: int, lo: int, bits: int) -> None:
    """Zero has nothing below it and infinity nothing above."""
    upper = torch.tensor([hi]).to(torch.int16).view(torch.bfloat16)
    wide = rounding.combined(upper, torch.tensor([lo], dtype=torch.int16))
    assert wide.view(torch.int32).item() & rounding.WORD == bits


def test_stochastic_gives_a_neighbour() -> None:
    """The result is the bfloat16 below or above in magnitude, and both occur."""
    wide = torch.cat([edge_floats(), random_floats(10**5)])
    wide = wide[wide.isfinite()]
    rounded = rounding.stochastic(wide, 1, torch.arange(wide.numel()))
    lower = wide.view(torch.int32) >> 16
    steps = rounded.view(torch.int16).int() - lower.to(torch.int16).int()
    assert steps.unique().tolist() == [0, 1]


def test_stochastic_keeps_what_needs_no_rounding() -> None:
    """Every bfloat16 stays what it is under any key: zeros, subnormals, infinities and NaN."""
    narrow = every_bfloat16()
    index, number = torch.arange(2**16), ~narrow.isnan()
    for key in range(8):
        rounded = rounding.stochastic(narrow.float(), rounding.mix(key), index)
        assert same_bits(rounded[number], narrow[number])
        assert torch.equal(rounded.isnan(), narrow.isnan())


def test_stochastic_of_any_nan_is_nan() -> None:
    """No noise turns a NaN into an infinity or a number."""
    payloads = torch.cat([torch.tensor([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF])] * 999)
    rounded = rounding.stochastic(as_float(payloads), 3, torch.arange(len(payloads)))
    assert rounded.isnan().all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("lower_half", [0x0001, 0x0100, 0x4000, 0x8000, 0xC123, 0xFFFF])
def test_stochastic_has_no_bias(lower_half: int, sign: int) -> None:
    """Over many keys one element goes up as often as the bits that it loses say."""
    keys = torch.tensor([rounding.key(0, step, 0) for step in range(2**14)])
    wide = sign * as_float(torch.tensor(0x3F800000 + lower_half)).expand(4, 1)
    index = torch.tensor([[0], [1], [1000], [2**40 + 1]])
    up = sign * rounding.stochastic(wide, keys, index).float() > 1
    chance = lower_half / 2**16
    deviation = math.sqrt(chance * (1 - chance) / up.shape[1])
    assert (up.double().mean(1) - chance).abs().max() < 4.5 * deviation


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_does_not_matter(layout: str) -> None:
    """Where an element lies in memory changes no bit."""
    plain = random_floats(2 * 3 * 5 * 7).view(2, 3, 5, 7)
    index = torch.arange(plain.numel()).view(plain.shape)
    other = LAYOUTS[layout](plain)
    assert not other.is_contiguous()
    assert same_bits(rounding.stochastic(other, 5, index), rounding.stochastic(plain, 5, index))
    hi, lo = rounding.split(other)
    plain_hi, plain_lo = rounding.split(plain)
    assert same_bits(hi, plain_hi)
    assert torch.equal(lo, plain_lo)
    assert same_bits(rounding.combined(hi, lo), rounding.combined(plain_hi, plain_lo))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_scalars_and_nothing(shape: tuple[int, ...]) -> None:
    """Tensors of no dimension and of no element pass."""
    wide = torch.full(shape, 0.1)
    assert same_bits(rounding.combined(*rounding.split(wide)), wide)
    assert rounding.stochastic(wide, 1, torch.zeros(shape, dtype=torch.int64)).shape == shape


def test_a_part_rounds_as_in_the_whole() -> None:
    """A shard that knows its indices gets the bits that the whole parameter gets."""
    wide = random_floats(1003)
    index = torch.arange(len(wide))
    whole = rounding.stochastic(wide, 5, index)
    parts = zip(wide.chunk(3), index.chunk(3), strict=True)
    assert same_bits(torch.cat([rounding.stochastic(x, 5, at) for x, at in parts]), whole)


def test_the_hash_is_lowbias32() -> None:
    """It is the published function on unsigned 32-bit integers, for ints and for tensors."""
    words = np.random.default_rng(0).integers(2**32, size=10**5, dtype=np.uint32)
    words = np.concatenate([words, np.array([0, 1, 2**31, 2**32 - 1], dtype=np.uint32)])
    expected = words ^ (words >> 16)
    expected *= np.uint32(0x7FEB352D)
    expected ^= expected >> 15
    expected *= np.uint32(0x846CA68B)
    expected ^= expected >> 16
    hashed = rounding.mix(torch.from_numpy(words.astype(np.int64)))
    assert hashed.tolist() == expected.tolist()
    assert [rounding.mix(word) for word in words[-99:].tolist()] == expected[-99:].tolist()


def test_every_input_bit_turns_every_output_bit_half_of_the_time() -> None:
    """Avalanche: no bit of the hash depends on too little."""
    words = torch.randint(2**32, (2**14,), generator=torch.Generator().manual_seed(0))
    flips = torch.stack([rounding.mix(words) ^ rounding.mix(words ^ (1 << i)) for i in range(32)])
    turned = (flips[..., None] >> torch.arange(32)) & 1
    shares = turned.double().mean(1)  # input bit, output bit
    assert (shares - 0.5).abs().max() < 5 * 0.5 / math.sqrt(len(words))


def test_neighbours_do_not_know_of_each_other() -> None:
    """Parameters, steps and elements in a row are fair coins, each thrown for itself."""
    keys = torch.tensor([[rounding.key(0, step, o) for step in range(64)] for o in range(8)])
    halfway = as_float(torch.tensor(0x3F808000)).expand(8, 64, 2**11)
    up = rounding.stochastic(halfway, keys[..., None], torch.arange(2**11)) > halfway
    coins = 2.0 * up - 1
    assert coins.mean().abs() < 4.5 / math.sqrt(coins.numel())
    for dim in range(3):
        for distance in (1, 2, 4):
            length = coins.shape[dim] - distance
            pairs = coins.narrow(dim, 0, length) * coins.narrow(dim, distance, length)
            assert pairs.mean().abs() < 4.5 / math.sqrt(pairs.numel())


def test_every_noise_is_equally_likely() -> None:
    """Sixteen uniform bits: the chi-square over all values is within its own noise."""
    index = torch.arange(2**16)
    counts = torch.zeros(2**16, dtype=torch.int64)
    for step in range(16):
        noise = rounding.mix(index ^ rounding.mix(rounding.key(0, step, 0))) & 0xFFFF
        counts += noise.bincount(minlength=2**16)
    chi_square = ((counts - 16.0).square() / 16).sum()
    assert abs(chi_square - 2**16) < 4.5 * math.sqrt(2 * 2**16)


def test_keys_differ() -> None:
    """Seed, step and parameter each make another key, in their upper halves too."""
    numbers = [0, 1, 2, 2**31, 2**32, 2**32 + 1, 2**62]
    keys = {rounding.key(a, b, c) for a in numbers for b in numbers for c in numbers}
    assert len(keys) == len(numbers) ** 3
    assert all(0 < key < 2**32 for key in keys)


@pytest.mark.parametrize("step", [0, 1, 77, 2**32 + 3])
def test_a_step_on_the_device_gives_the_same_bits(step: int) -> None:
    """A key is the same number from an int and from a tensor, and rounds alike."""
    key, on_device = rounding.key(-5, step, 3), rounding.key(-5, torch.tensor(step), 3)
    assert isinstance(on_device, Tensor)
    assert on_device.shape == ()
    assert on_device.item() == key
    wide, index = random_floats(1003), torch.arange(1003) + 2**33
    from_int = rounding.stochastic(wide, key, index)
    assert same_bits(rounding.stochastic(wide, on_device, index), from_int)


def test_elements_beyond_the_32nd_bit_have_noise_of_their_own() -> None:
    """The upper half of an index is not forgotten."""
    halfway = as_float(torch.tensor(0x3F808000)).expand(1000)
    first = rounding.stochastic(halfway, 1, torch.arange(1000))
    beyond = rounding.stochastic(halfway, 1, torch.arange(1000) + 2**32)
    assert 400 < (first != beyond).sum() < 600


# torch's own compiler uses, when it is first imported, what torch deprecates.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_gives_the_same_bits() -> None:
    """One graph of all the functions rounds as the plain calls do."""

    def all_of_it(wide: Tensor, step: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        hi, lo = rounding.split(wide)
        key = rounding.key(7, step, 3)
        return rounding.combined(hi, lo), rounding.stochastic(wide, key, index), hi

    given = (random_floats(1003), torch.tensor(5), torch.arange(1003))
    compiled = torch.compile(all_of_it, fullgraph=True)(*given)
    assert all(map(same_bits, compiled, all_of_it(*given)))
