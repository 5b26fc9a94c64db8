"""What torch and torchdata keep as state goes into a new object and is the same there.

The classes are found by looking, so that one that a new torch brings fails until it is known here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torchdata.nodes
import torchdata.stateful_dataloader.sampler as stateful_samplers
from torch.optim import lr_scheduler, swa_utils
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR, AveragedModel
from torch.utils import data
from torch.utils.data import Dataset, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

import liontool.optim
from liontool.resume.difference import difference
from support.encoded_states import part_there_and_back

# torchdata calls what torch has given up.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


def _classes(module: Any, base: type) -> dict[str, type]:
    """The public classes of a module that derive from `base`, less `base`."""
    found = {name: kind for name, kind in vars(module).items() if isinstance(kind, type)}
    return {
        name: kind
        for name, kind in found.items()
        if issubclass(kind, base) and kind is not base and not name.startswith("_")
    }


def _loaded(state: Any, into: Any) -> None:
    """The state of `into` is that state after it went to a file and came back."""
    live = into.state_dict()
    made = part_there_and_back(state, live)
    assert difference(made, state) is None
    into.load_state_dict(made)
    assert difference(into.state_dict(), state) is None


# --- schedulers ---------------------------------------------------------------------------------


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)


class _Warmup:
    """A rule that has state: torch keeps its attributes."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seen: list[int] = []

    def __call__(self, step: int) -> float:
        self.seen.append(step)
        return min(1.0, (step + 1) / self.steps)


def _half(step: int) -> float:
    return 0.5


def _sequential(optimizer: Any) -> LRScheduler:
    parts: list[LRScheduler] = [
        lr_scheduler.ConstantLR(optimizer, 0.1, 2),
        lr_scheduler.MultiStepLR(optimizer, [1, 1, 2]),
        lr_scheduler.OneCycleLR(optimizer, 0.1, 9),
    ]
    return lr_scheduler.SequentialLR(optimizer, parts, [2, 5])


def _nested(optimizer: Any) -> LRScheduler:
    parts = [_sequential(optimizer), lr_scheduler.LambdaLR(optimizer, [_Warmup(3)])]
    return lr_scheduler.ChainedScheduler(parts, optimizer=optimizer)


_SCHEDULERS: dict[str, dict[str, Callable[[Any], LRScheduler]]] = {
    "LambdaLR": {
        "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
        "function": lambda o: lr_scheduler.LambdaLR(o, _half),
        "object": lambda o: lr_scheduler.LambdaLR(o, _Warmup(5)),
    },
    "MultiplicativeLR": {
        "lambda": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
        "object": lambda o: lr_scheduler.MultiplicativeLR(o, _Warmup(5)),
    },
    "StepLR": {"": lambda o: lr_scheduler.StepLR(o, 2)},
    # Its milestones are a Counter.
    "MultiStepLR": {"": lambda o: lr_scheduler.MultiStepLR(o, [2, 2, 5])},
    "ConstantLR": {"": lambda o: lr_scheduler.ConstantLR(o)},
    "LinearLR": {"": lambda o: lr_scheduler.LinearLR(o)},
    "ExponentialLR": {"": lambda o: lr_scheduler.ExponentialLR(o, 0.9)},
    "SequentialLR": {"": _sequential},
    "PolynomialLR": {"": lambda o: lr_scheduler.PolynomialLR(o, 9)},
    "CosineAnnealingLR": {"": lambda o: lr_scheduler.CosineAnnealingLR(o, 9)},
    "ChainedScheduler": {
        "": lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], optimizer=o
        ),
        "nested": _nested,
    },
    # Its best is an infinity at first, and a tensor where that is what it is given.
    "ReduceLROnPlateau": {"": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1)},
    "CyclicLR": {
        mode: lambda o, mode=mode: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, mode=mode)
        for mode in ("triangular", "triangular2", "exp_range")
    }
    | {
        "function": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, scale_fn=_half),
        "object": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3, scale_fn=_Warmup(5)),
    },
    "CosineAnnealingWarmRestarts": {
        "": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2)
    },
    "OneCycleLR": {
        "cos": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 9),
        "linear, three phases": lambda o: lr_scheduler.OneCycleLR(
            o, 0.1, 9, anneal_strategy="linear", three_phase=True
        ),
    },
    "SWALR": {
        "cos": lambda o: SWALR(o, 0.05, 4),
        "linear": lambda o: SWALR(o, 0.05, 4, anneal_strategy="linear"),
    },
}


