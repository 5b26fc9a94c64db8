"""Which kernel does the groups of an optimizer, seen on parameters of devices that are not here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from liontool.optim import Lion, LionSF, _kernel_triton, _kernels
from liontool.optim._batch import Piece
from liontool.optim.kernels import cpu, triton_layout
from liontool.optim.kernels.triton_layout import interpreted

pytestmark = pytest.mark.skipif(interpreted(), reason="the Triton kernels reach the CPU alone")


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors without memory on any device, and the Triton kernels there."""
    there = dataclasses.replace(_kernels.TRITON, missing=lambda: None)
    monkeypatch.setattr(_kernels, "TRITON", there)
    monkeypatch.setattr(_kernels, "KERNELS", (_kernels.CPU, there))
    for module in (_kernels, cpu, triton_layout):
        monkeypatch.setattr(module, "unreadable", lambda tensor: None)
    monkeypatch.setattr(_kernels, "overlap", lambda tensors: False)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def _params(*devices: str) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.empty(3, device=device)) for device in devices]


def _paths(optimizer: torch.optim.Optimizer) -> set[str]:
    return {line.split()[-1] for line in repr(optimizer).splitlines() if "path:" in line}


SUMS: list[tuple[Any, dict[str, Any]]] = [
    (Lion, {"global_clipnorm": 1.0}),
    (LionSF, {"agreement": "group"}),
    (LionSF, {"agreement": "group_signed"}),
]


@pytest.mark.parametrize(("kind", "options"), SUMS, ids=str)
def test_sums_over_devices_have_no_kernel(kind: Any, options: dict[str, Any]) -> None:
    """What is summed over two devices takes torch's operations; on one device it has a kernel."""
    assert _paths(kind(_params("cuda:0", "cuda:0"), **options)) == {"triton"}
    assert _paths(kind(_params("cuda:0", "cuda:1"), **options)) == {"foreach"}
    with pytest.raises(ValueError, match=r"Invalid fused: True with \w+=\S+ over several devices"):
        kind(_params("cuda:0", "cuda:1"), fused=True, **options)


def test_only_the_norm_is_summed_over_groups() -> None:
    """Groups on a device each agree by themselves, but one norm clips all of them."""

    def groups() -> list[dict[str, Any]]:
        return [{"params": _params(device)} for device in ("cuda:0", "cuda:1")]

    assert _paths(LionSF(groups(), agreement="group")) == {"triton"}
    assert _paths(Lion(groups(), global_clipnorm=1.0)) == {"foreach"}


def test_nothing_else_is_summed() -> None:
    """Parameters on several devices have the kernel, device by device; not on several kinds."""
    assert _paths(Lion(_params("cuda:0", "cuda:1"))) == {"triton"}
    assert _paths(LionSF(_params("cuda:0", "cuda:1"), cautious_factor=0.0)) == {"triton"}
    assert _paths(Lion(_params("cuda:0", "cpu"))) == {"foreach"}


def test_each_device_has_its_part() -> None:
    """Pieces keep their order within it."""
    params = _params("cuda:1", "cuda:0", "cuda:1")
    pieces = [Piece(p, i, p, p, p, None, None) for i, p in enumerate(params)]
    assert _kernel_triton._by_device(pieces) == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("cpu", {"rounding": "stochastic"}),
        ("cpu", {"global_clipnorm": 1.0}),
        ("cpu", {"capturable": True}),
        ("cuda", {"cautious_wd": True}),
        ("cuda", {"cautious_factor": 0.5}),
        ("cuda", {"clipnorm": 1.0}),
    ],
    ids=str,
)
def test_what_a_kernel_lacks(device: str, options: dict[str, Any]) -> None:
    """It is refused by name where it is asked for, and takes torch's operations elsewhere."""
    name = {"cpu": "cpu", "cuda": "triton"}[device]
    said = r"Invalid fused: True with {}=\S+, which the {} kernel does not have".format(
        *options, name
    )
    with pytest.raises(ValueError, match=said):
        Lion(_params(device), fused=True, **options)
    assert _paths(Lion(_params(device), **options)) == {"foreach"}
