"""How fast is a step on a GPU, against what memory allows and against every peer that is there?

First what the card copies per second, then whether each peer computes Lion at all, then one table:
ours and the peers on the tensors of GPT-2 124M, of models of 1.3 and 7 billion parameters, and on
3,000 small tensors, in float32 and bfloat16.

    wall   ms of a step among many in a row, by events on the device
    GB/s   bytes that the algorithm must move, over that time; %: of what the card copies
    host   microseconds that a call of step() takes, with nothing left to do on the device
    launch kernels of a step, and `device` the ms that they take together, by torch.profiler

A peer that is not installed is named with the reason, and so is a row that fails, runs out of
memory or takes longer than --limit. Without a GPU nothing is measured.

    python benchmarks/gpu_step.py [--models gpt2,1.3b,7b,small] [--dtypes fp32,bf16]
                                  [--peers liontool,torch] [--budget MS] [--limit SECONDS]
                                  [--json FILE] [--selftest]
    python benchmarks/gpu_step.py --tiles    # our kernel alone, cut in other ways; for who tunes it
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import itertools
import json
import math
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

HYPERS: dict[str, Any] = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.1}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Shapes = list[tuple[int, ...]]


def gpt(width: int, layers: int, vocabulary: int = 50257, context: int = 1024) -> Shapes:
    """The parameters of a GPT-2."""
    block: Shapes = [(width,), (width,), (3 * width, width), (3 * width,), (width, width), (width,)]
    block += [(width,), (width,), (4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    return [(vocabulary, width), (context, width), *block * layers, (width,), (width,)]


def llama(width: int, inner: int, layers: int, vocabulary: int = 32000) -> Shapes:
    """The parameters of a Llama."""
    block: Shapes = [
        *[(width, width)] * 4,
        *[(inner, width)] * 2,
        (width, inner),
        (width,),
        (width,),
    ]
    return [(vocabulary, width), (vocabulary, width), *block * layers, (width,)]


MODELS: dict[str, Callable[[], Shapes]] = {
    "gpt2": lambda: gpt(768, 12),
    "1.3b": lambda: gpt(2048, 24, context=2048),
    "7b": lambda: llama(4096, 11008, 32),
    "small": lambda: [(16, 640)] * 3000,
    "tiny": lambda: [(0,), (1,), (7,), (129,), (33, 65), (1024,)],
}


class Peer(NamedTuple):
    """An optimizer to compare with.

    Attributes:
        make: Builds it from parameters and `HYPERS`.
        moved: Bytes a parameter that it must move, from the bytes of an element.
        lion: Whether its steps are Lion's, and are checked.
    """

    make: Callable[..., Any]
    moved: Callable[[int], float]
    lion: bool = True


def found(module: str, name: str, **fixed: Any) -> Callable[..., Any]:
    """What builds an optimizer of another package, once it is asked to."""

    def make(params: Iterable[Tensor], **hypers: Any) -> Any:
        return getattr(importlib.import_module(module), name)(params, **hypers, **fixed)

    return make


class Compiled(torch.optim.Optimizer):
    """Lion as anyone would write it for torch.compile."""

    def __init__(self, params: Any, **hypers: Any) -> None:
        super().__init__(params, hypers)
        self._compiled = torch.compile(self._update, fullgraph=True)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if not self.state[param]:
                    self.state[param]["exp_avg"] = torch.zeros_like(param)
            grads = [param.grad for param in group["params"]]
            momenta = [self.state[param]["exp_avg"] for param in group["params"]]
            hypers = group["lr"], *group["betas"], group["weight_decay"]
            self._compiled(group["params"], grads, momenta, *hypers)

    @staticmethod
    def _update(params, grads, momenta, lr, beta1, beta2, weight_decay):  # type: ignore[no-untyped-def]
        updates = torch._foreach_mul(momenta, beta1)
        torch._foreach_add_(updates, grads, alpha=1 - beta1)
        torch._foreach_mul_(params, 1 - lr * weight_decay)
        torch._foreach_add_(params, torch._foreach_sign(updates), alpha=-lr)
        torch._foreach_lerp_(momenta, grads, 1 - beta2)


class Graphed:
    """Our Lion, whose steps a CUDA graph replays from the second on."""

    def __init__(self, params: Iterable[Tensor], **hypers: Any) -> None:
        self._optimizer = found("liontool.optim", "Lion", capturable=True)(params, **hypers)
        self._is_warm = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def step(self) -> None:
        if not self._is_warm:
            self._is_warm = True
            self._optimizer.step()
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._optimizer.step()
        self._graph.replay()


class CompiledStep:
    """Our Lion, whose step is one operator in a graph of torch.compile."""

    def __init__(self, params: Iterable[Tensor], **hypers: Any) -> None:
        optimizer = found("liontool.optim", "Lion")(params, **hypers)
        self.step = torch.compile(optimizer.step, fullgraph=True)


PEERS: dict[str, Peer] = {
    "liontool Lion": Peer(found("liontool.optim", "Lion"), lambda size: 5 * size),
    "liontool Lion foreach": Peer(
        found("liontool.optim", "Lion", foreach=True), lambda size: 5 * size
    ),
    "liontool Lion, caution": Peer(
        found("liontool.optim", "Lion", cautious_factor=0.0), lambda size: 5 * size + 0.5, False
    ),
    "liontool LionSF": Peer(found("liontool.optim", "LionSF"), lambda size: 5 * size + 0.5, False),
    "liontool Lion, clip": Peer(
        found("liontool.optim", "Lion", global_clipnorm=1.0), lambda size: 6 * size
    ),
    "CUDA graph of liontool": Peer(Graphed, lambda size: 5 * size),
    "torch.compile of liontool": Peer(CompiledStep, lambda size: 5 * size),
    "lion-pytorch triton": Peer(
        found("lion_pytorch", "Lion", use_triton=True), lambda size: 5 * size
    ),
    "lion-pytorch loop": Peer(found("lion_pytorch", "Lion"), lambda size: 5 * size),
    "timm foreach": Peer(found("timm.optim", "Lion", foreach=True), lambda size: 5 * size),
    "optimi triton": Peer(
        found("optimi", "Lion", triton=True, kahan_sum=False), lambda size: 5 * size
    ),
    "bitsandbytes Lion": Peer(found("bitsandbytes.optim", "Lion"), lambda size: 3 * size + 8),
    "bitsandbytes Lion8bit": Peer(
        found("bitsandbytes.optim", "Lion8bit"), lambda size: 3 * size + 2.03, False
    ),
    "FlashLion": Peer(found("flashoptim", "FlashLion"), lambda size: 3 * size + 4.13, False),
    "DeepSpeed FusedLion": Peer(found("deepspeed.ops.lion", "FusedLion"), lambda size: 5 * size),
    "torch.compile": Peer(Compiled, lambda size: 5 * size),
    "torch AdamW fused": Peer(
        found("torch.optim", "AdamW", fused=True), lambda size: 7 * size, False
    ),
    "torchao AdamW8bit": Peer(
        found("torchao.optim", "AdamW8bit"), lambda size: 3 * size + 4.06, False
    ),
}


class Clock:
    """Times on a device; on the CPU only to try the script out."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"

    def wait(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def each(self, call: Callable[[], Any], times: int) -> float:
        """Milliseconds of a call among many in a row: the median of three series."""
        return statistics.median(self._series(call, times) for _ in range(3))

    def host(self, call: Callable[[], Any], times: int) -> float:
        """Microseconds until a call comes back, with nothing queued before it."""
        seconds = []
        for _ in range(times):
            self.wait()
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds) * 1e6

    def kernels(self, call: Callable[[], Any]) -> tuple[float, float]:
        """Kernels of a call, and the milliseconds that they take together; NaN if unknown."""
        if not self.on_gpu:
            return math.nan, math.nan
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(3):
                call()
            self.wait()
        ran = [each for each in profile.events() or [] if _is_kernel(each)]
        if not ran:  # whoever runs this may not be allowed to profile
            return math.nan, math.nan
        return len(ran) / 3, sum(each.time_range.elapsed_us() for each in ran) / 3e3

    def _series(self, call: Callable[[], Any], times: int) -> float:
        self.wait()
        if not self.on_gpu:
            start = time.perf_counter()
            for _ in range(times):
                call()
            return (time.perf_counter() - start) * 1e3 / times
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(times):
            call()
        last.record()
        self.wait()
        return float(first.elapsed_time(last)) / times


