"""What a conversion refuses and asks about, and that it then leaves nothing behind."""

from __future__ import annotations

import copy
import functools
import os

import pytest
import torch

from liontool import convert_checkpoint, read_checkpoint
from liontool.errors import (
    AmbiguousError,
    LayoutError,
    PublishError,
    ReadError,
    RefusedError,
    SourceChangedError,
    UnknownOptimizerError,
)
from support.plain_runs import LR, RATIO, SCHEDULERS, adamw, load, network, resume, save, train


@pytest.fixture
def refused(tmp_path):
    """Saves a value, converts it, and sees the error and that nothing was written."""

    def check(value, error, match, **options):
        path = save(value, tmp_path / "adamw.pt")
        with pytest.raises(error, match=match) as caught:
            convert_checkpoint(path, **{"lr_ratio": RATIO, **options})
        assert [path.name for path in tmp_path.iterdir()] == ["adamw.pt"]
        assert "\n" not in str(caught.value)
        return caught.value

    return check


def state_of(kind, **options):
    """An optimizer's state dict after some steps."""
    model = network()
    optimizer = kind(model.parameters(), lr=LR, **options)
    train(model, optimizer, 30)
    return optimizer.state_dict()


@functools.cache
def _trained():
    return adamw()[1].state_dict()


def changed(**keys):
    """AdamW's state dict with other keys in its group."""
    state = copy.deepcopy(_trained())
    state["param_groups"][0].update(keys)
    return state


def damaged(number=float("nan")):
    """AdamW's state dict with a first moment that is not finite."""
    state = changed()
    state["state"][2]["exp_avg"][1] = number
    return state


# --- what it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        (torch.optim.RAdam, r"optimizer: this looks like RAdam.*groups lack 'amsgrad'"),
        (torch.optim.NAdam, r"looks like NAdam.*state has 'mu_product'"),
        (torch.optim.SGD, r"looks like SGD.*groups have 'dampening', 'momentum', 'nesterov'"),
        (torch.optim.Adamax, r"looks like Adamax.*state has 'exp_inf'"),
        (torch.optim.RMSprop, r"looks like RMSprop.*state lacks 'exp_avg'"),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_other_optimizers(refused, kind, match):
    """Look-alikes are refused by name, with the keys that differ."""
    error = refused({"optimizer": state_of(kind)}, UnknownOptimizerError, match)
    has_moment = kind in (torch.optim.RAdam, torch.optim.NAdam, torch.optim.Adamax)
    assert error.id == ("unknown-optimizer" if has_moment else None)