def _scheduler_classes() -> set[str]:
    return {*_classes(lr_scheduler, LRScheduler), *_classes(swa_utils, LRScheduler)}


def test_no_scheduler_of_torch_is_forgotten() -> None:
    """A new class needs an entry above."""
    assert _scheduler_classes() == set(_SCHEDULERS)


def _stepped(optimizer: Any, scheduler: Any, steps: int) -> list[Any]:
    rates = []
    for _ in range(steps):
        optimizer.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(torch.tensor(2.5))  # type: ignore[arg-type]
        else:
            scheduler.step()
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


@pytest.mark.parametrize("steps", [0, 4])
@pytest.mark.parametrize(
    ("name", "variant"),
    [(name, variant) for name, kinds in _SCHEDULERS.items() for variant in kinds],
)
def test_every_scheduler_goes_on(name: str, variant: str, steps: int) -> None:
    """Its state is the same in a new one, and so are the rates that follow."""
    made = []
    for _ in range(2):
        optimizer = _optimizer()
        made.append((optimizer, _SCHEDULERS[name][variant](optimizer)))
    (optimizer, scheduler), (new_optimizer, new_scheduler) = made
    _stepped(optimizer, scheduler, steps)
    _loaded(optimizer.state_dict(), new_optimizer)
    _loaded(scheduler.state_dict(), new_scheduler)
    assert _stepped(optimizer, scheduler, 4) == _stepped(new_optimizer, new_scheduler, 4)


def test_a_function_in_a_state_comes_from_the_new_scheduler() -> None:
    """SWALR of older versions of torch keeps the function that it anneals with."""
    state = {"anneal_func": SWALR._cosine_anneal, "last_epoch": 3}
    made = part_there_and_back(state, {"anneal_func": SWALR._cosine_anneal})
    assert made == state


# --- optimizers ---------------------------------------------------------------------------------

_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "Adadelta": [{}, {"capturable": False, "foreach": True}],
    "Adafactor": [{}],
    "Adagrad": [{}],
    "Adam": [{}, {"amsgrad": True}, {"lr": torch.tensor(0.01)}, {"fused": True}],
    "AdamW": [{}, {"foreach": True}, {"betas": (torch.tensor(0.9), torch.tensor(0.99))}],
    "Adamax": [{}],
    "ASGD": [{}],
    "LBFGS": [{}],
    "Muon": [{}],
    "NAdam": [{"decoupled_weight_decay": True}],
    "RAdam": [{}],
    "RMSprop": [{"momentum": 0.9, "centered": True}],
    "Rprop": [{}],
    "SGD": [{}, {"momentum": 0.9}],
    "SparseAdam": [{}],
}


def test_no_optimizer_of_torch_is_forgotten() -> None:
    """A new class needs an entry above."""
    assert set(_classes(torch.optim, torch.optim.Optimizer)) == set(_OPTIONS)


def _trained(optimizer: Any, weight: torch.nn.Parameter, steps: range) -> None:
    for step in steps:
        grad = torch.arange(12.0).view(3, 4).sin() * (step + 1)
        weight.grad = grad.to_sparse() if type(optimizer).__name__ == "SparseAdam" else grad
        optimizer.step(lambda: (weight.detach() ** 2).sum())


def _all_optimizers() -> Iterator[Any]:
    for name, options in _OPTIONS.items():
        for option in options:
            kind = getattr(torch.optim, name)
            yield pytest.param(kind, option, id="-".join([f"torch.{name}", *option]))
    for name, kind in _classes(liontool.optim, torch.optim.Optimizer).items():
        yield pytest.param(kind, {}, id=f"liontool.{name}")


