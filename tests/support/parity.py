"""Lion and LionSF beside each peer: the cases, and how far apart 100 steps take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from liontool.optim import Lion, LionSF
from support.peer_runs import Run, TorchRun
from support.peers import ALL, FLOATS, PEERS, Peer

SHAPES = [(), (1,), (63,), (17, 59), (3, 4, 5, 2)]
STEPS = 100
LR = 1e-3


@dataclass(frozen=True)
class Case:
    """One peer with one set of options.

    Args:
        peer: Its name in `PEERS`.
        theirs: Options of the peer.
        ours: Options of ours, where they are called something else.
        sf: Whether ours is LionSF.
        dtypes: What is compared, of what the peer takes.
        single: Whether single steps can be compared: no state but the momentum matters.
    """

    peer: str
    theirs: dict[str, Any]
    ours: dict[str, Any] | None = None
    sf: bool = field(default=False, kw_only=True)
    dtypes: tuple[torch.dtype, ...] = field(default=ALL, kw_only=True)
    single: bool = field(default=True, kw_only=True)

    @property
    def options(self) -> str:
        """The peer's options as they are typed."""
        return ", ".join(f"{name}={value}" for name, value in self.theirs.items()) or "defaults"

    def make_ours(self, weights: Sequence[Tensor]) -> TorchRun:
        """Our optimizer on these weights."""
        options = self.theirs if self.ours is None else self.ours
        kind = LionSF if self.sf else Lion
        return TorchRun(weights, lambda params: kind(params, lr=LR, **options))

    def make_theirs(self, weights: Sequence[Tensor]) -> Run:
        """The peer on these weights."""
        return PEERS[self.peer].build(weights, lr=LR, **self.theirs)


@dataclass(frozen=True)
class Figures:
    """What separates two runs; complex numbers count as two.

    Args:
        differing: Weights that differ after all steps.
        weights: Largest difference of weights.
        momenta: Largest difference of momenta.
        single: Weights that differ by more than one unit in the last place after one step from
            the same state, summed over all steps; None where that is not compared.
    """

    differing: int
    weights: float
    momenta: float
    single: int | None


DECAY = {"weight_decay": 0.1}
EMA = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 10}
REAL = (torch.float32, torch.float64)
CASES = [
    Case("lion-pytorch", {}),
    Case("lion-pytorch", {**DECAY, "betas": (0.95, 0.98)}),
    Case("lion-pytorch", {"weight_decay": 1e-3, "decoupled_weight_decay": True}),
    Case("lion-pytorch, foreach", DECAY),
    Case("lion-pytorch, cautious", {**DECAY, "cautious_factor": 0.0}),
    Case("lion-pytorch, cautious", {**DECAY, "cautious_factor": 0.5}),
    Case("lion-pytorch, cautious", {**DECAY, "cautious_factor": 0.5, "cautious_wd": True}),
    Case("lion-sf", DECAY, sf=True),
    Case("lion-sf", {**DECAY, "pow": 2.0}, sf=True),
    Case("lion-sf", {**DECAY, "pow": 0.5}, sf=True),
    Case("google/automl", DECAY),
    Case("timm", DECAY),
    Case("timm", {**DECAY, "foreach": True}),
    Case("timm", {**DECAY, "caution": True}, {**DECAY, "cautious_factor": 0.0}),
    Case("timm", {**DECAY, "maximize": True}),
    Case("Keras", DECAY),
    Case("Keras", {"clipnorm": 1.0}),
    Case("Keras", {"clipvalue": 0.5}),
    Case("Keras", {"global_clipnorm": 1.0}),
    Case("Keras", {"gradient_accumulation_steps": 4}, single=False, dtypes=REAL),
    Case("Keras", EMA, single=False, dtypes=REAL),
    Case("optax", DECAY),
    Case("optimi", {**DECAY, "kahan_sum": False}, DECAY),
    Case("pytorch_optimizer", DECAY),
]


def runs() -> Iterator[tuple[Case, Peer, torch.dtype]]:
    """Every case in every dtype, by dtype."""
    for dtype in (*FLOATS, torch.complex64):
        for case in CASES:
            peer = PEERS[case.peer]
            if dtype in case.dtypes and dtype in peer.dtypes:
                yield case, peer, dtype


def measure(case: Case, dtype: torch.dtype) -> Figures:
    """Run a case in a dtype."""
    start = normal(torch.Generator().manual_seed(0), dtype, 0.1)
    ours, theirs = case.make_ours(start), case.make_theirs(start)
    for grads in gradients(dtype):
        ours.step(grads)
        theirs.step(grads)
    apart = _distance(ours.weights(), theirs.weights())
    return Figures(
        differing=int(apart.count_nonzero()),
        weights=float(apart.max()),
        momenta=float(_distance(ours.momenta(), theirs.momenta()).max()),
        single=_single_steps(case, start) if case.single else None,
    )


def _single_steps(case: Case, start: list[Tensor]) -> int:
    """How many weights are off after a step from the peer's own weights and momenta."""
    ours, theirs = case.make_ours(start), case.make_theirs(start)
    ours.optimizer.init_state()
    off = 0
    for grads in gradients(start[0].dtype):
        before = theirs.weights()
        ours.set(before, theirs.momenta())
        ours.step(grads)
        theirs.step(grads)
        after = theirs.weights()
        apart = _distance(ours.weights(), after)
        off += int((apart > torch.maximum(_last_place(before), _last_place(after))).sum())
    return off


@cache
def gradients(dtype: torch.dtype) -> list[list[Tensor]]:
    """Of every step: noise around a mean of its own for each element."""
    generator = torch.Generator().manual_seed(1)
    mean = normal(generator, dtype, 0.3)
    return [
        [m + noise for m, noise in zip(mean, normal(generator, dtype), strict=True)]
        for _ in range(STEPS)
    ]


def normal(generator: torch.Generator, dtype: torch.dtype, scale: float = 1.0) -> list[Tensor]:
    """Random numbers of every shape."""
    exact = torch.complex128 if dtype.is_complex else torch.float64
    return [
        (scale * torch.randn(shape, generator=generator, dtype=exact)).to(dtype) for shape in SHAPES
    ]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    reals = [torch.view_as_real(t) if t.is_complex() else t for t in tensors]
    return torch.cat([real.flatten() for real in reals])


def _distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    return (_flat(ours).double() - _flat(theirs).double()).abs()


def _last_place(tensors: Sequence[Tensor]) -> Tensor:
    """The distance to the next number of the dtype."""
    flat = _flat(tensors)
    exponent = flat.double().frexp().exponent.double()
    return torch.finfo(flat.dtype).eps * 2.0 ** (exponent - 1)
