"""The copy of a state in host memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from liontool.checkpoint.formats.safetensors_file import DTYPES, SafetensorsDocument
from liontool.errors import ResumeError, StateTypeError
from liontool.resume.host_copy import HostCopy
from liontool.resume.snapshot import Body


def written(body: Body, folder: Path) -> Path:
    """The body as a file."""
    path = folder / "state.safetensors"
    path.write_bytes(body.header + bytes(body.data))
    return path


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by the library."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same kind and bits."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and a.contiguous()
        .reshape(-1)
        .view(torch.uint8)
        .equal(b.contiguous().reshape(-1).view(torch.uint8))
    )


def address(body: Body) -> int:
    """Where the tensors lie."""
    return torch.frombuffer(body.data, dtype=torch.uint8).data_ptr()


def some() -> dict[str, Tensor]:
    """Tensors of several sizes of elements."""
    generator = torch.Generator().manual_seed(0)
    return {
        "flags": torch.tensor([True, False, True]),
        "weight": torch.randn(5, 7, generator=generator),
        "half": torch.randn(3, generator=generator).bfloat16(),
        "step": torch.tensor(12),
    }


def test_the_library_reads_the_same_tensors(tmp_path: Path) -> None:
    """What safetensors reads is what was taken."""
    tensors = some()
    found = read(written(HostCopy().take(tensors), tmp_path))
    assert found.keys() == tensors.keys()
    assert all(same(found[name], tensors[name]) for name in tensors)


def test_our_own_reader_reads_the_same_kinds(tmp_path: Path) -> None:
    """The strict reader finds the same names, dtypes and shapes, and the metadata."""
    tensors = some()
    document = SafetensorsDocument(written(HostCopy().take(tensors), tmp_path))
    kinds = {name: (ref.dtype, ref.shape) for name, ref in document.tree.items()}
    assert kinds == {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }
    assert document.facts == {"format": "pt"}


@pytest.mark.parametrize("name", DTYPES.values())
def test_each_dtype_of_the_format(name: str, tmp_path: Path) -> None:
    """Any bits of any dtype that safetensors has come back; NaNs keep their payload."""
    generator = torch.Generator().manual_seed(0)
    most = 2 if name == "bool" else 256
    data = torch.randint(0, most, (64,), generator=generator, dtype=torch.uint8)
    tensors = {"odd": torch.ones(3, dtype=torch.int8), "x": data.view(getattr(torch, name))}
    assert same(read(written(HostCopy().take(tensors), tmp_path))["x"], tensors["x"])


def test_a_dtype_that_the_format_lacks_lies_as_bytes(tmp_path: Path) -> None:
    """complex128 is written as the bytes of its elements in order, lazily conjugated or not."""
    value = torch.tensor([[1 + 2j, 3 - 4j], [0j, -1j]], dtype=torch.complex128)
    tensors = {"plain": value, "lazy": value.conj().T, "scalar": value[0, 0]}
    found = read(written(HostCopy().take(tensors), tmp_path))
    for name, tensor in tensors.items():
        dense = tensor.resolve_conj().contiguous().reshape(-1)
        assert found[name].dtype == torch.uint8
        assert found[name].view(torch.complex128).equal(dense)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).view(3, 4).T,
        torch.arange(12.0)[::3],
        torch.arange(3.0).expand(4, 3),
        torch.tensor(3.5),
        torch.empty(0),
        torch.empty(3, 0, 2, dtype=torch.int64),
        torch.randn(3, dtype=torch.complex64, generator=torch.Generator().manual_seed(0)).conj(),
        torch.ones(3, dtype=torch.complex64).conj().imag,
        torch.arange(24.0).view(1, 2, 3, 4).to(memory_format=torch.channels_last),
        torch.ones(3, requires_grad=True),
    ],
    ids=["transposed", "strided", "expanded", "scalar", "empty", "empty-3d", "conj", "neg",
         "channels-last", "requires-grad"],
)  # fmt: skip
def test_each_way_to_lie_in_memory(tensor: Tensor, tmp_path: Path) -> None:
    """However a tensor lies in memory, its elements come in order."""
    found = read(written(HostCopy().take({"odd": torch.ones(1).bool(), "x": tensor}), tmp_path))
    assert found["x"].equal(tensor.detach().resolve_conj().resolve_neg().contiguous())


def test_nothing_at_all(tmp_path: Path) -> None:
    """A state without tensors is a file without tensors."""
    assert read(written(HostCopy().take({}), tmp_path)) == {}


def test_the_tensors_are_aligned(tmp_path: Path) -> None:
    """Every tensor begins in the file at a multiple of its element size."""
    tensors = {
        str(i): torch.ones(3, dtype=dtype)
        for i, dtype in enumerate([torch.int8, torch.float64, torch.bfloat16, torch.complex128])
    }
    body = HostCopy().take(tensors)
    assert len(body.header) % 8 == 0
    document = SafetensorsDocument(written(body, tmp_path))
    for name, ref in document.tree.items():
        offset = ref.source.storage.span.offset  # type: ignore[union-attr]
        size = tensors[name].itemsize if ref.dtype != "uint8" else 1
        assert offset % size == 0


def test_the_memory_is_used_again() -> None:
    """From `prepare` on every body lies at the same address."""
    copy = HostCopy()
    copy.prepare(some())
    first = address(copy.take(some()))
    assert [address(copy.take(some())) for _ in range(3)] == [first] * 3


def test_a_body_does_not_follow_the_tensors() -> None:
    """What changes after `take` is not in the body; the next `take` has it."""
    copy, tensor = HostCopy(), torch.zeros(4)
    body = copy.take({"x": tensor})
    tensor.fill_(1)
    assert bytes(body.data) == bytes(16)
    assert bytes(copy.take({"x": tensor}).data) == tensor.numpy().tobytes()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: {**tensors, "more": torch.ones(2 << 20)},
        lambda tensors: {**tensors, "more": torch.ones(1)},
        lambda tensors: {**tensors, "weight": torch.ones(7, 5)},
        lambda tensors: {**tensors, "half": tensors["half"].half()},
        lambda tensors: {"weight": tensors["weight"]},
        lambda tensors: {"renamed": tensors["weight"]},
    ],
    ids=["much-more", "more", "shape", "dtype", "less", "name"],
)
def test_another_layout_is_taken_as_it_is(change, tmp_path: Path) -> None:
    """A state that has changed its tensors is saved as it is now, and so is the old one again."""
    copy, tensors = HostCopy(), some()
    copy.prepare(tensors)
    for now in (change(tensors), tensors):
        found = read(written(copy.take(now), tmp_path))
        assert found.keys() == now.keys()
        assert all(same(found[name], now[name]) for name in now)


def test_many_tensors_of_one_storage(tmp_path: Path) -> None:
    """Tensors that share memory are copied each under its name."""
    base = torch.arange(6.0)
    found = read(written(HostCopy().take({"a": base[:4], "b": base[2:]}), tmp_path))
    assert found["a"].tolist() == [0, 1, 2, 3]
    assert found["b"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.eye(2).to_sparse(), "x: a tensor that is torch.sparse_coo cannot be saved"),
        (torch.ones(2, device="meta"), "x: a tensor that is on the meta device cannot be saved"),
    ],
    ids=["sparse", "meta"],
)
def test_a_tensor_without_plain_bytes_is_refused(tensor: Tensor, said: str) -> None:
    """The error names the tensor and what it is."""
    with pytest.raises(StateTypeError, match=said):
        HostCopy().prepare({"x": tensor})


def test_the_name_of_the_metadata_is_refused() -> None:
    """No tensor can have the name under which the format keeps its strings."""
    with pytest.raises(StateTypeError, match="cannot be named '__metadata__'; rename it"):
        HostCopy().prepare({"__metadata__": torch.ones(1)})


def test_memory_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how much was needed."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refused)
    with pytest.raises(ResumeError, match=r"needs 2,097,152 bytes of memory .* Cannot allocate"):
        HostCopy().prepare({"x": torch.ones(1)})


def test_workers_do_not_get_the_memory() -> None:
    """The pages are not copied at a fork: else the parent would pay for new ones after it."""
    body = HostCopy().take(some())
    at = address(body)
    flags = next(flags for begin, end, flags in mappings() if begin <= at < end)
    assert "dc" in flags


def mappings() -> list[tuple[int, int, list[str]]]:
    """Begin, end and flags of every mapping of this process."""
    found, span = [], (0, 0)
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *words = line.split()
        if first == "VmFlags:":
            found.append((*span, words))
        elif not first.endswith(":"):
            begin, end = first.split("-")
            span = int(begin, 16), int(end, 16)
    return found
