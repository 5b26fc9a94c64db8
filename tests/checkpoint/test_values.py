"""Elements of stored tensors against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from liontool.checkpoint import reading, values
from liontool.checkpoint.document import ITEM_SIZES, Computed, Span, Storage, Stored, TensorRef
from liontool.errors import LayoutError, ReadError, SourceChangedError
from support.stored import loaded, raw_bytes, stored

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

FLOATS = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool]
UNSIGNED = [torch.uint16, torch.uint32, torch.uint64]
COMPLEX = [torch.complex64, torch.complex128, torch.complex32]


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def random_tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if dtype in COMPLEX:
        return torch.randn(shape, generator=generator, dtype=torch.complex64).to(dtype)
    if dtype in FLOATS:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator).to(dtype)


def all_codes(dtype: torch.dtype) -> torch.Tensor:
    """Every bit pattern of a type of one or two bytes."""
    kind = torch.uint8 if dtype.itemsize == 1 else torch.uint16
    codes = np.arange(256**dtype.itemsize).astype(f"u{dtype.itemsize}")
    return torch.from_numpy(codes).view(kind).view(dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, *UNSIGNED], ids=name)
def test_scalar_is_the_number_that_torch_sees(tmp_path: Path, dtype: torch.dtype) -> None:
    """One element of every dtype is read without numpy."""
    tensor = torch.tensor([0, 1], dtype=torch.float32).to(dtype)[1:]
    assert values.scalar(stored(tmp_path / "f", tensor)) == tensor.to(torch.float64).item()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int32], ids=name)
def test_scalar_of_a_big_endian_file(tmp_path: Path, dtype: torch.dtype) -> None:
    """The order of bytes is taken from the storage."""
    tensor = torch.tensor([-3], dtype=dtype)
    assert values.scalar(stored(tmp_path / "f", tensor, byteorder="big")) == -3


def test_scalar_needs_one_element(tmp_path: Path) -> None:
    """Two numbers are no number."""
    tensor = stored(tmp_path / "f", torch.ones(2), label="state.0.step")
    with pytest.raises(LayoutError, match=r"state\.0\.step: must be one real number.*shape \[2\]"):
        values.scalar(tensor)


def test_scalar_must_be_real(tmp_path: Path) -> None:
    """A complex number is no learning rate."""
    with pytest.raises(LayoutError, match="must be one real number, found a tensor of complex64"):
        values.scalar(stored(tmp_path / "f", torch.ones(1, dtype=torch.complex64)))


@pytest.mark.parametrize("code", range(0, 256, 5))
def test_scalar_of_float8_e8m0(tmp_path: Path, code: int) -> None:
    """A scale of eight bits is a power of two."""
    tensor = torch.tensor([code], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    found = values.scalar(stored(tmp_path / "f", tensor))
    assert found == tensor.float().item() or (np.isnan(found) and code == 255)


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d.itemsize <= 2], ids=name)
def test_blocks_decode_every_code_as_torch_does(tmp_path: Path, dtype: torch.dtype) -> None:
    """Every bit pattern of a small float becomes the same float32."""
    tensor = all_codes(dtype)
    found = np.concatenate([b.copy() for b in values.blocks(stored(tmp_path / "f", tensor), 100)])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, tensor.float().numpy())


@pytest.mark.parametrize("dtype", [*INTEGERS, *UNSIGNED, torch.float64, torch.float32], ids=name)
def test_blocks_keep_other_types(tmp_path: Path, dtype: torch.dtype) -> None:
    """Types that numpy has stay what they are."""
    tensor = random_tensor(dtype, 1000)
    found = np.concatenate([b.copy() for b in values.blocks(stored(tmp_path / "f", tensor), 64)])
    assert found.dtype == tensor.numpy().dtype
    np.testing.assert_array_equal(found, tensor.numpy())


@pytest.mark.parametrize("dtype", COMPLEX, ids=name)
def test_blocks_of_complex_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    """Half complex numbers come as complex64."""
    tensor = random_tensor(dtype, 100)
    found = np.concatenate([b.copy() for b in values.blocks(stored(tmp_path / "f", tensor), 64)])
    wide = tensor if dtype == torch.complex128 else tensor.to(torch.complex64)
    np.testing.assert_array_equal(found, wide.numpy())


VIEWS = {
    "transposed": lambda t: t.transpose(0, 1),
    "permuted": lambda t: t.permute(2, 0, 1),
    "every third": lambda t: t[::3, 1:, ::2],
    "expanded": lambda t: t[:1].expand(5, *t.shape[1:]),
    "one row": lambda t: t[2],
    "one column": lambda t: t[..., 1],
    "reversed ones": lambda t: t[1:2].permute(2, 1, 0),
    "empty": lambda t: t[:0].transpose(0, 2),
}


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("size", [1, 100, 1 << 20])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=name)
def test_views_are_gathered(
    tmp_path: Path, dtype: torch.dtype, view: str, size: int, byteorder: str
) -> None:
    """A view comes in its own order, whatever the strides, the blocks and the order of bytes."""
    tensor = VIEWS[view](random_tensor(dtype, 7, 5, 6))
    ref = stored(tmp_path / "f", tensor, byteorder=byteorder, before=b"odd")
    assert b"".join(bytes(block) for block in values.byte_blocks(ref, size)) == raw_bytes(tensor)


def test_blocks_are_bounded(tmp_path: Path) -> None:
    """No block is larger than asked for, gathered or not."""
    tensor = random_tensor(torch.float32, 100, 70)
    for view in (tensor, tensor.t()):
        ref = stored(tmp_path / "f", view)
        assert max(len(block) for block in values.byte_blocks(ref, 256)) <= 256


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d != torch.float64], ids=name)
def test_to_bytes_rounds_as_torch_does(dtype: torch.dtype) -> None:
    """Nearest, ties to even; overflow, zeros and subnormals included."""
    near = all_codes(torch.bfloat16).float()
    halves = all_codes(torch.float16).float()
    tensor = torch.cat([near, halves, near * 1.00390625, halves * 1.0625, halves * 1.25])
    small = all_codes(dtype).float() if dtype.itemsize == 1 else torch.empty(0)
    tensor = torch.cat([tensor, (small[1:] + small[:-1]) / 2, random_tensor(torch.float32, 10_000)])
    found = torch.frombuffer(bytearray(values.to_bytes(tensor.numpy(), name(dtype))), dtype=dtype)
    expected = tensor.to(dtype)
    nan = expected.float().isnan()
    assert torch.equal(found.float().isnan(), nan)
    kind = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[dtype.itemsize]
    assert torch.equal(found.view(kind)[~nan], expected.view(kind)[~nan])


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool", "uint64", "complex128"])
def test_to_bytes_of_types_that_numpy_has(dtype: str) -> None:
    """They go through numpy's own conversion."""
    array = np.array([0.0, 1.0, 1.0])
    expected = torch.tensor([0, 1, 1], dtype=getattr(torch, dtype))
    assert values.to_bytes(array, dtype) == raw_bytes(expected)


