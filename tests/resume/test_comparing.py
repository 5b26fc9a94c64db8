"""A checkpoint of another run is refused, with the word that allows it where that can be meant."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)
from torch.utils.data import DataLoader

from liontool.errors import FormatError, ResumeError
from liontool.optim import Lion, LionSF
from liontool.resume.census import Census
from liontool.resume.facts import class_name, same_class
from support.run_parts import Parts, net


def _parts(
    kind: Any = torch.optim.AdamW, scheduler: Any = None, config: Any = None, **extras: Any
) -> Parts:
    model = net()
    optimizer = kind(model.parameters(), lr=0.01)
    made = None if scheduler is None else scheduler(optimizer)
    return Parts(model, optimizer, made, extras, config)


def _facts(**options: Any) -> dict[str, Any]:
    return _parts(**options).census().facts()


def _check(facts: dict[str, Any], parts: Parts, allow: Any = ()) -> list[str]:
    parts.census().check(facts, allow=allow, run="runs/exp 1")
    return parts.lines


ADAMW = "torch.optim.adamw.AdamW"
LION = "liontool.optim.lion.Lion"
LION_SF = "liontool.optim.lion_sf.LionSF"


@pytest.mark.parametrize(
    ("then", "now", "match"),
    [
        (
            torch.optim.AdamW, Lion,
            f"^optimizer was a {ADAMW} in the checkpoint, and is a {LION}; convert the run first, "
            "and open what that writes: liontool convert 'runs/exp 1' --lr-ratio 3$",
        ),
        (torch.optim.Adam, LionSF, "liontool convert 'runs/exp 1' --lr-ratio 3 --to lion-sf$"),
        (
            Lion, torch.optim.AdamW,
            f"^optimizer was a {LION} in the checkpoint, and is a {ADAMW}, whose second moment a "
            "Lion has not; open the run that was converted, which is still there$",
        ),
        (Lion, LionSF, "for it: liontool convert ADAMW_RUN --lr-ratio 3 --to lion-sf$"),
        (LionSF, Lion, "for it: liontool convert ADAMW_RUN --lr-ratio 3$"),
        (
            torch.optim.SGD, torch.optim.AdamW,
            r"that it was saved with; if that is meant: allow=\('optimizer',\)$",
        ),
    ],
)  # fmt: skip
def test_another_optimizer(then: Any, now: Any, match: str) -> None:
    """The command that makes the checkpoint fit is named where there is one."""
    with pytest.raises(ResumeError, match=match):
        _check(_facts(kind=then), _parts(now), allow=["optimizers"])


def test_another_optimizer_that_is_meant(tmp_path: Path) -> None:
    """A class that was renamed takes the state of the old one."""

    class Renamed(torch.optim.AdamW):
        pass

    saved = _parts().train(0, 3)
    parts = _parts(Renamed)
    parts.resume(saved.save(tmp_path / "run"), allow="optimizer")
    assert len(parts.optimizer.state) == 4
    assert parts.lines[0].endswith("build the optimizer that it was saved with; allowed")


def test_a_class_of_the_script() -> None:
    """The script is `__main__` where it runs, and has a name where it is imported."""
    assert same_class("__main__.Net", "train.Net")
    assert not same_class("__main__.Net", "train.Other")
    assert not same_class("a.Net", "b.Net")


def test_wrapped_models_have_their_own_class() -> None:
    """The class is that of the model inside."""
    model = net()
    assert class_name(torch.nn.DataParallel(torch.compile(model, backend="eager"))) == class_name(
        model
    )


def test_another_model_class_is_said() -> None:
    """Names and shapes decide whether it fits."""
    parts = _parts()
    facts = _facts()
    facts["classes"]["model"] = "old.Net"
    assert _check(facts, parts) == [
        "model was a old.Net in the checkpoint, and is a torch.nn.modules.container.Sequential"
    ]


def _exponential(optimizer: Any) -> Any:
    return ExponentialLR(optimizer, 0.9)


def _sequential(last: Any) -> Any:
    return lambda one: SequentialLR(one, [ExponentialLR(one, 0.5), last(one)], [2])


def test_another_scheduler() -> None:
    """torch would write the state of one class into the other."""
    match = (
        "^scheduler was a torch.optim.lr_scheduler.ExponentialLR in the checkpoint, and is a "
        r"torch.optim.lr_scheduler.StepLR; if that is meant: allow=\('scheduler',\)$"
    )
    with pytest.raises(ResumeError, match=match):
        _check(_facts(scheduler=_exponential), _parts(scheduler=lambda one: StepLR(one, 3)))


def test_another_scheduler_inside_of_one() -> None:
    """The classes of nested schedulers count."""
    facts = _facts(scheduler=_sequential(lambda one: StepLR(one, 3)))
    with pytest.raises(ResumeError, match=r"^scheduler\.1 was a .*StepLR .*allow=\('scheduler',"):
        _check(facts, _parts(scheduler=_sequential(lambda one: CosineAnnealingLR(one, 3))))


def test_another_scheduler_that_is_meant(tmp_path: Path) -> None:
    """It begins anew, with the learning rate that it was built for."""
    saved = _parts(scheduler=_exponential).train(0, 3)
    parts = _parts(scheduler=lambda one: CosineAnnealingLR(one, 10))
    parts.resume(saved.save(tmp_path / "run"), allow="scheduler")
    assert parts.scheduler.last_epoch == 0
    assert parts.optimizer.param_groups[0]["lr"] == 0.01
    assert len(parts.optimizer.state) == 4


def test_a_cycle_that_is_replaced(tmp_path: Path) -> None:
    """What it drove in the groups, momenta too, goes with it."""
    saved = _parts(scheduler=lambda one: OneCycleLR(one, 0.1, total_steps=9)).train(0, 3)
    assert saved.optimizer.param_groups[0]["betas"][0] != 0.9
    parts = _parts(scheduler=_exponential)
    before = {**parts.optimizer.param_groups[0]}
    parts.resume(saved.save(tmp_path / "run"), allow="scheduler")
    assert {**parts.optimizer.param_groups[0]} == before


def test_a_scheduler_that_is_new(tmp_path: Path) -> None:
    """The same where there was none."""
    saved = _parts().train(0, 3).save(tmp_path / "run")
    match = r"^the checkpoint has no scheduler, and this run has one, which would begin as it was"
    with pytest.raises(ResumeError, match=match):
        _parts(scheduler=_exponential).resume(saved)
    parts = _parts(scheduler=_exponential)
    parts.resume(saved, allow=["scheduler"])
    assert parts.scheduler.last_epoch == 0
    assert parts.optimizer.param_groups[0]["lr"] == 0.01


def test_a_scheduler_that_is_gone(tmp_path: Path) -> None:
    """The learning rate stays where it was."""
    saved = _parts(scheduler=_exponential).train(0, 3).save(tmp_path / "run")
    match = (
        "^the checkpoint has a scheduler, and this run has none: pass scheduler= to Run, or its "
        r"state is lost; if that is meant: allow=\('scheduler',\)$"
    )
    with pytest.raises(ResumeError, match=match):
        _parts().resume(saved)
    parts = _parts()
    parts.resume(saved, allow=["scheduler"])
    assert parts.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.9**3)


def test_lion_sf_may_leave_its_scheduler_out(tmp_path: Path) -> None:
    """It needs none, so nothing has to be allowed."""
    saved = _parts(LionSF, _exponential).train(0, 3).save(tmp_path / "run")
    parts = _parts(LionSF)
    parts.resume(saved)
    assert parts.lines[0] == (
        "the checkpoint has a scheduler, and this run has none: LionSF needs none, and the "
        "learning rate stays as it is"
    )


def test_an_extra_that_is_new(tmp_path: Path) -> None:
    """It begins as it was built where that is allowed."""
    saved = _parts().save(tmp_path / "run")
    match = (
        "^the checkpoint has no ema, and this run has one, which would begin as it was built; "
        r"if that is meant: allow=\('ema',\)$"
    )
    with pytest.raises(ResumeError, match=match):
        _parts(ema=net()).resume(saved)
    parts = _parts(ema=net())
    parts.resume(saved, allow={"ema"})
    assert parts.lines[0].endswith("which would begin as it was built; allowed")


def test_an_extra_that_is_gone(tmp_path: Path) -> None:
    """Its state is not lost in silence."""
    saved = _parts(ema=net()).save(tmp_path / "run")
    match = (
        "^the checkpoint has a ema, and this run has none: pass ema= to Run, or its state is lost; "
        r"if that is meant: allow=\('ema',\)$"
    )
    with pytest.raises(ResumeError, match=match):
        _parts().resume(saved)
    parts = _parts()
    parts.resume(saved, allow=("ema",))
    assert parts.lines[0].endswith("allowed")


def test_an_extra_of_another_class() -> None:
    """A word allows it."""
    facts = _facts(odd=torch.Generator())
    with pytest.raises(ResumeError, match=r"^odd was a .*Generator .*; .*: allow=\('odd',\)$"):
        _check(facts, _parts(odd=net()))


def test_an_extra_of_another_class_that_is_meant(tmp_path: Path) -> None:
    """What does not fit stays as it was built."""
    saved = _parts(odd=torch.optim.swa_utils.AveragedModel(net())).save(tmp_path / "run")
    parts = _parts(odd=torch.Generator().manual_seed(3))
    parts.resume(saved, allow="odd")
    assert parts.extras["odd"].initial_seed() == 3


CONFIG = {"batch_size": 8, "data": {"root": "/a", "size": 3}}


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        (
            {"batch_size": 16},
            "^config.batch_size is 16 now, and was 8 in the checkpoint's; if that is meant: "
            r"allow=\('batch_size',\)$",
        ),
        ({"data": {"root": "/b", "size": 3}}, r"^config.data.root .*: allow=\('config.data.root',"),
        ({"new": 1}, r"^config.new is 1 now, .*: allow=\('new',\)$"),
    ],
)
def test_another_configuration(changed: Any, match: str) -> None:
    """Each change is named by its path; a word that means a part already is taken in full."""
    with pytest.raises(ResumeError, match=match):
        _check(_facts(config=CONFIG), _parts(config={**CONFIG, **changed}))


@pytest.mark.parametrize("word", ["config.data.root", "config.data", "config"])
def test_another_configuration_that_is_meant(word: str) -> None:
    """The path, or one that leads to it."""
    parts = _parts(config={**CONFIG, "data": {"root": "/b", "size": 3}})
    assert _check(_facts(config=CONFIG), parts, allow=[word]) == [
        "config.data.root is '/b' now, and was '/a' in the checkpoint's; allowed"
    ]


def test_words_for_parts_allow_no_configuration() -> None:
    """`data` is the loader's."""
    parts = _parts(config={**CONFIG, "data": {}})
    with pytest.raises(ResumeError, match=r"allow=\('config.data.root',\)"):
        _check(_facts(config=CONFIG), parts, allow=["data"])


