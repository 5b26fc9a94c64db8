"""Each mistake of another Lion beside what ours do: every line of the second table of parity.md."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import lion_pytorch
import pytest
import torch
from lion_pytorch.cautious_lion import Lion as CautiousLion
from lion_pytorch.foreach import Lion as ForeachLion
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from liontool.optim import Lion, LionSF
from support.parity_sides import SIDES
from support.peer_runs import TorchRun
from support.peers import PEERS, Run, lion_sf, lion_sf_file

needs = {
    name: [pytest.mark.skipif(not peer.installed, reason=f"{name} is not installed")]
    + [pytest.mark.interop] * peer.heavy
    for name, peer in PEERS.items()
}
SWALLOWING = [pytest.param(name, marks=needs[name]) for name in PEERS if name != "optax"]
OPTAX = pytest.param("optax", marks=needs["optax"])
# Without these a gradient acts on the update of other elements too.
PLAIN: dict[str, dict[str, Any]] = {
    "lion-pytorch, cautious": {"cautious_factor": 1.0},
    "lion-sf": {"pow": 0.0},
    "optax": {"weight_decay": 0.0},
}


def test_every_side_has_its_test() -> None:
    """The table has a line for each test of this file, and a test for each line."""
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert tests - {"every_side_has_its_test"} == {side.name for side in SIDES}


def parameter(*values: float, dtype: torch.dtype = torch.float32) -> Parameter:
    return Parameter(torch.tensor(values, dtype=dtype))


def stepped(optimizer: Optimizer, *grads: Sequence[float] | Tensor | None) -> list[Tensor]:
    """The weights after a step with these gradients."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for param, grad in zip(params, grads, strict=True):
        param.grad = None if grad is None else torch.as_tensor(grad, dtype=param.dtype)
    optimizer.step()
    return [param.detach().clone() for param in params]


def after(run: Run, *grads: Sequence[float]) -> Tensor:
    """The only weights after steps with these gradients, one after another."""
    for grad in grads:
        run.step([torch.tensor(grad)])
    return run.weights()[0]


def peer(name: str, weights: Sequence[float], **options: Any) -> Run:
    return PEERS[name].build([torch.tensor(weights)], **options)


def ours(weights: Sequence[float], **options: Any) -> TorchRun:
    return TorchRun([torch.tensor(weights)], lambda params: Lion(params, **options))


@pytest.mark.parametrize("name", SWALLOWING)
def test_nan_gradient(name: str) -> None:
    """There the weight stays finite beside a NaN momentum; here it becomes NaN."""
    run = peer(name, [1.0, 1.0], lr=0.125, **PLAIN.get(name, {}))
    weights = after(run, [1.0, math.nan], *[[1.0, 1.0]] * 3)
    assert weights.tolist() == [0.5, 1.0]
    assert run.momenta()[0].isnan().tolist() == [False, True]
    weights = after(ours([1.0, 1.0], lr=0.125), [1.0, math.nan])
    assert weights.isnan().tolist() == [False, True]


@pytest.mark.parametrize("name", [*SWALLOWING, OPTAX])
def test_infinite_gradient(name: str) -> None:
    """There one infinite gradient decides the weight's way for ever; here it becomes NaN."""
    run = peer(name, [1.0, 1.0], lr=0.125, **PLAIN.get(name, {}))
    weights = after(run, [-1.0, -math.inf], *[[1.0, 1.0]] * 3)
    if run.momenta()[0].isnan().any():
        assert weights.tolist() == [0.75, 1.125]  # frozen after its first step
    else:
        assert weights.tolist() == [0.75, 1.5]
    weights = after(ours([1.0, 1.0], lr=0.125), [-1.0, -math.inf])
    assert weights.isnan().tolist() == [False, True]


def _two_groups() -> list[dict[str, Any]]:
    return [{"params": [parameter(1.0)]}, {"params": [parameter(1.0)], "lr": 1e-2}]