def test_unknown_optimizer_allowed(tmp_path):
    """What has a first moment can be taken over, with a warning."""
    path = save(state_of(torch.optim.RAdam), tmp_path / "radam.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO, allow=["unknown-optimizer"])
    assert [notice.id for notice in report.notices] == ["unknown-optimizer"]
    state = load(report.output)
    assert list(state["state"][0]) == ["exp_avg"]
    resume(state, network().parameters())


def test_one_of_several_is_no_adamw(tmp_path, refused):
    """The message names the options that convert the others, quoted for a shell."""
    other = state_of(torch.optim.SGD)
    value = {"adam w": adamw()[1].state_dict(), "sgd": other, "more": [other]}
    match = r"^sgd: this looks like SGD.*; to convert the others alone: --optimizer 'adam w'$"
    refused(value, UnknownOptimizerError, match)
    report = convert_checkpoint(tmp_path / "adamw.pt", lr_ratio=RATIO, optimizers=["adam w"])
    found = load(report.output)
    assert found["adam w"]["param_groups"][0]["lr"] == LR / RATIO
    assert found["sgd"]["param_groups"] == other["param_groups"]


def test_optimizer_that_is_not_there(refused):
    """A path that leads elsewhere is answered with those that there are."""
    value = {"a": adamw()[1].state_dict(), "b": [1]}
    for path in ("c", "b", "b.0"):
        refused(value, LayoutError, rf"--optimizer {path} leads.*found: a$", optimizers=[path])


def test_lion_already(tmp_path):
    """A converted file is not converted again."""
    path = save(adamw()[1].state_dict(), tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO)
    with pytest.raises(UnknownOptimizerError, match="this is the state of Lion already"):
        convert_checkpoint(report.output, lr_ratio=RATIO)


def test_optimizer_object(refused):
    """A pickled optimizer is answered with the two lines that save its state dict."""
    match = (
        r"holds a pickled torch\.optim\.adamw\.AdamW object instead of its state_dict\(\).*"
        r"optimizer = torch\.load\('.*', weights_only=False\)\['optimizer'\]; "
        r"torch\.save\(optimizer\.state_dict\(\), '.*-optimizer\.pt'\)$"
    )
    refused({"optimizer": adamw()[1]}, LayoutError, match)


def test_scheduler_only(refused):
    """A scheduler is never converted without its optimizer."""
    scheduler = SCHEDULERS.StepLR(adamw()[1], 10)
    match = "holds the state of a scheduler but no optimizer's"
    refused({"scheduler": scheduler.state_dict()}, LayoutError, match)


def test_nothing_there(tmp_path):
    """A path without a file is an error that says so."""
    with pytest.raises(ReadError, match=r"gone\.pt: no such file or folder"):
        convert_checkpoint(tmp_path / "gone.pt", lr_ratio=RATIO)


def test_names_that_no_system_takes(tmp_path, refused):
    """A name that is too long is an error of the path, for source and output."""
    long = "x" * 300 + ".pt"
    with pytest.raises(ReadError, match="File name too long"):
        convert_checkpoint(tmp_path / long, lr_ratio=RATIO)
    value = {"optimizer": adamw()[1].state_dict()}
    refused(value, PublishError, "File name too long", output=tmp_path / long)


# --- moments ------------------------------------------------------------------------------------

OUTPUTS = {"whole": None, "state dict": "state.bin", "safetensors": "state.safetensors"}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("momentum", ["copy", "scaled"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_nonfinite(tmp_path, refused, kind, momentum, number):
    """A first moment that is not finite stops every kind of output, and a dry run too."""
    output = tmp_path / OUTPUTS[kind] if OUTPUTS[kind] else None
    options = {"output": output, "momentum": momentum}
    match = r"optimizer\.state\.2\.exp_avg: the first moment has 1 non-finite values.*nonfinite$"
    for dry_run in (False, True):
        error = refused(
            {"optimizer": damaged(number)}, RefusedError, match, dry_run=dry_run, **options
        )
        assert error.id == "nonfinite"


def test_nonfinite_allowed(tmp_path):
    """It can be allowed, is copied then, and does not matter where zeros are written."""
    path = save({"optimizer": damaged()}, tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO, allow=["nonfinite"])
    assert load(report.output)["optimizer"]["state"][2]["exp_avg"].isnan().sum() == 1
    assert "nonfinite" in [notice.id for notice in report.notices]
    report = convert_checkpoint(path, lr_ratio=RATIO, momentum="zeros", force=True)
    assert not load(report.output)["optimizer"]["state"][2]["exp_avg"].any()


def test_nonfinite_second_moment(tmp_path):
    """Second moments are dropped and never looked at."""
    state = changed()
    state["state"][0]["exp_avg_sq"].fill_(float("nan"))
    path = save(state, tmp_path / "adamw.pt")
    assert convert_checkpoint(path, lr_ratio=RATIO).optimizers[0].kind == "AdamW"


def test_shape_mismatch(tmp_path, refused):
    """Moments of another shape than the parameter are refused, unless allowed."""
    model = network()
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=LR)
    train(model, optimizer, 30)
    value = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    value["model"]["2.bias"] = torch.zeros(5)
    match = (
        r"optimizer: 2\.bias: exp_avg has shape \[2\], the parameter has \[5\]; .*shape-mismatch$"
    )
    refused(value, RefusedError, match)
    report = convert_checkpoint(tmp_path / "adamw.pt", lr_ratio=RATIO, allow=["shape-mismatch"])
    assert (tmp_path / "adamw.lion.pt").exists()
    assert [n.text for n in report.notices if n.id == "shape-mismatch"] == [
        "optimizer: 2.bias: exp_avg has shape [2], the parameter has [5]; taken all the same",
        "optimizer: 2.bias: exp_avg_sq has shape [2], the parameter has [5]; taken all the same",
    ]
    assert report.provenance["allow"] == ["shape-mismatch"]


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (None, "None"),
        ([0.0, 1.0], r"\[0\.0, 1\.0\]"),
        (torch.ones(4, 3, dtype=torch.int8), r"int8\[4, 3\]"),
        (torch.eye(3).to_sparse(), "sparse"),
    ],
    ids=["None", "list", "int8", "sparse"],
)
def test_moment_that_is_no_plain_tensor(refused, moment, shown):
    """Quantised, sparse and absent moments are refused: no Lion could go on from them."""
    state = changed()
    state["state"][0]["exp_avg"] = moment
    match = rf"optimizer: 0: exp_avg is .*{shown}.*only plain tensors of floats"
    refused({"optimizer": state}, LayoutError, match)


