"""What goes on from a checkpoint is the run that was never interrupted, bit for bit."""

from __future__ import annotations

import copy
import inspect
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from liontool.errors import ResumeError
from liontool.optim import Lion, LionSF
from liontool.resume.difference import difference
from liontool.resume.reading import read_state
from support import schedules
from support.run_parts import Parts, check_goes_on, net

Make = Any


def _torchs() -> list[type[torch.optim.Optimizer]]:
    kinds = [kind for kind in vars(torch.optim).values() if inspect.isclass(kind)]
    left_out = torch.optim.Optimizer, torch.optim.SparseAdam
    return [
        kind for kind in kinds if issubclass(kind, torch.optim.Optimizer) and kind not in left_out
    ]


_MOMENTUM = {
    torch.optim.SGD: {"momentum": 0.9},
    torch.optim.RMSprop: {"momentum": 0.9, "centered": True},
}


def _built(kind: Make, dtype: torch.dtype = torch.float32, **options: Any) -> Parts:
    model = net(dtype)
    params = [p for p in model.parameters() if p.dim() == 2 or kind is not torch.optim.Muon]
    return Parts(model, kind(params, lr=0.01, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", _torchs(), ids=lambda kind: kind.__name__)
def test_every_optimizer_of_torch(kind: Make, dtype: torch.dtype, tmp_path: Path) -> None:
    """Whatever torch's loader casts, the bits go on."""
    options = _MOMENTUM.get(kind, {})
    check_goes_on(partial(_built, kind, dtype, **options), tmp_path)


_LIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "split": {"rounding": "split"},
    "stochastic": {"rounding": "stochastic"},
    "float32 state": {"state_dtype": torch.float32},
    "sums and averages": {"gradient_accumulation_steps": 2, "use_ema": True},
    "decoupled": {"decoupled_weight_decay": True, "weight_decay": 0.1},
}


@pytest.mark.parametrize("options", _LIONS.values(), ids=_LIONS)
@pytest.mark.parametrize("kind", [Lion, LionSF])
def test_lions(kind: Make, options: dict[str, Any], tmp_path: Path) -> None:
    """Residuals, sums, averages and counters of bfloat16 weights go on."""
    check_goes_on(partial(_built, kind, torch.bfloat16, **options), tmp_path)


def test_a_lion_that_was_converted(tmp_path: Path) -> None:
    """The horizon is part of the state."""

    def build() -> Parts:
        parts = _built(Lion)
        parts.optimizer.param_groups[0]["horizon"] = 7.0
        return parts

    parts = check_goes_on(build, tmp_path)
    assert parts.optimizer.param_groups[0]["horizon"] == 7.0


def test_lion_pytorch(tmp_path: Path) -> None:
    """An optimizer of another package."""
    from lion_pytorch import Lion as Other

    check_goes_on(partial(_built, Other), tmp_path)


class Wide(torch.optim.Optimizer):
    """Keeps float32 moments of bfloat16 weights, which torch's loader would round."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                state = self.state[param]
                if not state:
                    state["exp_avg"] = torch.zeros_like(param, dtype=torch.float32)
                    state["history"] = [torch.zeros(2), {"at": (torch.zeros(1), None)}]
                state["exp_avg"].lerp_(param.grad.float(), 0.1)
                state["history"] = [state["history"][0] + 1 / 3, {"at": (torch.ones(1) / 3, None)}]
                param.sub_(group["lr"] * state["exp_avg"])


def test_float32_state_of_bfloat16_weights(tmp_path: Path) -> None:
    """No moment comes back rounded, however deep it lies in lists and dicts."""
    parts = check_goes_on(partial(_built, Wide, torch.bfloat16), tmp_path)
    state = next(iter(parts.optimizer.state.values()))
    assert state["exp_avg"].dtype == state["history"][0].dtype == torch.float32


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("make", schedules.MAKERS, ids=lambda make: make.__name__)
def test_every_scheduler_of_torch(make: Make, tmp_path: Path) -> None:
    """Of two groups, the learning rates and momenta go on."""

    def build() -> Parts:
        model = net()
        groups = [{"params": layer.parameters()} for layer in (model[0], model[2])]
        optimizer = torch.optim.AdamW([groups[0], {**groups[1], "lr": 0.03}], lr=0.01)
        return Parts(model, optimizer, make(optimizer))

    check_goes_on(build, tmp_path)


class Halving:
    """A factor that is an object, whose state LambdaLR keeps."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return 0.5**self.calls


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, Halving()),
        lambda optimizer: torch.optim.lr_scheduler.MultiplicativeLR(optimizer, lambda step: 0.9),
        lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=5),
    ],
    ids=["function", "object", "multiplicative", "plateau"],
)
def test_schedulers_that_call_functions(make: Make, tmp_path: Path) -> None:
    """The function is that of the script, its state that of the checkpoint."""

    def build() -> Parts:
        parts = _built(torch.optim.SGD)
        parts.scheduler = make(parts.optimizer)
        return parts

    check_goes_on(build, tmp_path)


