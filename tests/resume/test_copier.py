"""Many tensors copied at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from liontool.resume import copier
from liontool.resume.copier import Copier

LARGE = copier._SMALL


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Lets torch have so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def sources() -> list[Tensor]:
    """Small and large ones, and large ones that do not lie as they are to be written."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(512, 300, generator=generator)
    wave = torch.randn(LARGE, dtype=torch.complex64, generator=generator)
    return [
        torch.randn(3, generator=generator),
        torch.randn(LARGE - 1, generator=generator),
        torch.randn(LARGE, generator=generator),
        torch.randint(0, 256, (3 * LARGE + 1,), dtype=torch.uint8, generator=generator),
        table,
        table.T,
        table[:, ::2],
        torch.randn(300, generator=generator).expand(512, 300),
        wave.conj(),
        wave.conj().imag,
        torch.tensor(2.5, dtype=torch.float64),
    ]


@pytest.mark.parametrize("threads", [1, 2, 3], indirect=True)
@pytest.mark.parametrize("least", [1000, 8 << 20])
def test_every_tensor_arrives(threads: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they lie and however they are cut, all targets equal their sources."""
    monkeypatch.setattr(copier, "_LEAST", least)
    given = sources()
    targets = [torch.full(source.shape, 7).to(source.dtype) for source in given]
    Copier().copy(targets, given)
    assert all(target.equal(source) for target, source in zip(targets, given, strict=True))


def test_nothing_to_copy_is_nothing() -> None:
    """Empty lists are no error, and start no thread."""
    before = threading.active_count()
    Copier().copy([], [])
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_without_helpers_one_thread_does_all(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that gives no more threads makes a copy slower, and not wrong."""

    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadPoolExecutor, "submit", refused)
    given = [torch.arange(LARGE), torch.arange(LARGE) + 1]
    targets = [torch.zeros_like(source) for source in given]
    Copier().copy(targets, given)
    assert all(target.equal(source) for target, source in zip(targets, given, strict=True))


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_helpers_stay(threads: int) -> None:
    """The second copy starts no more threads than the first."""
    made, given = Copier(), [torch.ones(LARGE), torch.ones(LARGE)]
    counts = []
    for _ in range(3):
        made.copy([torch.zeros(LARGE), torch.zeros(LARGE)], given)
        counts.append(threading.active_count())
    assert counts == counts[:1] * 3