def _is_kernel(event: Any) -> bool:
    # The name that torch gives to the time of a step is on the device too.
    is_name = getattr(event, "is_user_annotation", False) or event.name.startswith("Optimizer.")
    return str(event.device_type).endswith("CUDA") and not is_name


def drawn(shapes: Shapes, dtype: torch.dtype, device: torch.device) -> list[torch.nn.Parameter]:
    """Parameters with gradients, the same in every call."""
    generator = torch.Generator(device).manual_seed(0)
    params = []
    for shape in shapes:
        weight = torch.empty(shape, dtype=dtype, device=device)
        param = torch.nn.Parameter(weight.normal_(0, 0.02, generator=generator))
        param.grad = torch.empty_like(weight).normal_(0, 1e-3, generator=generator)
        params.append(param)
    return params


def copied(device: torch.device, clock: Clock, size: int) -> float:
    """GB/s, read and written, of a copy on the device."""
    source = torch.ones(size, device=device)
    target = torch.empty_like(source)
    milliseconds = clock.each(lambda: target.copy_(source), 10)
    return 8 * size / milliseconds / 1e6


def check(peer: Peer, dtype: torch.dtype, device: torch.device) -> str:
    """Whether three steps are Lion's, on gradients that let rounding flip no sign."""
    params = drawn([(1,), (129,), (256, 65), (100_003,)], dtype, device)
    before = [param.detach().clone() for param in params]
    grads = [param.grad.clone() for param in params if param.grad is not None]
    optimizer = peer.make(params, **HYPERS)
    # A small gradient against the momentum changes nothing, a large one turns the update round.
    for factor in (1.0, -0.05, -1.0):
        for param, grad in zip(params, grads, strict=True):
            if param.grad is not None:
                param.grad.copy_(grad * factor)  # where a graph looks for it
        optimizer.step()
    if not peer.lion:
        moved = any(not torch.equal(*pair) for pair in zip(params, before, strict=True))
        finite = all(bool(param.isfinite().all()) for param in params)
        return "moves" if moved and finite else "WRONG: does not move, or to nowhere"
    wrong = sum(map(_wrong, params, before, grads))
    return "Lion" if wrong == 0 else f"WRONG in {wrong} elements"