@pytest.mark.parametrize(("kind", "options"), list(_all_optimizers()))
def test_every_optimizer_goes_on(kind: Any, options: dict[str, Any]) -> None:
    """Its state is the same in a new one, and so are the weights that follow."""
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = kind([weight], **options)
    _trained(optimizer, weight, range(3))
    new_weight = torch.nn.Parameter(weight.detach().clone())
    new_optimizer = kind([new_weight], **options)
    _loaded(optimizer.state_dict(), new_optimizer)
    _trained(optimizer, weight, range(3, 6))
    _trained(new_optimizer, new_weight, range(3, 6))
    assert difference(new_weight, weight) is None
    assert difference(new_optimizer.state_dict(), optimizer.state_dict()) is None


def test_groups_and_names_of_parameters_go_on() -> None:
    """Groups of an optimizer may have options and names of their own."""

    def made() -> torch.optim.Optimizer:
        model = torch.nn.Linear(2, 2)
        (weight, bias) = model.named_parameters()
        groups: Any = [
            {"params": [weight], "lr": 0.5},
            {"params": [bias], "weight_decay": math.inf},
        ]
        return torch.optim.AdamW(groups)

    _loaded(made().state_dict(), made())


# --- the scaler, averages and models ------------------------------------------------------------


@pytest.mark.parametrize("enabled", [True, False])
def test_a_scaler_goes_on(enabled: bool) -> None:
    """After a step that overflowed, it has another scale and a count."""

    def made() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=enabled)

    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler = made()
    for factor in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    _loaded(scaler.state_dict(), made())


def _network() -> torch.nn.Module:
    torch.manual_seed(3)
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    second.weight = first.weight  # tied
    norms = torch.nn.ModuleDict({"1": torch.nn.BatchNorm1d(4), "last": torch.nn.LayerNorm(4)})
    heads = torch.nn.ParameterList([torch.ones(0), torch.ones(())])
    model = torch.nn.Sequential(first, second, norms["1"], norms["last"])
    model.register_parameter("heads", heads[1])
    model.register_buffer("empty", heads[0].detach())
    return torch.nn.utils.parametrizations.weight_norm(model[0]) and model


@pytest.mark.parametrize(
    "average", [None, swa_utils.get_ema_multi_avg_fn(0.9)], ids=["mean", "moving"]
)
def test_an_averaged_model_goes_on(average: Any) -> None:
    """Weights, buffers and the count of what was averaged."""

    def made() -> AveragedModel:
        return AveragedModel(_network(), multi_avg_fn=average, use_buffers=True)

    averaged, model = made(), _network()
    model(torch.randn(5, 4))
    averaged.update_parameters(model)
    _loaded(averaged.state_dict(), made())


def test_extra_state_of_a_module_goes_on() -> None:
    """A module may keep anything beside its tensors."""

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: Any = {}

        def get_extra_state(self) -> Any:
            return self.seen

        def set_extra_state(self, state: Any) -> None:
            self.seen = state

    one, other = Counting(), Counting()
    one.seen = {(1, 2): {3.5, None}, "deep": [b"x", np.float32(2)]}
    _loaded(one.state_dict(), other)
    assert difference(other.seen, one.seen) is None


# --- loaders and samplers -----------------------------------------------------------------------


class _Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> int:
        return index


