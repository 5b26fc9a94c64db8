"""Which mappings of a file are taken for the state of a learning-rate scheduler."""

from __future__ import annotations

import pytest

from liontool.checkpoint import learning_rates
from liontool.checkpoint.frameworks import hf_trainer, plain
from liontool.checkpoint.model import Scheduler
from support.fake_source import FakeSource, adamw, cosine, opaque, tensor

TIMM = {"param_group_field": "lr", "base_values": [1e-3], "lr_min": 1e-5, "metric": None}
MEGATRON = {
    "max_lr": 1e-3, "min_lr": 1e-4, "lr_warmup_steps": 10, "num_steps": 500, "lr_decay_steps": 900,
    "lr_decay_style": "cosine", "start_wd": 0.1, "end_wd": 0.1, "wd_incr_style": "constant",
    "wd_incr_steps": 900,
}  # fmt: skip


def found(value, key="s") -> tuple[Scheduler, ...]:
    tree = {"optimizer": adamw(initial_lr=1e-3), key: value}
    return plain.find(FakeSource(tree)).optimizers[0].schedulers


@pytest.mark.parametrize("epoch", [3, 3.5, tensor(), tensor(1)], ids=str)
def test_any_number_of_epochs(epoch):
    """`step(epoch)` takes fractions, and what was given is kept."""
    assert len(found({**cosine(1e-3), "last_epoch": epoch})) == 1


@pytest.mark.parametrize("epoch", [None, "3", [3], tensor(2), True])
def test_no_number_of_epochs(epoch):
    """Anything else under the key is the user's own."""
    assert found({**cosine(1e-3), "last_epoch": epoch}) == ()


def test_timm():
    """timm's schedulers have no last_epoch; all their rates are scaled."""
    (scheduler,) = found(TIMM)
    scaled = learning_rates.scale_scheduler(scheduler, 10.0).fields
    assert (scaled["base_values"], scaled["lr_min"]) == ([pytest.approx(1e-4)], pytest.approx(1e-6))


def test_timm_is_paired():
    """Its base values are those that it wrote into the groups."""
    tree = {"g": adamw(initial_lr=5e-4), "d": adamw(initial_lr=1e-3), "s": TIMM}
    optimizers = plain.find(FakeSource(tree)).optimizers
    assert [len(optimizer.schedulers) for optimizer in optimizers] == [0, 1]


def test_timm_of_something_else():
    """One that moves the weight decay holds no learning rate: nothing is scaled, and it is told."""
    state = {**TIMM, "param_group_field": "weight_decay"}
    assert found(state) == ()
    (scheduler,) = found(state, "lr_scheduler")
    assert learning_rates.scale_scheduler(scheduler, 10.0).fields is scheduler.fields
    (note,) = learning_rates.notes([scheduler])
    assert "its class is not known, and base_values, lr_min may hold" in note


def test_megatron():
    """Its highest and lowest rates are scaled; the arguments that override them are named."""
    (scheduler,) = found(MEGATRON)
    scaled = learning_rates.scale_scheduler(scheduler, 10.0).fields
    assert (scaled["max_lr"], scaled["min_lr"]) == (pytest.approx(1e-4), pytest.approx(1e-5))
    assert scaled["start_wd"] == 0.1
    (note,) = learning_rates.notes([scheduler])
    assert "divide --lr and --min-lr, multiply --weight-decay" in note
    assert "--override-opt_param-scheduler" in note


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"last_batch_iteration": 11}, id="a count"),
        pytest.param({"step": 11, "peak_lr": 1e-3}, id="own rates"),
        pytest.param({"base_lrs": [1e-3]}, id="torch's rates"),
        pytest.param([{"num_updates": 3}], id="list"),
        pytest.param(opaque("mine.Sched", {"step": 11, "peak_lr": 1e-3}), id="object"),
    ],
)
@pytest.mark.parametrize("key", ["sched", "LR_Scheduler"])
def test_unknown_by_its_key(state, key):
    """What is called a scheduler and counts like one is one, of a class that is not known."""
    (scheduler,) = found(state, key)
    assert learning_rates.kind_of(scheduler) is None


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({}, id="empty"),
        pytest.param({"name": "cosine", "warmup_steps": 100}, id="settings"),
        pytest.param({"a": tensor(2)}, id="tensors"),
    ],
)
def test_not_by_its_key_alone(state):
    """Settings are no state."""
    assert found(state, "lr_scheduler") == ()


def test_not_inside_of_a_scheduler():
    """The attributes of a function object count to the scheduler that has them."""
    state = {**cosine(1e-3), "_schedulers": [{**cosine(1e-3), "lr_lambdas": [{"step": 3}]}]}
    assert [scheduler.label for scheduler in found(state, "scheduler")] == ["scheduler"]


def test_unknown_in_a_file_of_its_own():
    """The Trainer's scheduler.pt is called a scheduler too."""
    files = {"optimizer.pt": adamw(), "scheduler.pt": {"step": 3}, "trainer_state.json": {}}
    checkpoint = hf_trainer.find(FakeSource(files=files, path="checkpoint-5"))
    assert [s.label for s in checkpoint.optimizers[0].schedulers] == ["scheduler.pt"]