def _wrong(param: Tensor, start: Tensor, grad: Tensor) -> int:
    """Elements that are further from Lion in float64 than rounding explains.

    In each of three steps decay, product, update and difference may be rounded, each by half a unit
    in the last place of the largest number on the way: a weight that goes through 0 is as wrong as
    it was large.
    """
    weight, direction = start.double(), grad.double().sign()
    lr, decay = HYPERS["lr"], 1 - HYPERS["lr"] * HYPERS["weight_decay"]
    largest = weight.abs()
    for sign in (1, 1, -1):
        weight = weight * decay - lr * sign * direction
        largest = torch.maximum(largest, weight.abs())
    allowed = 3 * 4 * torch.finfo(param.dtype).eps / 2 * (largest + lr)
    return int((~((param.double() - weight).abs() <= allowed)).sum())


def measured(
    peer: Peer,
    shapes: Shapes,
    dtype: torch.dtype,
    device: torch.device,
    clock: Clock,
    budget: float,
) -> dict[str, float]:
    """The figures of a peer on a list of tensors."""
    params = drawn(shapes, dtype, device)
    optimizer = peer.make(params, **HYPERS)
    for _ in range(3):  # compiles, tunes, allocates
        optimizer.step()
    times = int(max(3, min(50, budget / max(clock.each(optimizer.step, 1), 1e-3))))
    wall = clock.each(optimizer.step, times)
    host = clock.host(optimizer.step, min(times, 20))
    launches, device_ms = clock.kernels(optimizer.step)
    moved = peer.moved(dtype.itemsize) * sum(param.numel() for param in params)
    return {
        "wall": wall,
        "GB/s": moved / wall / 1e6,
        "host": host,
        "launch": launches,
        "device": device_ms,
    }