class _Stream(IterableDataset[int]):
    """Counts for itself, and is asked for its state."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        while self.at < 24:
            self.at += 1
            yield self.at

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "seen": {self.at: (self.at,)}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


_NUMBERS = _Numbers()
_SEED = 11


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


_SAMPLERS: dict[str, Callable[[], Any]] = {
    "SequentialSampler": lambda: data.SequentialSampler(_NUMBERS),
    "RandomSampler": lambda: data.RandomSampler(_NUMBERS, generator=_generator()),
    "SubsetRandomSampler": lambda: data.SubsetRandomSampler(range(20), generator=_generator()),
    "WeightedRandomSampler": lambda: data.WeightedRandomSampler(
        [1.0] * 24, 24, generator=_generator()
    ),
    "BatchSampler": lambda: data.BatchSampler(data.SequentialSampler(_NUMBERS), 3, False),
    "DistributedSampler": lambda: data.DistributedSampler(_NUMBERS, 2, 0, seed=_SEED),
    "stateful RandomSampler": lambda: stateful_samplers.RandomSampler(
        _NUMBERS, generator=_generator()
    ),
    "stateful BatchSampler": lambda: stateful_samplers.BatchSampler(
        stateful_samplers.RandomSampler(_NUMBERS, generator=_generator()), 3, False
    ),
    "stateful StatefulDistributedSampler": lambda: stateful_samplers.StatefulDistributedSampler(
        _NUMBERS, 2, 0, seed=_SEED
    ),
}


def test_no_sampler_is_forgotten() -> None:
    """A new class needs an entry above."""
    plain = {*_classes(data, data.Sampler)}
    stateful = {
        f"stateful {name}"
        for name, kind in _classes(stateful_samplers, data.Sampler).items()
        if kind.__module__ == stateful_samplers.__name__
    }
    assert plain | stateful == set(_SAMPLERS)


def _loader(name: str, workers: int) -> StatefulDataLoader[Any]:
    keywords: Any = {"num_workers": workers, "generator": _generator()}
    if name == "shuffled":
        return StatefulDataLoader(_NUMBERS, 3, shuffle=True, **keywords)
    if name == "stream":
        return StatefulDataLoader(_Stream(), 3, **keywords)
    if name.endswith("BatchSampler"):
        return StatefulDataLoader(_NUMBERS, batch_sampler=_SAMPLERS[name](), **keywords)
    return StatefulDataLoader(_NUMBERS, 3, sampler=_SAMPLERS[name](), **keywords)


_LOADERS = [(name, 0) for name in ("shuffled", "stream", *_SAMPLERS)]
_WITH_WORKERS = [("shuffled", 2), ("stream", 2), ("stateful StatefulDistributedSampler", 2)]


@pytest.mark.parametrize(("name", "workers"), [*_LOADERS, *_WITH_WORKERS])
def test_every_loader_goes_on(name: str, workers: int) -> None:
    """In the middle of a pass: the batches that are left are the same."""
    torch.manual_seed(_SEED)
    loader = _loader(name, workers)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    state = loader.state_dict()
    left = [batch.tolist() for batch in iterator]
    made = part_there_and_back(state)
    assert difference(made, state) is None
    torch.manual_seed(_SEED)
    new_loader = _loader(name, workers)
    new_loader.load_state_dict(made)
    assert [batch.tolist() for batch in new_loader] == left
    assert left


def test_a_loader_between_two_passes_goes_on() -> None:
    """The state of a loader that has come to its end is another one."""
    loader = _loader("shuffled", 0)
    list(loader)
    state = loader.state_dict()
    assert difference(part_there_and_back(state), state) is None


def _nodes() -> torchdata.nodes.Loader[Any]:
    """Most nodes of torchdata in one pipeline."""
    nodes = torchdata.nodes
    sampled = nodes.SamplerWrapper(
        stateful_samplers.RandomSampler(_NUMBERS, generator=_generator())
    )
    mixed = nodes.MultiNodeWeightedSampler(
        {"a": nodes.IterableWrapper(range(40)), "b": sampled}, {"a": 0.7, "b": 0.3}, seed=_SEED
    )
    batches = nodes.Unbatcher(nodes.Batcher(nodes.Mapper(mixed, _doubled), 3))
    return nodes.Loader(nodes.Prefetcher(nodes.ParallelMapper(batches, _doubled, 2), 2))


def _doubled(number: int) -> int:
    return number * 2


def test_nodes_of_torchdata_go_on() -> None:
    """Their state is a tree of dicts; what is left of the pass is the same."""
    loader = _nodes()
    iterator = iter(loader)
    seen = list(itertools.islice(iterator, 7))
    state = loader.state_dict()
    left = list(iterator)
    made = part_there_and_back(state)
    assert difference(made, state) is None
    new_loader = _nodes()
    new_loader.load_state_dict(made)
    assert list(new_loader) == left
    assert seen
    assert left