# --- numbers ------------------------------------------------------------------------------------

_LOOP: list = [1.0]
_LOOP.append(_LOOP)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"lr": None}, "lr must be a finite number, found None"),
        ({"lr": "0.1"}, "lr must be a number, found '0.1'"),
        ({"lr": float("nan")}, "lr must be a finite number, found nan"),
        ({"lr": 10**400}, "lr must be a number, found 10000"),
        ({"lr": torch.ones(3)}, r"lr must be a number, found 'float32\[3\]'"),
        ({"initial_lr": _LOOP}, r"initial_lr must be a number, found \[1\.0, \[1\.0"),
        ({"weight_decay": _LOOP}, r"weight_decay must be a finite number, found \[1\.0"),
        ({"weight_decay": float("inf")}, "weight_decay must be a finite number, found inf"),
        ({"betas": None}, r"betas must be numbers in \[0, 1\), found None"),
        ({"betas": (0.9,)}, r"betas must be numbers in \[0, 1\), found \(0\.9,\)"),
        ({"betas": (1.0, 0.999)}, r"betas must be numbers in \[0, 1\), found \(1\.0, 0\.999\)"),
        ({"betas": (float("nan"), 0.9)}, r"betas must be numbers in \[0, 1\), found \(nan"),
    ],
    ids=str,
)
def test_values_of_groups(refused, keys, match):
    """Rates, decay and betas that are no such numbers stop the conversion."""
    refused({"optimizer": changed(**keys)}, LayoutError, rf"^optimizer: group 0: {match}")


@pytest.mark.parametrize("step", ["x", -1, float("nan"), float("inf"), torch.ones(2), 10**400])
def test_step_counts(refused, step):
    """A step count that is none would make a wrong horizon."""
    state = changed()
    state["state"][1]["step"] = step
    refused({"optimizer": state}, LayoutError, "^optimizer: 1: step must be a count, found")


@pytest.mark.parametrize("to", ["lion", "lion-sf"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("base_lrs", _LOOP),
        ("base_lrs", "x"),
        ("eta_min", torch.float32),
        ("_last_lr", [torch.ones(2)]),
    ],
    ids=["recursive", "text", "object", "tensor"],
)
def test_values_of_schedulers(refused, key, value, to):
    """Learning rates of a scheduler that are no numbers stop the conversion."""
    _model, optimizer = adamw()
    scheduler = SCHEDULERS.CosineAnnealingLR(optimizer, 10)
    state = {**scheduler.state_dict(), key: value}
    checkpoint = {"optimizer": optimizer.state_dict(), "scheduler": state}
    match = f"^scheduler scheduler: {key} must be numbers, found"
    refused(checkpoint, LayoutError, match, to=to)
    refused({"scheduler": state, "optimizer": changed(initial_lr=1.0)}, LayoutError, match, to=to)


def test_state_of_no_parameter(refused):
    """Keys that became text would lose the whole momentum; torch would drop it silently."""
    state = changed()
    state["state"] = {str(key): value for key, value in state["state"].items()}
    match = r"optimizer: state of '0' belongs to no group's params.*torch\.save$"
    refused({"optimizer": state}, LayoutError, match)