def test_a_learning_rate_in_a_tensor(tmp_path: Path) -> None:
    """It is in groups and in the scheduler."""

    def build() -> Parts:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01), foreach=False)
        return Parts(model, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9))

    check_goes_on(build, tmp_path)


def test_parameters_keep_their_memory(tmp_path: Path) -> None:
    """Whoever holds a parameter still holds the one that trains."""
    first = _built(torch.optim.AdamW).train(0, 3)
    second = _built(torch.optim.AdamW)
    before = [param.data_ptr() for param in second.model.parameters()]
    second.resume(first.save(tmp_path / "run"))
    assert [param.data_ptr() for param in second.model.parameters()] == before


def test_state_regains_its_strides(tmp_path: Path) -> None:
    """A moment is laid out as its parameter is."""

    def build() -> Parts:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Unflatten(1, (2, 2, 1)), torch.nn.Conv2d(2, 3, (2, 1)), torch.nn.Flatten()
        ).to(memory_format=torch.channels_last)
        return Parts(model, torch.optim.AdamW(model.parameters(), lr=0.01))

    parts = check_goes_on(build, tmp_path)
    weight = parts.model[1].weight
    assert parts.optimizer.state[weight]["exp_avg"].stride() == weight.stride()


WRAPPERS: dict[str, Make] = {
    "plain": lambda model: model,
    "DataParallel": torch.nn.DataParallel,
    "compiled": partial(torch.compile, backend="eager"),
    "both": lambda model: torch.compile(torch.nn.DataParallel(model), backend="eager"),
}