def reason(error: Exception) -> str:
    """The first line of an error, short, for the cell of a table."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:90].replace("|", "/")


def free() -> None:
    """Give memory back before the next peer.

    Raises:
        SystemExit: The device answers no more, after which no figure would be worth anything.
    """
    gc.collect()
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
    except RuntimeError as error:
        sys.exit(f"the device has failed, leave the last one out by --peers: {reason(error)}")


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Stop what takes longer, such as a compilation that grows with the number of tensors."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


HEAD = """
| tensors | dtype | optimizer | wall ms | GB/s | % | host us | launches | device ms |
|---|---|---|---|---|---|---|---|---|"""


def rows_of(
    model: str, dtype: str, peers: list[str], device: torch.device, clock: Clock, speed: float,
    budget: float, limit: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """Print the rows of a model and return them."""
    shapes = MODELS[model]()
    rows: list[dict[str, Any]] = []
    for name in peers:
        row: dict[str, Any] = {"model": model, "dtype": dtype, "optimizer": name}
        start = f"| {model} | {dtype} | {name} | "
        try:
            with at_most(limit):
                row |= measured(PEERS[name], shapes, DTYPES[dtype], device, clock, budget)
            share = 100 * row["GB/s"] / speed
            figures = (
                f"{row['wall']:.3f} | {row['GB/s']:,.0f} | {share:.0f} | {row['host']:.0f} | "
                f"{row['launch']:.0f} | {row['device']:.3f}"
            )
        except Exception as error:  # a peer that fails is a finding
            row["failed"] = reason(error)
            figures = f"{row['failed']} | | | | | "
        print(f"{start}{figures} |", flush=True)
        rows.append(row)
        free()
    return rows


def able(names: list[str], dtype: str, device: torch.device, limit: int) -> list[str]:
    """Print which of the peers are there and whether they compute Lion; return those."""
    there = []
    for name in names:
        try:
            with at_most(limit):
                verdict = check(PEERS[name], DTYPES[dtype], device)
            there.append(name)
        except Exception as error:
            verdict = f"left out: {reason(error)}"
        print(f"- {dtype} {name}: {verdict}", flush=True)
        free()
    return there


def versions() -> str:
    """What is installed of those who take part."""
    packages = (
        "torch triton lion-pytorch timm torch-optimi bitsandbytes flashoptim deepspeed torchao"
    )
    shown = []
    for name in packages.split():
        try:
            shown.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            shown.append(f"no {name}")
    return ", ".join(shown)


def tiles(shapes: Shapes, dtype: torch.dtype, clock: Clock, speed: float, budget: float) -> None:
    """Print what our kernel takes, cut into other chunks, blocks and warps."""
    plans = importlib.import_module("liontool.optim.kernels.triton_plan")
    params = drawn(shapes, dtype, torch.device("cuda"))
    entries = [plans.Entry(param, torch.zeros_like(param), None, 0) for param in params]
    moved = 5 * dtype.itemsize * sum(param.numel() for param in params)
    grads = [param.grad for param in params]
    print("\n| chunk | block | warps | ms | % |\n|---|---|---|---|---|")
    for chunk in (4096, 8192, 16384, 65536):
        for block, warps in ((512, 4), (1024, 4), (1024, 8), (2048, 4), (2048, 8)):
            plan = plans.Plan(entries, tile=plans.Tile(chunk, block, warps))
            step = functools.partial(plan.step, grads, [plans.Hypers(**HYPERS)])
            step()
            wall = clock.each(step, int(max(3, min(50, budget / max(clock.each(step, 3), 1e-3)))))
            share = 100 * moved / wall / 1e6 / speed
            print(f"| {chunk} | {block} | {warps} | {wall:.3f} | {share:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default="gpt2,1.3b,7b,small", help=", ".join(MODELS))
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--peers", default="", help="those whose name has one of these in it")
    parser.add_argument("--budget", type=float, default=500, help="ms of a series")
    parser.add_argument("--limit", type=int, default=120, help="seconds of a row")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--tiles", action="store_true", help="compare cuts of our kernel alone")
    parser.add_argument("--selftest", action="store_true", help="try it out, on the CPU too")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not options.selftest:
        print("no CUDA device, so there is nothing to measure; --selftest tries the script out")
        return
    if options.selftest:
        options.models, options.budget = "tiny", 1.0
    wanted = options.peers.split(",")
    names = [name for name in PEERS if any(part in name for part in wanted)]
    clock = Clock(device)
    speed = copied(device, clock, 2**16 if options.selftest else 2**30)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, times mean nothing"
    print(f"{card}, copies {speed:,.0f} GB/s; {versions()}; `{' '.join(sys.argv)}`\n")
    if options.tiles:
        for model, dtype in itertools.product(options.models.split(","), options.dtypes.split(",")):
            print(f"\n{model}, {dtype}")
            tiles(MODELS[model](), DTYPES[dtype], clock, speed, options.budget)
            free()
        return
    dtypes = options.dtypes.split(",")
    there = {dtype: able(names, dtype, device, options.limit) for dtype in dtypes}
    print(HEAD)
    rows: list[dict[str, Any]] = []
    for model, dtype in itertools.product(options.models.split(","), dtypes):
        rows += rows_of(
            model, dtype, there[dtype], device, clock, speed, options.budget, options.limit
        )
        if options.json is not None:
            figures = {"card": card, "versions": versions(), "copies": speed, "rows": rows}
            options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