@pytest.mark.parametrize("name", ["lion-pytorch", "lion-sf"])
def test_decoupled_decay_of_groups(name: str) -> None:
    """There 1 % becomes 100 % in a group with 100 times the lr; here it stays 1 %."""
    kind = lion_pytorch.Lion if name == "lion-pytorch" else lion_sf_file()
    if kind is None:
        pytest.skip("LION_SF_SOURCE names no file, and the rewritten rule has no such option")
    options = {"lr": 1e-4, "weight_decay": 0.01, "decoupled_weight_decay": True}
    theirs = stepped(kind(_two_groups(), **options), [0.0], [0.0])
    assert [w.item() for w in theirs] == pytest.approx([0.99, 0.0])
    mine = stepped(Lion(_two_groups(), **options), [0.0], [0.0])
    assert [w.item() for w in mine] == pytest.approx([0.99, 0.99])


def test_decoupled_decay_after_resuming() -> None:
    """There a resumed run decays by 10 % instead of 1 %; here by 1 %."""
    options = {"weight_decay": 0.01, "decoupled_weight_decay": True}
    weights = {}
    for kind in (lion_pytorch.Lion, Lion):
        saved = kind([parameter(1.0)], lr=1e-3, **options).state_dict()
        resumed = kind([parameter(1.0)], lr=1e-4, **options)
        resumed.load_state_dict(saved)
        weights[kind] = stepped(resumed, [0.0])[0].item()
    assert weights[lion_pytorch.Lion] == pytest.approx(0.9)
    assert weights[Lion] == pytest.approx(0.99)


def pickled(optimizer: Optimizer) -> Optimizer:
    copied: Optimizer = pickle.loads(pickle.dumps(optimizer))
    return copied


@pytest.mark.interop
@pytest.mark.parametrize("copied_by", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
def test_options_lost_by_copies(copied_by: Callable[[Optimizer], Optimizer]) -> None:
    """There a copy cannot step; here it does what the original does."""
    from pytorch_optimizer import Lion as Collected

    for lost in (lion_pytorch.Lion([parameter(1.0)]), Collected([parameter(1.0)], maximize=True)):
        with pytest.raises(AttributeError, match=r"decoupled_wd|maximize"):
            stepped(copied_by(lost), [1.0])
    optimizer = LionSF(
        [parameter(1.0, 1.0, 1.0)], lr=0.1, pow=2.0, maximize=True, weight_decay=0.5,
        decoupled_weight_decay=True,
    )  # fmt: skip
    copied = copied_by(optimizer)
    for grad in ([1.0, 1.0, 1.0], [-3.0, 1.0, -2.0]):
        assert torch.equal(stepped(optimizer, grad)[0], stepped(copied, grad)[0])


@pytest.mark.parametrize("foreach", [True, False])
def test_foreach_with_an_idle_group(foreach: bool) -> None:
    """There a group without gradients is an error; here nothing happens to it."""
    groups = [{"params": [parameter(1.0)]}, {"params": [parameter(1.0)]}, {"params": []}]
    with pytest.raises(RuntimeError, match="at least one tensor"):
        stepped(ForeachLion(copy.deepcopy(groups), lr=0.5), [1.0], None)
    assert stepped(Lion(groups, lr=0.5, foreach=foreach), [1.0], None) == [0.5, 1.0]


def test_learning_rate_of_zero() -> None:
    """There it is an assertion; here the weights stay as they are."""
    for kind in (lion_pytorch.Lion, ForeachLion, CautiousLion):
        with pytest.raises(AssertionError):
            kind([parameter(1.0)], lr=0.0)
    assert stepped(Lion([parameter(1.0)], lr=0.0, weight_decay=0.1), [1.0]) == [1.0]


def test_sparse_gradient() -> None:
    """There rows that were not used move too, without a word; here it is an error."""
    row = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (3, 2), check_invariants=False)
    dense = lion_pytorch.Lion([Parameter(torch.zeros(3, 2))], lr=1.0)
    stepped(dense, torch.ones(3, 2))
    assert stepped(dense, row)[0].tolist() == [[-2.0, -2.0]] * 3
    optimizer = Lion([Parameter(torch.zeros(3, 2))], lr=1.0)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        stepped(optimizer, row)