@pytest.mark.parametrize("later", WRAPPERS)
@pytest.mark.parametrize("first", WRAPPERS)
def test_wrappers_are_overlooked(first: str, later: str, tmp_path: Path) -> None:
    """A model goes on wrapped or not, whatever it was."""

    def wrapped(how: str) -> Parts:
        parts = _built(torch.optim.AdamW)
        parts.extras = {"ema": torch.optim.swa_utils.AveragedModel(parts.model)}
        parts.model = WRAPPERS[how](parts.model)
        return parts

    saved = wrapped(first)
    inner = _built(torch.optim.AdamW).train(0, 3)
    saved.model.load_state_dict(
        dict(zip(saved.model.state_dict(), inner.model.state_dict().values(), strict=True))
    )
    resumed = wrapped(later)
    resumed.resume(saved.save(tmp_path / "run"))
    for one, other in zip(resumed.model.parameters(), inner.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not [line for line in resumed.lines if "was a" in line]


@pytest.mark.parametrize("how", ["DataParallel", "compiled"])
def test_wrapped_models_go_on(how: str, tmp_path: Path) -> None:
    """They train through the wrapper."""

    def build() -> Parts:
        parts = _built(torch.optim.AdamW)
        parts.model = WRAPPERS[how](parts.model)
        return parts

    check_goes_on(build, tmp_path)


def test_a_compiled_part_of_a_model(tmp_path: Path) -> None:
    """The prefix may stand in the middle of a name."""
    first = _built(torch.optim.AdamW).train(0, 3)
    second = _built(torch.optim.AdamW)
    second.model[0] = torch.compile(second.model[0], backend="eager")
    second.resume(first.save(tmp_path / "run"))
    assert torch.equal(second.model[0].weight, first.model[0].weight)


class Tied(torch.nn.Module):
    """Two layers with one weight."""

    def __init__(self, tie: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        if tie:
            self.last.weight = self.first.weight

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(data))


def _tied(tie: bool = True) -> Parts:
    model = Tied(tie)
    return Parts(model, torch.optim.AdamW(model.parameters(), lr=0.01))


def test_tied_weights(tmp_path: Path) -> None:
    """They are one tensor before and after."""
    parts = check_goes_on(_tied, tmp_path)
    assert parts.model.first.weight is parts.model.last.weight


def _with(**extras: Any) -> Parts:
    parts = _built(torch.optim.AdamW)
    parts.extras = extras
    return parts


def test_several_optimizers(tmp_path: Path) -> None:
    """One of them is an extra, and gets the same care."""

    def build() -> Parts:
        parts = _built(torch.optim.SGD, torch.bfloat16)
        parts.extras = {"second": Wide(parts.model[0].parameters(), lr=0.01)}
        return parts

    check_goes_on(build, tmp_path)


def test_averaged_models_scalers_and_metrics(tmp_path: Path) -> None:
    """Extras of torch and torchmetrics keep what they have."""
    from torchmetrics import MeanMetric

    def build() -> Parts:
        ema = torch.optim.swa_utils.AveragedModel(net())
        metric = MeanMetric()
        metric.persistent(True)
        return _with(ema=ema, scaler=torch.amp.GradScaler("cpu", init_scale=4.0), metric=metric)

    first = build().train(0, 3)
    first.extras["ema"].update_parameters(first.model)
    first.extras["metric"].update(3.0)
    first.extras["scaler"].load_state_dict(
        {**first.extras["scaler"].state_dict(), "scale": 16.0, "_growth_tracker": 5}
    )
    second = build()
    second.resume(first.save(tmp_path / "run"))
    assert int(second.extras["ema"].n_averaged) == 1
    assert second.extras["metric"].mean_value == 3.0
    assert second.extras["scaler"].state_dict()["scale"] == 16.0
    assert second.extras["scaler"].state_dict()["_growth_tracker"] == 5


def test_generators_and_python_objects(tmp_path: Path) -> None:
    """A generator has no state_dict, and is kept all the same."""

    def build() -> Parts:
        return _with(
            torchs=torch.Generator().manual_seed(1),
            numpys=np.random.default_rng(1),
            old=np.random.RandomState(1),
            pythons=random.Random(1),
        )

    def numbers(parts: Parts) -> list[float]:
        found = parts.extras
        drawn = torch.rand(3, generator=found["torchs"]).tolist()
        return [*drawn, found["numpys"].random(), found["old"].rand(), found["pythons"].random()]

    first = build()
    numbers(first)
    checkpoint = first.save(tmp_path / "run")
    second = build()
    second.resume(checkpoint)
    assert numbers(second) == numbers(first)


def test_a_thing_without_state() -> None:
    """What cannot be kept is said at once."""
    with pytest.raises(ResumeError, match=r"^note is a builtins.str, which has no state_dict\(\)"):
        _with(note="hello").census()


def test_no_optimizer() -> None:
    """There is nothing to train with."""
    with pytest.raises(ValueError, match=r"^model and optimizer must be given"):
        Parts(net(), None).census()


def test_a_module_without_shapes() -> None:
    """A lazy layer is built by its first batch."""
    parts = _with(head=torch.nn.LazyLinear(3))
    with pytest.raises(ResumeError, match=r"^head: 'weight', 'bias' has no shape yet; run one"):
        parts.census().live()


def test_an_extra_that_keeps_nothing_is_said() -> None:
    """A metric of torchmetrics keeps nothing unless it is told to."""
    from torchmetrics import MeanMetric

    parts = _with(metric=MeanMetric())
    parts.census()
    assert parts.lines == [
        "metric: its state_dict() is empty, so nothing of it is kept; a metric of torchmetrics "
        "needs persistent(True)"
    ]


def test_lion_sf_with_a_scheduler_is_said() -> None:
    """It needs none."""
    parts = _built(LionSF)
    parts.scheduler = torch.optim.lr_scheduler.ExponentialLR(parts.optimizer, 0.9)
    parts.census()
    assert parts.lines == [
        "LionSF needs no warm-up and no scheduler: its learning rate stays constant; "
        "ExponentialLR is used all the same, since it was passed"
    ]


def _refused(parts: Parts, checkpoint: Path, match: str, **options: Any) -> None:
    """A refusal leaves everything as it was."""
    before = copy.deepcopy(parts.census().live())
    with pytest.raises(ResumeError, match=match):
        parts.resume(checkpoint, **options)
    assert difference(parts.census().live(), before) is None


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return _built(torch.optim.AdamW).train(0, 3).save(tmp_path / "run")


def test_another_memory_format(tmp_path: Path) -> None:
    """The kernels would sum in another order."""

    def build(memory_format: Any) -> Parts:
        layers = torch.nn.Unflatten(1, (2, 2, 1)), torch.nn.Conv2d(2, 3, (2, 1))
        model = torch.nn.Sequential(*layers).to(memory_format=memory_format)
        return Parts(model, torch.optim.AdamW(model.parameters(), lr=0.01))

    saved = build(torch.channels_last).save(tmp_path / "run")
    _refused(
        build(torch.contiguous_format),
        saved,
        r"^model: '1.weight' has strides \[4, 1, 2, 2\] in the checkpoint and \[4, 2, 1, 1\] in "
        "this run, whose sums would round otherwise; give it the memory_format that it was saved",
    )


def _other(*layers: torch.nn.Module) -> Parts:
    model = torch.nn.Sequential(*layers)
    return Parts(model, torch.optim.AdamW(model.parameters(), lr=0.01))


def test_another_shape(checkpoint: Path) -> None:
    """The tensor is named, with both shapes and a way out."""
    parts = _other(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    _refused(
        parts,
        checkpoint,
        r"^model: '2.weight' has shape \[2, 6\] in the checkpoint and \[3, 6\] in this run; "
        "build it as it was when it was saved, or begin a run in another folder$",
    )


def test_another_dtype(checkpoint: Path) -> None:
    """torch would cast it without a word."""
    _refused(
        _built(torch.optim.AdamW, torch.bfloat16),
        checkpoint,
        "^model: '0.weight' has dtype float32 in the checkpoint and bfloat16 in this run",
    )


def test_other_names(checkpoint: Path) -> None:
    """What is missing and what is too many."""
    parts = _other(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))
    _refused(
        parts,
        checkpoint,
        "^optimizer: against this run's, the checkpoint's lacks '1.weight', '1.bias' and has in "
        "addition '2.weight', '2.bias'; build the model as it was when it was saved, and give",
    )


def test_other_buffers(tmp_path: Path) -> None:
    """The optimizer has the same parameters, the model has not."""
    saved = _other(torch.nn.Linear(4, 6, bias=False)).save(tmp_path / "run")
    parts = _other(torch.nn.Linear(4, 6, bias=False), torch.nn.BatchNorm1d(6, affine=False))
    _refused(
        parts,
        saved,
        "^model: against this run's, the checkpoint's lacks '1.running_mean', '1.running_var', "
        "'1.num_batches_tracked'; build it as it was when it was saved, or begin a run in another",
    )


def test_weights_that_are_no_longer_tied(tmp_path: Path) -> None:
    """The optimizer would train two tensors where there was one."""
    tied, parts = _tied(), _tied(tie=False)
    for one in (tied, parts):
        one.optimizer = torch.optim.AdamW(one.model.first.parameters(), lr=0.01)
    _refused(
        parts,
        tied.save(tmp_path / "run"),
        "^model: 'first.weight', 'last.weight' are one tensor in the checkpoint, which this run "
        "has apart; tie the weights",
    )


def test_weights_that_are_tied_now(tmp_path: Path) -> None:
    """The other way."""
    apart, parts = _tied(tie=False), _tied()
    for one in (apart, parts):
        one.optimizer = torch.optim.AdamW(one.model.first.parameters(), lr=0.01)
    _refused(parts, apart.save(tmp_path / "run"), "are one tensor in this run, which the checkp")


def test_other_groups(checkpoint: Path) -> None:
    """As many parameters in other groups."""
    parts = _built(torch.optim.AdamW)
    groups = [{"params": layer.parameters()} for layer in (parts.model[0], parts.model[2])]
    parts.optimizer = torch.optim.AdamW(groups)
    _refused(
        parts,
        checkpoint,
        r"^optimizer: its groups have 4 parameters in the checkpoint and 2 \+ 2 in this run; build",
    )


def test_a_reordered_model(checkpoint: Path) -> None:
    """Moments go by position, so the names at each position are compared."""
    parts = _built(torch.optim.AdamW)
    parts.optimizer = torch.optim.AdamW([*parts.model.parameters()][::-1])
    _refused(
        parts,
        checkpoint,
        "^optimizer: parameter 0 was '0.weight' in the checkpoint and is '2.bias', so "
        "it would get the state of another; give the optimizer its parameters in the order",
    )


class Stubborn:
    """Takes nothing."""

    def state_dict(self) -> dict[str, int]:
        return {"a": 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        raise KeyError("b")


def test_an_extra_that_refuses(tmp_path: Path) -> None:
    """The weights are as they were."""
    saved = _with(odd=Stubborn()).train(0, 3).save(tmp_path / "run")
    _refused(_with(odd=Stubborn()), saved, "^odd: .*Stubborn does not take its state .*: 'b'; buil")


def test_a_generator_of_another_kind(tmp_path: Path) -> None:
    """Its state is not that of this one."""
    old = np.random.Generator(np.random.MT19937(1))
    saved = _with(odd=old).save(tmp_path / "run")
    match = "^odd: numpy.random._generator.Generator does not take its state from the checkpoint: "
    _refused(_with(odd=np.random.default_rng(1)), saved, match)


class Failing(torch.optim.SGD):
    """Fails when half of its state is loaded."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        raise ValueError("no\nmore")


def test_an_optimizer_that_refuses(tmp_path: Path) -> None:
    """What it and others loaded before is taken back."""

    def build() -> Parts:
        parts = _built(torch.optim.SGD, momentum=0.9)
        parts.extras = {"odd": Failing(parts.model[0].parameters(), lr=0.1, momentum=0.9)}
        return parts

    saved = build().train(0, 3).save(tmp_path / "run")
    match = "^odd: Failing does not take its state from the checkpoint: no more$"
    _refused(build(), saved, match)


class Choosy(torch.nn.Linear):
    """Fails when it is loaded."""

    def _load_from_state_dict(self, *arguments: Any) -> None:
        raise RuntimeError("never")


def test_a_module_that_refuses(tmp_path: Path) -> None:
    """The optimizer is as it was."""
    saved = _other(Choosy(4, 2)).train(0, 3).save(tmp_path / "run")
    _refused(_other(Choosy(4, 2)), saved, "^model: cannot be loaded: never$")


class Versioned(torch.nn.Linear):
    """Says which version of its state it is given."""

    _version = 3

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        self.found = metadata["version"]
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_the_versions_of_modules_go_along(tmp_path: Path) -> None:
    """A module may read what an older one of its kind wrote."""
    old = _other(Versioned(4, 2))
    old.model[0]._version = 2
    old.model = torch.nn.DataParallel(old.model)
    parts = _other(Versioned(4, 2))
    parts.resume(old.save(tmp_path / "run"))
    assert parts.model[0].found == 2


class Forgetful(Stubborn):
    """Takes nothing, and says nothing."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def state_dict(self) -> dict[str, int]:
        return {"a": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def test_an_extra_that_forgets_lowers_the_level(tmp_path: Path) -> None:
    """What was loaded is compared with what the object says of itself."""
    saved = _with(odd=Forgetful(1)).save(tmp_path / "run")
    parts = _with(odd=Forgetful())
    census = parts.resume(saved)
    (line,) = parts.lines
    assert line.endswith("Forgetful changed its state while loading: a")
    assert census.reasons() == [line]


class Dropping(torch.optim.SGD):
    """Drops a key of its state."""

    def load_state_dict(self, state_dict: Any) -> None:
        state_dict["state"] = {}
        super().load_state_dict(state_dict)


def test_an_optimizer_that_forgets_is_an_error(tmp_path: Path) -> None:
    """A run cannot go on from half of its state."""
    saved = _built(Dropping, momentum=0.9).train(0, 3).save(tmp_path / "run")
    with pytest.raises(ResumeError, match=r"Dropping changed its state while loading: state.0; "):
        _built(Dropping, momentum=0.9).resume(saved)


def test_shapes_of_moments_are_compared(checkpoint: Path) -> None:
    """An edited checkpoint may have moments of another shape than the weights."""
    parts = _built(torch.optim.AdamW)
    census = parts.census()
    state, _ = read_state(checkpoint, census.live())
    state["optimizer"]["state"][1]["exp_avg"] = torch.zeros(7)
    match = r"^optimizer: 'exp_avg' of parameter 1 has shape \[7\] in the checkpoint, and its para"
    with pytest.raises(ResumeError, match=match):
        census.load(state, overrides={})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda state: state.pop("optimizer"), "^the checkpoint has no optimizer, and this run"),
        (lambda state: state.update(scheduler={}), "^the checkpoint has a scheduler, and this run"),
        (
            lambda state: state.update(extras={"odd": 3}),
            "^odd: the checkpoint has a int, which is no state of a .*Stubborn; go on from another",
        ),
        (
            lambda state: state.update(model=3),
            "^model: the checkpoint has a int, which is no state of a module",
        ),
        (
            lambda state: state.update(optimizer={}),
            "^optimizer: what the checkpoint has is no state of",
        ),
        (
            lambda state: state["model"].update({"0.weight": 3}),
            "^model: '0.weight' is a int in the checkpoint and a Tensor in this run",
        ),
    ],
)
def test_states_of_another_making(change: Any, match: str, checkpoint: Path) -> None:
    """What lies in a checkpoint is not trusted to be what its facts say."""
    census = _with(odd=Stubborn()).census()
    state, _ = read_state(checkpoint, census.live())
    state["extras"] = {"odd": {"a": 1}}
    change(state)
    with pytest.raises(ResumeError, match=match):
        census.load(state, overrides={})


class Counting(torch.optim.SGD):
    """Keeps a counter beside the states of parameters, and moments of other shapes."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        count = self.state.setdefault("count", torch.zeros((), dtype=torch.int64))
        count += 1
        for param in self.param_groups[0]["params"]:
            self.state[param]["exp_avg"] = param.detach().mean() * count


def test_state_of_no_parameter(tmp_path: Path) -> None:
    """Optimizers of others lay out their state as they like."""
    parts = check_goes_on(partial(_built, Counting, momentum=0.9), tmp_path)
    assert int(parts.optimizer.state["count"]) == 6