def test_maximize(tmp_path, refused):
    """A Lion that does not know maximize would walk the other way; ours knows it."""
    value = {"optimizer": changed(maximize=True)}
    match = r"group 0 has maximize=True, which the Lion of lion-pytorch does not read.*maximize$"
    refused(value, RefusedError, match, package="lion-pytorch")
    options = {"package": "lion-pytorch", "allow": ["maximize"]}
    report = convert_checkpoint(tmp_path / "adamw.pt", lr_ratio=RATIO, **options)
    assert "maximize" not in load(report.output)["optimizer"]["param_groups"][0]
    assert "maximize" in [notice.id for notice in report.notices]
    report = convert_checkpoint(tmp_path / "adamw.pt", lr_ratio=RATIO, force=True)
    assert load(report.output)["optimizer"]["param_groups"][0]["maximize"] is True


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"lr_ratio": 0}, "lr_ratio must be a positive number"),
        ({"lr_ratio": float("nan")}, "lr_ratio must be a positive number"),
        ({"lr_ratio": 1e-320}, "lr_ratio must be a positive number"),
        ({"lr_ratio": 1e300}, "lr_ratio must be a positive number up to 1,000,000"),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must lie in \[0, 1\), got 1.0"),
        ({"to": "sgd"}, "to must be one of lion, lion-sf"),
        ({"package": "lion"}, "unknown package 'lion'"),
        ({"allow": ["all"]}, "allow must be one of nonfinite"),
        ({"decay": "decoupled", "package": "timm"}, "the decay of timm always contains lr"),
    ],
    ids=str,
)
def test_arguments(refused, options, match):
    """Wrong arguments are errors of the caller."""
    refused({"optimizer": changed()}, ValueError, match, **options)


# --- schedulers of nobody -----------------------------------------------------------------------


def test_scheduler_of_either_of_two(tmp_path, refused):
    """A scheduler that may be of an optimizer that stays as it is cannot be scaled."""
    pairs = [adamw(lr=LR, steps=0) for _ in range(2)]
    schedulers = [SCHEDULERS.ExponentialLR(optimizer, 0.9) for _, optimizer in pairs]
    for (model, optimizer), scheduler in zip(pairs, schedulers, strict=True):
        train(model, optimizer, 30, scheduler)
    value = {"a": pairs[0][1].state_dict(), "b": pairs[1][1].state_dict()}
    value["scheduler"] = schedulers[0].state_dict()
    match = "cannot tell whether the scheduler at scheduler drives an optimizer that is converted"
    refused(value, AmbiguousError, match, optimizers=["a"])
    refused(value, AmbiguousError, "cannot tell which optimizer the scheduler", to="lion-sf")
    report = convert_checkpoint(tmp_path / "adamw.pt", lr_ratio=RATIO)
    assert [notice.id for notice in report.notices] == ["loose-scheduler"]
    assert load(report.output)["scheduler"]["base_lrs"] == [LR / RATIO]


# --- a source that changes ----------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("change", ["touched", "replaced", "grown", "removed"])
def test_source_that_changes(tmp_path, change, dry_run):
    """A run that is still writing is found out before anything appears."""
    path = save(changed(), tmp_path / "adamw.pt")

    def meddle(done, total):
        if change == "touched":
            os.utime(path, ns=(1, 1))
        elif change == "grown":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "replaced":
            other = save(changed(), tmp_path / "other.pt")
            other.replace(path)
        else:
            path.unlink(missing_ok=True)

    error = ReadError if change == "removed" else SourceChangedError
    with pytest.raises(error, match=r"adamw\.pt"):
        convert_checkpoint(path, lr_ratio=RATIO, progress=meddle, dry_run=dry_run)
    assert {path.name for path in tmp_path.iterdir()} <= {"adamw.pt"}


def test_interrupted(tmp_path):
    """Ctrl-C in the middle leaves the folder as it was."""
    path = save(changed(), tmp_path / "adamw.pt")

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(path, lr_ratio=RATIO, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["adamw.pt"]


def test_read_checkpoint(tmp_path):
    """`read_checkpoint` gives the model of what a conversion would work on."""
    path = save({"optimizer": changed(), "step": 7}, tmp_path / "adamw.pt")
    checkpoint = read_checkpoint(path)
    assert (checkpoint.framework, checkpoint.step) == ("plain", 7)
    assert checkpoint.optimizers[0].label == "optimizer"
    assert checkpoint.optimizers[0].groups[0].fields["lr"] == LR
    with pytest.raises(LayoutError, match="unknown framework 'keras'"):
        read_checkpoint(path, framework="keras")