@pytest.mark.parametrize("name", ["lion-pytorch", OPTAX])
def test_complex_parameter(name: str) -> None:
    """There a gradient of 3+4j moves by .6+.8j; here by 1+1j."""
    start, grads = [torch.zeros(1, dtype=torch.complex64)], [torch.tensor([3 + 4j])]
    theirs = PEERS[name].build(start, lr=1.0)
    mine = TorchRun(start, lambda params: Lion(params, lr=1.0))
    for run in (theirs, mine):
        run.step(grads)
    assert theirs.weights()[0].item() == pytest.approx(-0.6 - 0.8j)
    assert mine.weights()[0].item() == -1 - 1j


@pytest.mark.parametrize(
    ("name", "option", "largest"),
    [
        ("lion-pytorch, cautious", {"cautious_factor": 0.0}, 100_000),
        ("timm", {"caution": True}, 1_000),
    ],
)
def test_hardly_anything_agrees(name: str, option: dict[str, Any], largest: int) -> None:
    """One agreeing element of 200,000 moves as far as the clamp of the mean lets it."""
    size, lr = 200_000, 2.0**-10
    moved = {}
    first, second = torch.ones(size), torch.full((size,), -0.01)
    second[0] = 0.01
    runs = {
        "theirs": PEERS[name].build([torch.zeros(size)], lr=lr, **option),
        "ours": TorchRun(
            [torch.zeros(size)], lambda params: Lion(params, lr=lr, cautious_factor=0.0)
        ),
    }
    for side, run in runs.items():
        for _ in range(3):
            run.step([first])
        before = run.weights()[0]
        run.step([second])
        moved[side] = float((run.weights()[0] - before).abs().max()) / lr
    assert moved["theirs"] == pytest.approx(largest, rel=1e-3)
    assert moved["ours"] == pytest.approx(100_000, rel=1e-3)


AGREEMENTS = {"tensor": True, "group": True, "tensor_signed": False, "group_signed": False}


def _sf(agreement: str | None, grads: Sequence[Tensor]) -> float:
    """How far the first weight moves in the last step, in units of lr; None is lion-sf's."""
    param = Parameter(torch.zeros_like(grads[0]))
    optimizer = (
        lion_sf()([param], lr=1.0)
        if agreement is None
        else LionSF([param], lr=1.0, agreement=agreement)
    )
    for grad in grads:
        before = param.detach().flatten()[0].item()
        stepped(optimizer, grad)
    return abs(param.detach().flatten()[0].item() - before)


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_disagreement(agreement: str) -> None:
    """Full disagreement is full speed there and as published; the signed forms stand still."""
    grads = [torch.ones(8), torch.ones(8), torch.full((8,), -0.01)]
    assert _sf(None, grads) == 1.0
    assert _sf(agreement, grads) == (1.0 if AGREEMENTS[agreement] else 0.0)


@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_gradients_of_zero(agreement: str) -> None:
    """Two used rows of 200, which half agree: .99 as published, 0 where zeros do not count."""
    used = torch.zeros(200, 4)
    used[0], used[1] = 1.0, -1.0
    grads = [torch.ones(200, 4), torch.ones(200, 4), 0.01 * used]
    assert _sf(None, grads) == pytest.approx(0.99)
    assert _sf(agreement, grads) == pytest.approx(0.99 if AGREEMENTS[agreement] else 0.0)


@pytest.mark.filterwarnings("ignore")
def test_steps_smaller_than_bfloat16() -> None:
    """There, and with plain rounding, nothing happens in 100 steps; else the weight is .99."""
    bfloat16 = torch.bfloat16
    optimizers = {
        "theirs": lion_pytorch.Lion([Parameter(torch.ones(512, dtype=bfloat16))], lr=1e-4)
    }
    for rounding in ("nearest", "split", "stochastic"):
        param = Parameter(torch.ones(512, dtype=bfloat16))
        optimizers[rounding] = Lion([param], lr=1e-4, rounding=rounding)
    means = {}
    for name, optimizer in optimizers.items():
        for _ in range(100):
            weights = stepped(optimizer, torch.ones(512))[0]
        means[name] = weights.double().mean().item()
    assert means["theirs"] == means["nearest"] == 1.0
    assert means["split"] == pytest.approx(0.99, abs=2**-8)
    assert means["stochastic"] == pytest.approx(0.99, abs=1e-3)


