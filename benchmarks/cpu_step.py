"""What does an optimizer step cost on a CPU, beside other optimizers and beside what memory allows?

The limit is a loop that reads three streams and writes two of them back, as Lion must, through the
same threads. Everything that is compared runs in turn, in a random order in each round, on the same
weights, gradients and states; medians of the ratios round by round count. Peers that are not
installed are left out.

    python benchmarks/cpu_step.py [--quick] [--big] [--rounds 15] [--only NAME,NAME]
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim.kernels import cpu, cpu_library, cpu_schedule, cpu_threads

LR, BETAS, WEIGHT_DECAY = 1e-4, (0.9, 0.99), 0.01
LION = {"lr": LR, "betas": BETAS, "weight_decay": WEIGHT_DECAY}
ADAMW = {"lr": LR, "weight_decay": WEIGHT_DECAY}
SGD = {"lr": LR, "momentum": 0.9, "weight_decay": WEIGHT_DECAY}
HOPELESS = 30  # times the limit; what is slower is timed three times and no more
CACHES = 2**26  # floats, more than any cache holds

STREAM = """
#include <stdint.h>
typedef struct { float *a, *b, *c; int64_t n, next; } Work;
static void work(void *argument) {
    Work *w = argument;
    for (;;) {
        int64_t i = __atomic_fetch_add(&w->next, 65536, __ATOMIC_RELAXED);
        if (i >= w->n) return;
        float *restrict a = w->a + i, *restrict b = w->b + i, *restrict c = w->c + i;
        for (int64_t line = 0; line < 65536; line += 16) {
            __builtin_prefetch(a + line + 512);
            __builtin_prefetch(b + line + 512);
            __builtin_prefetch(c + line + 512);
            for (int64_t j = line; j < line + 16; j++) {
                float x = a[j], y = b[j], z = c[j];
                a[j] = x * 0.999f + y * 1e-6f;
                c[j] = z * 0.9f + y * 0.1f;
            }
        }
    }
}
void stream(float *a, float *b, float *c, int64_t n, unsigned threads,
            void (*parallel)(void (*)(void *), void *, unsigned, unsigned)) {
    Work w = {a, b, c, n, 0};
    if (parallel && threads > 1) parallel(work, &w, threads, 0);
    else work(&w);
}
"""


@dataclass
class Tensors:
    """What all candidates work on: weights with gradients, and two states."""

    params: list[Parameter]
    exp_avgs: list[Tensor]
    others: list[Tensor]
    grads: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.grads = [param.grad.clone() for param in self.params if param.grad is not None]

    @property
    def bytes(self) -> int:
        """What a step of Lion reads and writes."""
        return 5 * sum(param.numel() * param.element_size() for param in self.params)

    def restore_gradients(self) -> None:
        """Some optimizers overwrite them."""
        for param, grad in zip(self.params, self.grads, strict=True):
            if param.grad is None:
                param.grad = torch.empty_like(grad)
            param.grad.copy_(grad)


@dataclass
class Candidate:
    """Something to time."""

    name: str
    step: Callable[[], Any]
    times: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


class KernelAlone:
    """The kernel without the optimizer around it."""

    def __init__(self, tensors: Tensors, **options: Any) -> None:
        self.params = tensors.params
        pairs = zip(tensors.params, tensors.exp_avgs, strict=True)
        self.plan = cpu.Plan([cpu_schedule.Entry(p.data, m, None, 0) for p, m in pairs])
        numbers = (1 - LR * WEIGHT_DECAY, LR, BETAS[0], 1 - BETAS[0], BETAS[1], 1 - BETAS[1])
        self.hypers = [cpu.Hypers(*numbers, **options)]

    def step(self) -> None:
        if not self.plan.holds():
            raise RuntimeError("the weights have moved")
        self.plan.step([param.grad for param in self.params], self.hypers)


class Limit:
    """The time in which memory could do what a step of Lion asks of it."""

    def __init__(self, elements: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "stream.c"
            source.write_text(STREAM, encoding="utf-8")
            self.stream = ctypes.CDLL(str(cpu_library.build(source, ("-march=native",)))).stream
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        self.stream.argtypes = [pointer, pointer, pointer, integer, ctypes.c_uint, pointer]
        size = max(elements, 2**24) // 2**16 * 2**16  # what a thread takes at once
        self.buffers = [torch.ones(size) for _ in range(3)]
        self.bytes = 5 * 4 * self.buffers[0].numel()

    def rate(self) -> float:
        """Bytes per second."""
        starts = [buffer.data_ptr() for buffer in self.buffers]
        size = self.buffers[0].numel()
        begin = time.perf_counter()
        self.stream(*starts, size, cpu_threads.count(), cpu_threads.pool())
        return self.bytes / (time.perf_counter() - begin)


def shapes(name: str) -> list[tuple[int, ...]]:
    """The tensors of a model."""
    if name == "1,000 small tensors":
        return [(128, 128), (128,), (64, 48), (128,)] * 250
    if name == "one tensor of 256M":
        return [(2**28,)]
    layers, vocabulary = (12, 50257) if name == "GPT-2 124M" else (2, 1000)
    layer = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,)]
    layer += [(768, 3072), (3072,), (3072, 768), (768,)]
    return [(vocabulary, 768), (1024, 768), *layer * layers, (768,), (768,)]


def tensors(name: str, dtype: torch.dtype) -> Tensors:
    """Weights, gradients and states; some elements have neither gradient nor momentum."""
    torch.manual_seed(0)
    params = [Parameter((torch.randn(shape) * 0.02).to(dtype)) for shape in shapes(name)]
    for param in params:
        param.grad = (torch.randn(param.shape) * 1e-3).to(dtype)
        param.grad.view(-1)[:7] = 0
    exp_avgs = [(torch.randn(param.shape) * 1e-4).to(dtype) for param in params]
    return Tensors(params, exp_avgs, [torch.full_like(param.data, 1e-6) for param in params])


def found(module: str, name: str) -> Callable[..., Any]:
    """An optimizer of a package that may be absent."""
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def lions(t: Tensors) -> dict[str, Callable[[], Any]]:
    """How each candidate for Lion is made."""
    p = t.params
    return {
        "liontool Lion": lambda: found("liontool.optim", "Lion")(p, **LION),
        "liontool Lion, its kernel alone": lambda: KernelAlone(t),
        "liontool Lion, foreach": lambda: found("liontool.optim", "Lion")(p, foreach=True, **LION),
        "liontool LionSF": lambda: found("liontool.optim", "LionSF")(p, **LION),
        "liontool LionSF, its kernel alone": lambda: KernelAlone(t, agreement="tensor"),
        "DeepSpeed CPULion": lambda: found("deepspeed.ops.lion", "DeepSpeedCPULion")(
            p, fp32_optimizer_states=False, **LION
        ),
        "torch SGD, momentum, fused": lambda: torch.optim.SGD(p, fused=True, **SGD),
        "torch AdamW, fused": lambda: torch.optim.AdamW(p, fused=True, **ADAMW),
        "torch AdamW": lambda: torch.optim.AdamW(p, **ADAMW),
        "lion-pytorch": lambda: found("lion_pytorch", "Lion")(p, **LION),
        "lion-pytorch, foreach": lambda: found("lion_pytorch.foreach", "Lion")(p, **LION),
        "torch-optimi": lambda: found("optimi", "Lion")(p, triton=False, **LION),
        "pytorch_optimizer": lambda: found("pytorch_optimizer", "Lion")(p, **LION),
        "bitsandbytes": lambda: found("bitsandbytes.optim", "Lion")(p, **LION),
        "timm": lambda: found("timm.optim", "Lion")(p, **LION),
    }


def candidates(t: Tensors, only: list[str]) -> list[Candidate]:
    """Those that are installed and do a step; their states lie in shared memory then."""
    usable = []
    for name, make in lions(t).items():
        if only and not any(each in name for each in only):
            continue
        try:
            optimizer = make()
            optimizer.step()
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            print(f"left out: {name}: {type(error).__name__}: {said[:90]}", file=sys.stderr)
            continue
        share_states(optimizer, t)
        t.restore_gradients()
        usable.append(Candidate(name, optimizer.step))
    return usable


def share_states(optimizer: Any, t: Tensors) -> None:
    """Let all optimizers have the same states, or they would not fit into memory."""
    for param, *shared in zip(t.params, t.exp_avgs, t.others, strict=True):
        state = getattr(optimizer, "state", {}).get(param, {})
        for name, value in state.items():
            alike = isinstance(value, Tensor) and value.dtype == param.dtype
            if alike and value.dim() and value.shape == param.shape and shared:
                state[name] = shared.pop(0)


def compare(t: Tensors, only: list[str], rounds: int) -> tuple[list[Candidate], float]:
    """Time all candidates in turn; returns them and the limit in seconds."""
    contestants, limit = candidates(t, only), Limit(t.bytes // 80)
    caches = torch.ones(CACHES)
    limits = []
    for number in range(rounds):
        random.shuffle(contestants)
        rates = [limit.rate() for _ in range(3)]
        times = {}
        for each in contestants:
            if number >= 3 and statistics.median(each.ratios) > HOPELESS:
                continue
            t.restore_gradients()
            caches.sum()
            begin = time.perf_counter()
            each.step()
            times[each.name] = time.perf_counter() - begin
        rates += [limit.rate() for _ in range(3)]
        limits.append(t.bytes / statistics.median(rates))
        for each in contestants:
            if each.name in times:
                each.times.append(times[each.name])
                each.ratios.append(times[each.name] / limits[-1])
    contestants.sort(key=lambda each: statistics.median(each.ratios))
    return contestants, statistics.median(limits)


def print_rows(name: str, dtype: torch.dtype, only: list[str], rounds: int) -> None:
    """The fastest first."""
    contestants, limit = compare(tensors(name, dtype), only, rounds)
    start = f"| {name} | {str(dtype).removeprefix('torch.')} |"
    print(f"{start} the limit | {limit * 1e3:.2f} | 1 | |")
    for each in contestants:
        ms = statistics.median(each.times) * 1e3
        ratio, best = statistics.median(each.ratios), min(each.ratios)
        print(f"{start} {each.name} | {ms:.2f} | {ratio:.2f} | {best:.2f} |", flush=True)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small models, three rounds")
    parser.add_argument("--big", action="store_true", help="one tensor of 256M elements too, 9 GB")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="names or parts of names, by comma")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    lists = ["a small GPT-2" if arguments.quick else "GPT-2 124M", "1,000 small tensors"]
    lists += ["one tensor of 256M"] if arguments.big else []
    only = [name for name in arguments.only.split(",") if name]
    rounds = 3 if arguments.quick else arguments.rounds
    sets = ", ".join(cpu_library.instruction_sets())
    print(f"torch {torch.__version__}, {cpu_threads.count()} threads; {sets}; {rounds} rounds\n")
    print("| tensors | dtype | optimizer | ms | x limit | fastest x limit |")
    print("|---|---|---|---|---|---|")
    for name in lists:
        for dtype in (torch.float32, torch.bfloat16):
            print_rows(name, dtype, only, rounds)


if __name__ == "__main__":
    main()