def test_no_configuration_any_more_is_said() -> None:
    """It is not compared."""
    assert _check(_facts(config=CONFIG), _parts()) == [
        "config= is not given, so it is not compared"
    ]
    assert _check(_facts(), _parts(config=CONFIG)) == []


def _loader(samples: int = 10, batch_size: int = 2, **options: Any) -> Any:
    return DataLoader([*range(samples)], batch_size=batch_size, **options)


def _census(loader: Any, lines: list[str] | None = None) -> Census:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    say = (lines if lines is not None else []).append
    return Census(
        model=model, optimizer=optimizer, scheduler=None, loader=loader, extras={}, config=None,
        say=say,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("loader", "match"),
    [
        (
            _loader(samples=12),
            "^the data is not that of the checkpoint: batches 5 -> 6, samples 10 -> 12;",
        ),
        (_loader(batch_size=5), "batches 5 -> 2, batch_size 2 -> 5; if that is meant"),
        (_loader(num_workers=2), "num_workers 0 -> 2"),
        (_loader(shuffle=True), "sampler .*SequentialSampler -> .*RandomSampler"),
        (None, "^the checkpoint was made with a loader, and this run has none; if that is meant"),
    ],
)
def test_other_data(loader: Any, match: str) -> None:
    """What the position in the data was counted in."""
    facts = _census(_loader()).facts()
    with pytest.raises(ResumeError, match=match):
        _census(loader).check(facts, allow=())
    _census(loader).check(facts, allow=("data",))


