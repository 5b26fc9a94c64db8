"""The rule to LionSF: Lion's state, and a learning rate that is held."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as S

from liontool.convert.adamw_to_lion_sf import adamw_to_lion_sf
from liontool.convert.settings import Settings
from liontool.optim import LionSF
from support.torch_models import optimizer_of, optimizer_state, scheduler_state

SF = Settings(4.0, to="lion-sf")


def run(make, steps=30, lr=0.1):
    """AdamW with a scheduler after some steps."""
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([param], lr=lr)
    scheduler = make(optimizer)
    param.grad = torch.ones(3)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer_of(optimizer.state_dict(), scheduler.state_dict()), optimizer


def test_state_and_current_rate():
    """The state is Lion's; the rate held is the current one over the ratio, everywhere."""
    before, optimizer = run(lambda o: S.CosineAnnealingLR(o, 50, 0.01))
    change = adamw_to_lion_sf(before, SF)
    after = change.optimizer
    lr = optimizer.param_groups[0]["lr"] / 4
    assert after.slots[0].state["exp_avg"] is before.slots[0].state["exp_avg"]
    assert after.groups[0].fields["lr"] == lr
    assert after.groups[0].fields["initial_lr"] == lr
    state = scheduler_state(after.schedulers[0])
    assert (state["base_lrs"], state["_last_lr"], state["eta_min"]) == ([lr], [lr], 0.0)
    assert state.keys() == scheduler_state(before.schedulers[0]).keys()
    assert change.warnings == ()
    assert change.notes == ()


def test_code_is_noted():
    """For a lambda the note says what to do, once for all of them."""
    change = adamw_to_lion_sf(run(lambda o: S.LambdaLR(o, lambda e: 0.9**e))[0], SF)
    assert [note.id for note in change.notes] == ["code-schedule"]
    assert "LambdaLR or MultiplicativeLR: its factor is code" in change.notes[0].text


def test_zero_rate():
    """A schedule that has ended at zero would hold zero."""
    before, _ = run(lambda o: S.LinearLR(o, 1.0, 0.0, 30))
    change = adamw_to_lion_sf(before, SF)
    assert [notice.id for notice in change.warnings] == ["zero-lr"]
    assert "group 0 was 0 when the run was saved" in change.warnings[0].text


def test_unknown_scheduler():
    """A class that is not known keeps its fields but for the base rates, and is noted."""
    before, _ = run(lambda o: S.StepLR(o, 10))
    own = {"base_lrs": [0.1], "slope": 0.5}
    before = optimizer_of(optimizer_state(before), own)
    change = adamw_to_lion_sf(before, SF)
    held = scheduler_state(change.optimizer.schedulers[0])
    assert held == {"base_lrs": [change.optimizer.groups[0].fields["lr"]], "slope": 0.5}
    assert [note.id for note in change.notes] == ["code-schedule"]


def test_other_number_of_rates():
    """A list that is not one rate a group is left alone."""
    before, _ = run(lambda o: S.StepLR(o, 10))
    odd = optimizer_of(
        optimizer_state(before), {"base_lrs": [0.1, 0.2], "step_size": 3, "gamma": 0.5}
    )
    held = scheduler_state(adamw_to_lion_sf(odd, SF).optimizer.schedulers[0])
    assert held["base_lrs"] == pytest.approx([0.025, 0.05])
    assert held["gamma"] == 1.0


@pytest.mark.parametrize("name", ["base_lrs", "_last_lr", "max_lrs", "_init_lrs"])
def test_every_rate_is_held(name):
    """Whatever a scheduler keeps for each group becomes the rate of the group."""
    before, _ = run(lambda o: S.StepLR(o, 10))
    state = {"step_size": 3, "gamma": 0.5, "base_lrs": [0.1], name: [0.7]}
    change = adamw_to_lion_sf(optimizer_of(optimizer_state(before), state), SF)
    held = scheduler_state(change.optimizer.schedulers[0])
    assert held[name] == [change.optimizer.groups[0].fields["lr"]]
    assert held[name] != [0.7 / 4]


def test_loads_into_lion_sf():
    """liontool's LionSF takes the state and goes on."""
    before, _ = run(lambda o: S.ExponentialLR(o, 0.99))
    after = adamw_to_lion_sf(before, SF).optimizer
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = LionSF([param], lr=1.0)
    scheduler = S.ExponentialLR(optimizer, 0.99)
    optimizer.load_state_dict(optimizer_state(after))
    scheduler.load_state_dict(scheduler_state(after.schedulers[0]))
    lr = optimizer.param_groups[0]["lr"]
    param.grad = torch.ones(3)
    for _ in range(5):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == lr
    assert (param < 1).all()