@pytest.mark.parametrize("dtype", ["complex32", "float8_e8m0fnu"])
def test_to_bytes_refuses_types_that_are_only_copied(dtype: str) -> None:
    """Nothing is rounded into a type whose rounding nobody has defined here."""
    with pytest.raises(LayoutError, match=f"{dtype} can be copied, but nothing can be computed"):
        values.to_bytes(np.zeros(1), dtype)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=name)
def test_from_scalars_gives_a_tensor(dtype: torch.dtype) -> None:
    """Numbers become a computed tensor that reads back."""
    tensor = values.from_scalars(name(dtype), [1, 0], (2,))
    assert torch.equal(loaded(tensor).float(), torch.tensor([1.0, 0.0]))
    assert values.scalar(values.from_scalars(name(dtype), [1])) == 1


def test_from_scalars_keeps_large_integers() -> None:
    """A count beyond 2**53 is not rounded."""
    assert values.scalar(values.from_scalars("int64", [2**62 + 1])) == 2**62 + 1


def test_from_scalars_needs_as_many_numbers_as_elements() -> None:
    """A wrong count is a mistake of the caller."""
    with pytest.raises(ValueError, match="1 numbers do not fill the shape"):
        values.from_scalars("float32", [1.0], (2,))


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d.itemsize <= 2], ids=name)
def test_all_finite_knows_every_code(dtype: torch.dtype) -> None:
    """Of each single code it says what torch.isfinite says."""
    codes = all_codes(dtype)
    data = raw_bytes(codes)
    size = dtype.itemsize
    found = [values.all_finite(data[i : i + size], name(dtype)) for i in range(0, len(data), size)]
    assert found == torch.isfinite(codes.float()).tolist()


@pytest.mark.parametrize("bad", [float("nan"), -float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [*FLOATS[:4], *COMPLEX], ids=name)
@pytest.mark.parametrize("order", ["little", "big"])
def test_all_finite_finds_one_bad_number(
    tmp_path: Path, dtype: torch.dtype, bad: float, order: str
) -> None:
    """One NaN or infinity among the largest finite numbers is found in either order of bytes."""
    tensor = torch.full((1001,), torch.finfo(dtype).max, dtype=dtype)
    tensor[::2] *= -1
    ref = stored(tmp_path / "f", tensor, byteorder=order)
    assert values.all_finite((tmp_path / "f").read_bytes()[:-5], ref.dtype, order)
    tensor[700] = bad
    ref = stored(tmp_path / "f", tensor, byteorder=order)
    assert not values.all_finite((tmp_path / "f").read_bytes()[:-5], ref.dtype, order)
    assert values.count_nonfinite(ref) == 1


def test_integers_are_finite(tmp_path: Path) -> None:
    """No pattern of bits makes an integer infinite."""
    ref = stored(tmp_path / "f", torch.full((4,), -1))
    assert values.all_finite(b"\xff" * 32, "int64")
    assert values.count_nonfinite(ref) == 0
    assert values.all_finite(b"", "float32")


def test_every_dtype_has_an_answer() -> None:
    """Each dtype of the model can be looked at and decoded."""
    for dtype, size in ITEM_SIZES.items():
        tensor = TensorRef(dtype, (2,), Computed(lambda size=size: iter([bytes(2 * size)])))
        assert [len(block) for block in values.blocks(tensor)] == [2]
        assert values.all_finite(bytes(2 * size), dtype)
        assert values.is_float(dtype) == dtype.startswith(("float", "bfloat"))


def test_a_shortened_file_is_a_changed_source(tmp_path: Path) -> None:
    """What was there at the first look and is gone now is named."""
    tensor = stored(tmp_path / "f", random_tensor(torch.float32, 10, 10))
    view = stored(tmp_path / "g", random_tensor(torch.float32, 10, 10).t())
    for ref, file in ((tensor, "f"), (view, "g")):
        (tmp_path / file).write_bytes(b"short")
        with pytest.raises(SourceChangedError, match=f"{file}: is shorter than when it was first"):
            values.read(ref)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The system's reason comes with the name."""
    for stride in ((1,), (2,)):
        source = Stored(Storage(Span(tmp_path / "gone", 0, 80)), stride)
        with pytest.raises(ReadError, match=r"gone: cannot be (opened|mapped): No such file"):
            values.read(TensorRef("float32", (10,), source))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder or a pipe has no bytes at an offset."""
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ReadError, match="is not a regular file"):
            reading.open_file(path)