def test_data_where_there_was_none() -> None:
    """The other way."""
    facts = _census(None).facts()
    with pytest.raises(ResumeError, match=r"^the checkpoint was made with no loader, and"):
        _census(_loader()).check(facts, allow=())


def test_a_stream_has_no_length() -> None:
    """That is no change."""

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter(())

    facts = _census(DataLoader(Stream())).facts()
    assert facts["data"]["samples"] is facts["data"]["batches"] is None
    _census(DataLoader(Stream())).check(facts, allow=())


def test_settings_that_change_bits_lower_the_level() -> None:
    """They are named with both values."""
    facts = copy.deepcopy(_facts())
    facts["settings"]["num_threads"] = 99
    facts["versions"] |= {"torch": "2.0.0", "liontool": "0.0.1"}
    census = _parts().census()
    census.check(facts, allow=())
    assert census.reasons() == [
        f"num_threads is {torch.get_num_threads()}, and was 99",
        f"the version of torch is {torch.__version__}, and was 2.0.0",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("classes", None), ("classes", {"model": 3}), ("param_names", {"optimizer": [3]}),
        ("param_names", {"optimizer": [[3]]}), ("config", 3), ("data", []), ("versions", None),
        ("settings", "no"),
    ],
)  # fmt: skip
def test_facts_of_another_making(name: str, value: Any) -> None:
    """What lies in a file is looked at before it is compared."""
    facts = {**_facts(), name: value}
    with pytest.raises(
        FormatError, match=f"^run.json: '{name}' is not what liontool writes there$"
    ):
        _check(facts, _parts())


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="this torch has one way")
def test_both_ways_to_say_the_precision() -> None:
    """Once the new way was used, torch raises where the old one is asked."""
    facts = copy.deepcopy(_facts())
    matmul: Any = torch.backends.cuda.matmul
    was, matmul.fp32_precision = matmul.fp32_precision, "tf32"
    try:
        census = _parts().census()
        census.check(facts, allow=())
    finally:
        matmul.fp32_precision = was
    assert census.reasons() == ["float32 in cuda.matmul is tf32, and was none"]
