"""While the CPU kernel works: Python goes on, and what it reads stays where it is."""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion
from liontool.optim.kernels import cpu, cpu_library

pytestmark = pytest.mark.skipif(
    cpu_library.why_none() is not None, reason=str(cpu_library.why_none())
)


class Around:
    """The kernel, with something done around each of its steps."""

    def __init__(self, kernel: Any, around: Callable[[Callable[[], None]], None]) -> None:
        """`around` is given the step, and calls it."""
        self._kernel, self._around = kernel, around

    def liontool_step(self, *arguments: Any) -> None:
        """A step of the kernel."""
        self._around(lambda: self._kernel.liontool_step(*arguments))

    def __getattr__(self, name: str) -> Any:
        """All else is the kernel's."""
        return getattr(self._kernel, name)


@pytest.fixture
def around(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Callable[[Callable[[], None]], None]], None]:
    """Puts something around the steps of all plans that follow."""
    kernel = cpu_library.library()
    return lambda what: monkeypatch.setattr(cpu_library, "library", lambda: Around(kernel, what))


def test_python_goes_on(around: Any) -> None:
    """Another thread counts while the kernel works, although nobody can make this one wait."""
    count, done, seen = [0], threading.Event(), []

    def counting() -> None:
        while not done.is_set():
            count[0] += 1
            time.sleep(1e-5)  # gives the lock back, which the long interval below does not ask for

    def watched(step: Callable[[], None]) -> None:
        before = count[0]
        step()
        seen.append(count[0] - before)

    around(watched)
    weight, grad = torch.ones(2**22), torch.ones(2**22)
    plan = cpu.Plan([cpu.Entry(weight, torch.zeros_like(weight), None, 0)])
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=counting)
    thread.start()
    try:
        sys.setswitchinterval(1000)
        for _ in range(1000):  # one is enough, unless the machine has no time for the thread
            plan.step([grad], [cpu.Hypers(1.0, 1e-3, 0.9, 0.1, 0.99, 0.01)])
            if any(seen):
                break
    finally:
        sys.setswitchinterval(interval)
        done.set()
        thread.join()
    assert any(seen)


@pytest.mark.parametrize("shape", [(1000,), (40, 25)], ids=["read", "copied"])
def test_gradients_that_others_drop(
    around: Any, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    """What the kernel reads lives until it has been read, and no longer."""
    param = Parameter(torch.zeros(shape))
    param.grad = torch.ones(shape[::-1]).permute(*range(len(shape))[::-1])
    read = [weakref.ref(param.grad)] if len(shape) == 1 else []
    alive: list[bool] = []
    laid_out = cpu.laid_out

    def copied(grad: Tensor, like: Tensor) -> Tensor:
        copy = laid_out(grad, like)
        read.append(weakref.ref(copy))
        return copy

    def drop() -> None:
        param.grad = None

    def dropped(step: Callable[[], None]) -> None:
        other = threading.Thread(target=drop)
        other.start()
        other.join()
        alive.extend(each() is not None for each in read)
        torch.zeros(1000)  # would have the memory of a gradient that is gone
        step()

    monkeypatch.setattr(cpu, "laid_out", copied)
    around(dropped)
    Lion([param], lr=0.5, weight_decay=0.0).step()
    assert alive == [True]
    assert [each() for each in read] == [None]
    assert torch.equal(param, torch.full(shape, -0.5))
