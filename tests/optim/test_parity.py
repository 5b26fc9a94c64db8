"""What parity is promised, beside the figures of docs/parity.md and beside float64."""

from __future__ import annotations

import lion_pytorch
import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from liontool.optim import Lion, LionSF
from support.parity import CASES, LR, STEPS, Case, Figures, gradients, normal, runs
from support.parity_table import documented, key, parsed
from support.peer_runs import TorchRun
from support.peers import Peer

# An element may take another sign where its mix is within rounding of zero; it then stays apart by
# multiples of 2 * lr. So few may differ; all others must be equal in bits.
FEW = 2
# Peers whose decay is another formula, or has float32 in it where the weights are float64.
ROUNDED_OTHERWISE = {"Keras", "optax"}


def _figures(case: Case, peer: Peer, dtype: torch.dtype) -> Figures:
    """What the page says, which `test_parity_table.py` measures."""
    return parsed(documented()[key(case, peer, dtype)])


def _rule_alone(case: Case, peer: Peer) -> bool:
    """Whether neither a mean nor a norm is taken."""
    means = case.sf or {"cautious_factor", "caution"} & case.theirs.keys()
    return not means and peer.name not in ROUNDED_OTHERWISE


WIDE = [run for run in runs() if run[2] not in (torch.bfloat16, torch.float16)]
NARROW = [run for run in runs() if run not in WIDE]


@pytest.mark.parametrize(
    ("case", "peer", "dtype"),
    [pytest.param(*run, id="-".join(key(*run))) for run in WIDE if _rule_alone(*run[:2])],
)
def test_the_rule_alone_gives_equal_bits(case: Case, peer: Peer, dtype: torch.dtype) -> None:
    """After 100 steps the weights have the peer's bits, the momentum is within rounding."""
    figures = _figures(case, peer, dtype)
    assert figures.differing <= FEW
    assert figures.momenta <= (1e-14 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize(
    ("case", "peer", "dtype"),
    [pytest.param(*run, id="-".join(key(*run))) for run in WIDE if not _rule_alone(*run[:2])],
)
def test_means_and_norms_stay_within_rounding(case: Case, peer: Peer, dtype: torch.dtype) -> None:
    """LionSF and caution are within 1e-6, and so is all else but optax' decay after the sign."""
    allowed = 5e-6 if peer.name == "optax" else 1e-6
    figures = _figures(case, peer, dtype)
    assert figures.weights <= allowed
    assert figures.momenta <= 1e-6


@pytest.mark.parametrize(
    ("case", "peer", "dtype"), [pytest.param(*run, id="-".join(key(*run))) for run in NARROW]
)
def test_half_precision_takes_the_same_steps(case: Case, peer: Peer, dtype: torch.dtype) -> None:
    """Of 1,000 single steps at most two are off by more than a unit in the last place."""
    single = _figures(case, peer, dtype).single
    assert single is not None
    assert single <= 2 * STEPS * 1188 / 1000


def test_every_promise_has_cases() -> None:
    """No filter of the tests above is empty."""
    alone = [_rule_alone(*run[:2]) for run in WIDE]
    assert any(alone)
    assert not all(alone)
    assert len(NARROW) > len(CASES)


def _ours(kind: type[Optimizer], dtype: torch.dtype, **options: float) -> list[Tensor]:
    start = normal(torch.Generator().manual_seed(0), dtype)
    run = TorchRun(start, lambda params: kind(params, lr=LR, weight_decay=0.1, **options))
    for grads in gradients(dtype):
        run.step(grads)
    return run.weights()


def test_decoupled_weight_decay_follows_a_schedule() -> None:
    """While the lr falls to a tenth, so does the decay, as in lion-pytorch."""
    options = {"lr": 1e-2, "weight_decay": 0.05, "decoupled_weight_decay": True}
    weights = []
    for kind in (Lion, lion_pytorch.Lion):
        start = normal(torch.Generator().manual_seed(0), torch.float32)
        run = TorchRun(start, lambda params, kind=kind: kind(params, **options))
        for step, grads in enumerate(gradients(torch.float32)):
            run.optimizer.param_groups[0]["lr"] = 1e-2 * (1 - 0.9 * step / STEPS)
            run.step(grads)
        weights.append(run.weights())
    differing = sum(int((a != b).sum()) for a, b in zip(*weights, strict=True))
    assert differing <= FEW


def test_float32_follows_float64() -> None:
    """In float64 the run is the same but for rounding."""
    narrow, wide = _ours(Lion, torch.float32), _ours(Lion, torch.float64)
    far = sum(int(((a.double() - b).abs() > 1e-4).sum()) for a, b in zip(narrow, wide, strict=True))
    assert far <= FEW


def test_lion_sf_with_pow_zero_is_lion() -> None:
    """Exponent 0 makes every scale 1."""
    sf, plain = _ours(LionSF, torch.float32, pow=0.0), _ours(Lion, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(sf, plain, strict=True))