@pytest.mark.interop
def test_decay_of_compensated_bfloat16() -> None:
    """There nothing is taken off in 2,000 steps; here as much as in float32."""
    import optimi

    start = torch.ones(1, dtype=torch.bfloat16)
    theirs = optimi.Lion([Parameter(start.clone())], lr=1e-4, weight_decay=1.0, triton=False)
    mine = Lion([Parameter(start.clone())], lr=1e-4, weight_decay=1.0, rounding="split")
    for _ in range(2000):
        kept, decayed = stepped(theirs, [0.0])[0], stepped(mine, [0.0])[0]
    assert kept.item() == 1.0
    assert decayed.item() == pytest.approx(0.9999**2000, abs=2**-9)


@pytest.mark.interop
def test_state_of_another_lion() -> None:
    """There the first step after the load starts from a momentum of zero; here from the loaded."""
    import optimi

    source = lion_pytorch.Lion([parameter(1.0)], lr=1e-3)
    stepped(source, [1.0])
    theirs = optimi.Lion([parameter(1.0)], lr=1e-3)
    groups = theirs.state_dict()["param_groups"]
    theirs.load_state_dict({"state": source.state_dict()["state"], "param_groups": groups})
    mine = Lion([parameter(1.0)], lr=1e-3)
    mine.load_state_dict(source.state_dict())
    momenta = {}
    for name, optimizer in (("theirs", theirs), ("ours", mine)):
        stepped(optimizer, [0.0])
        (state,) = optimizer.state.values()
        momenta[name] = state["exp_avg"].item()
    assert momenta["theirs"] == 0.0
    assert momenta["ours"] == pytest.approx(0.01 * 0.99)


@pytest.mark.interop
@pytest.mark.parametrize("foreach", [True, False])
def test_maximize_and_the_gradient(foreach: bool) -> None:
    """There .grad has another sign after the step; here it is what backward left."""
    from pytorch_optimizer import Lion as Collected

    grads = {}
    for kind in (Collected, Lion):
        optimizer = kind([parameter(1.0)], lr=0.5, maximize=True, foreach=foreach)
        assert stepped(optimizer, [2.0])[0].item() == 1.5
        grads[kind] = optimizer.param_groups[0]["params"][0].grad.item()
    assert grads == {Collected: -2.0, Lion: 2.0}


@pytest.mark.interop
@pytest.mark.skipif(not PEERS["optax"].installed, reason="optax is not installed")
def test_default_decay() -> None:
    """There a gradient of zero takes a thousandth of lr off; here nothing."""
    assert after(peer("optax", [1.0], lr=0.5), [0.0]).item() == pytest.approx(0.9995)
    assert after(ours([1.0], lr=0.5), [0.0]).item() == 1.0


@pytest.mark.interop
def test_beta_of_zero() -> None:
    """There it is a ValueError; here Lion is then SignSGD."""
    with pytest.raises(ValueError, match="degenerates to SignSGD"):
        peer("Keras", [1.0], beta_1=0.0)
    weights = after(ours([1.0], lr=0.5, betas=(0.0, 0.99)), [9.0], [-0.1])
    assert weights.tolist() == [1.0]


@pytest.mark.interop
def test_learning_rate_in_float32() -> None:
    """There a float64 weight moves by float32's 0.1; here by float64's."""
    start = [torch.ones(1, dtype=torch.float64)]
    theirs = PEERS["Keras"].build(start, lr=0.1)
    mine = TorchRun(start, lambda params: Lion(params, lr=0.1))
    for run in (theirs, mine):
        run.step([torch.ones(1, dtype=torch.float64)])
    assert theirs.weights()[0].item() == 1 - float(torch.tensor(0.1))
    assert mine.weights()[0].item() == 0.9
