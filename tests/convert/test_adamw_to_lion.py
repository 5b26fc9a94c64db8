"""The rule AdamW to Lion: what is kept, scaled, dropped, refused and warned about."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from liontool.checkpoint.model import Fields
from liontool.convert.adamw_to_lion import adamw_to_lion
from liontool.convert.settings import Settings
from liontool.errors import RefusedError, UnknownOptimizerError
from liontool.measure.seed_scale import kappa
from liontool.optim import Lion
from support.torch_models import optimizer_of, optimizer_state, ref, tensor


def ids(notices):
    return [notice.id for notice in notices]


def with_group(optimizer, **fields):
    """The same optimizer with other keys in its first group."""
    group = optimizer.groups[0]
    changed = replace(group, fields=group.fields.replaced(fields))
    return replace(optimizer, groups=(changed, *optimizer.groups[1:]))


def test_state_is_kept_by_identity(adamw):
    """Copying keeps the very tensors of the first moment, and nothing else of the state."""
    before = adamw(60, amsgrad=True)
    after = adamw_to_lion(before, Settings(4.0)).optimizer
    assert list(after.slots) == list(before.slots)
    for key, slot in after.slots.items():
        assert list(slot.state) == ["exp_avg"]
        assert slot.state["exp_avg"] is before.slots[key].state["exp_avg"]


def test_moments_and_dropped(adamw):
    """The change lists the momenta to scan and every key that is gone, state first."""
    change = adamw_to_lion(adamw(60, amsgrad=True), Settings(4.0))
    assert [item.shape for item in change.moments] == [(4, 3), (5,)]
    assert set(change.dropped[:3]) == {"step", "exp_avg_sq", "max_exp_avg_sq"}
    assert set(change.dropped[3:]) == {
        "eps", "amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused",
        "decoupled_weight_decay",
    }  # fmt: skip
    assert change.warnings == ()
    assert change.notes == ()


def test_source_is_left_alone(adamw):
    """A rule makes new objects."""
    before = adamw(60)
    fields = dict(before.groups[0].fields)
    adamw_to_lion(before, Settings(4.0))
    assert dict(before.groups[0].fields) == fields
    assert "exp_avg_sq" in before.slots[0].state


def test_group(adamw):
    """Rates are divided, decay multiplied; betas and horizon are Lion's; user keys stay."""
    before = with_group(adamw(60), initial_lr=0.02, name="decay", lr_scale=0.5)
    group = dict(adamw_to_lion(before, Settings(4.0)).optimizer.groups[0].fields)
    assert group == {
        "lr": 0.0025, "betas": (0.9, 0.99), "weight_decay": 0.4, "initial_lr": 0.005,
        "name": "decay", "lr_scale": 0.5, "horizon": pytest.approx(10),
    }  # fmt: skip


def test_betas_and_horizon(adamw):
    """Given betas are written, and the horizon follows them and Adam's own beta1."""
    settings = Settings(4.0, betas=(0.95, 0.98))
    group = adamw_to_lion(adamw(60), settings).optimizer.groups[0].fields
    assert group["betas"] == (0.95, 0.98)
    assert group["horizon"] == pytest.approx(20)
    long = adamw_to_lion(adamw(400, betas=(0.95, 0.999)), Settings(4.0)).optimizer
    assert long.groups[0].fields["horizon"] == pytest.approx(20)
    assert adamw_to_lion(adamw(2), Settings(4.0)).optimizer.groups[0].fields["horizon"] == (
        pytest.approx(10)
    )


@pytest.mark.parametrize("momentum", ["scaled", "zeros"])
def test_no_horizon_without_copy(adamw, momentum):
    """Only a copied momentum has a horizon."""
    change = adamw_to_lion(adamw(60), Settings(4.0, momentum=momentum))
    assert "horizon" not in change.optimizer.groups[0].fields


@pytest.mark.parametrize("package", ["lion-pytorch", "lion-sf", "timm", "automl"])
def test_foreign_lions_get_no_key_of_ours(adamw, package):
    """For other packages the group holds what every Lion knows, and the momentum is scaled."""
    before = adamw(60)
    after = adamw_to_lion(before, Settings(4.0, package=package)).optimizer
    assert set(after.groups[0].fields) == {"lr", "betas", "weight_decay"}
    found, source = after.slots[0].state["exp_avg"], before.slots[0].state["exp_avg"]
    assert torch.equal(tensor(found), tensor(source) * torch.tensor(kappa(0.9, 0.99)))


def test_scaled_early(adamw):
    """Below step 50 the scaled momentum is bias-corrected."""
    before = adamw(7)
    after = adamw_to_lion(before, Settings(4.0, momentum="scaled")).optimizer
    source = tensor(before.slots[0].state["exp_avg"]).double()
    expected = (source * kappa(0.9, 0.99) / (1 - 0.9**7)).float()
    torch.testing.assert_close(tensor(after.slots[0].state["exp_avg"]), expected)


@pytest.mark.parametrize(
    ("steps", "beta1", "betas"),
    [(60, 0.95, (0.9, 0.99)), (60, 0.9, (0.95, 0.98)), (7, 0.8, (0.95, 0.98))],
)
def test_scaled_by_both_betas(adamw, steps, beta1, betas):
    """The factor is that of Adam's own beta1 and of the Lion that is written."""
    before = adamw(steps, betas=(beta1, 0.999))
    settings = Settings(4.0, momentum="scaled", betas=betas)
    after = adamw_to_lion(before, settings).optimizer
    bias = 1 - beta1**steps if steps < 50 else 1.0
    expected = tensor(before.slots[0].state["exp_avg"]).double() * kappa(beta1, betas[1]) / bias
    torch.testing.assert_close(tensor(after.slots[0].state["exp_avg"]), expected.float())


def test_horizon_of_the_oldest(adamw):
    """Parameters that joined a group late do not shorten its horizon."""
    old, late = adamw(400, betas=(0.95, 0.999)), adamw(3, betas=(0.95, 0.999))
    for young in (0, 1):
        slots = {**old.slots, young: late.slots[young]}
        after = adamw_to_lion(replace(old, slots=slots), Settings(4.0)).optimizer
        assert after.groups[0].fields["horizon"] == pytest.approx(20)


def test_zeros(adamw):
    """`zeros` writes zeros of the same shapes."""
    after = adamw_to_lion(adamw(60), Settings(4.0, momentum="zeros")).optimizer
    assert [tensor(slot.state["exp_avg"]).count_nonzero() for slot in after.slots.values()] == [
        0,
        0,
    ]


def test_zero_stale(adamw):
    """`zero_stale` reads the second moment and zeroes what AdamW no longer moves."""
    before = adamw(60)
    slot = before.slots[0]
    moment = tensor(slot.state["exp_avg"])
    moment[0] *= 1e-6
    still = replace(slot, state=slot.state.replaced({"exp_avg": ref(moment)}))
    before = replace(before, slots={**before.slots, 0: still})
    after = adamw_to_lion(before, Settings(4.0, zero_stale=True)).optimizer
    found = tensor(after.slots[0].state["exp_avg"])
    assert found[0].count_nonzero() == 0
    assert torch.equal(found[1:], moment[1:])


def zero_stale_keeps(first, second, step=1000.0, **more):
    """Whether an element of Adam with these moments survives."""
    state = {"step": step, "exp_avg": first, "exp_avg_sq": second, **more}
    state = {key: ref(torch.tensor([value])) for key, value in state.items()}
    group = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False}
    before = optimizer_of({"state": {0: state}, "param_groups": [{**group, "params": [0]}]})
    after = adamw_to_lion(before, Settings(4.0, zero_stale=True)).optimizer
    return bool(tensor(after.slots[0].state["exp_avg"]))


def test_zero_stale_goes_by_adams_own_update():
    """Both bias corrections, eps and amsgrad's maximum have a part in it."""
    steady = 1 - 0.999**1000
    assert zero_stale_keeps(1.1e-4, steady)
    assert not zero_stale_keeps(0.9e-4, steady)
    # At step 3 the averages hold 0.271 of a gradient and 0.002997 of a square.
    assert zero_stale_keeps(1.1e-4 * 0.271, 0.002997, 3.0)
    assert not zero_stale_keeps(0.9e-4 * 0.271, 0.002997, 3.0)
    # A root of 1e-8 is as large as eps.
    assert zero_stale_keeps(2.2e-12, 1e-16 * steady)
    assert not zero_stale_keeps(1.8e-12, 1e-16 * steady)
    assert not zero_stale_keeps(1.1e-4, steady, max_exp_avg_sq=4 * steady)
    assert zero_stale_keeps(2.2e-4, steady, max_exp_avg_sq=4 * steady)


@pytest.mark.parametrize(
    ("decay", "expected"), [("scaled", 0.4), ("kept", 0.1), ("decoupled", 0.1 * 0.02)]
)
def test_decay(adamw, decay, expected):
    """Weight decay is multiplied, kept, or freed of the highest learning rate."""
    before = with_group(adamw(60), initial_lr=0.02)
    change = adamw_to_lion(before, Settings(4.0, decay=decay))
    group = change.optimizer.groups[0].fields
    assert group["weight_decay"] == pytest.approx(expected)
    assert group.get("reference_lr") == (0.005 if decay == "decoupled" else None)
    assert ids(change.notes) == (["decoupled-decay"] if decay == "decoupled" else [])


def test_decoupled_by_constructor(adamw):
    """Where no group key says so, the note names the constructor argument."""
    settings = Settings(4.0, package="lion-pytorch", decay="decoupled")
    change = adamw_to_lion(adamw(60), settings)
    assert set(change.optimizer.groups[0].fields) == {"lr", "betas", "weight_decay"}
    assert "with lr=0.0025, the highest of all groups, and decoupled_weight_decay=True" in (
        change.notes[0].text
    )


@pytest.mark.parametrize("package", ["liontool", "lion-pytorch", "optimi"])
def test_decoupled_with_peaks(adamw, package):
    """The highest rate is the peak of a schedule that has one: of the group, or of all of them."""
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    groups = [
        {"params": [param], "lr": lr} for param, lr in zip(params, (1e-3, 1e-2, 0.0), strict=True)
    ]
    before = with_group(adamw(60, params, groups), initial_lr=4e-4, max_lr=2e-3)
    change = adamw_to_lion(before, Settings(4.0, package=package, decay="decoupled"))
    fields = [group.fields for group in change.optimizer.groups]
    one = package == "lion-pytorch"
    assert [group["weight_decay"] for group in fields] == pytest.approx(
        [1e-3, 1e-3, 1e-3] if one else [2e-4, 1e-3, 1e-3]
    )
    if one:
        assert "lr=0.0025," in change.notes[0].text
    else:  # a group at 0 that tells of nothing else takes the highest of all
        key = "reference_lr" if package == "liontool" else "max_lr"
        assert [group[key] for group in fields] == pytest.approx([5e-4, 2.5e-3, 2.5e-3])


@pytest.mark.parametrize("package", ["liontool", "lion-pytorch", "optimi"])
def test_decoupled_without_a_rate(adamw, package):
    """There must be a learning rate for the decay to be relative to."""
    settings = Settings(4.0, package=package, decay="decoupled")
    message = r"^the groups tell of no learning rate but 0, .* convert with --decay scaled, or an"
    with pytest.raises(RefusedError, match=message) as error:
        adamw_to_lion(adamw(60, lr=0.0), settings)
    assert error.value.id is None
    with pytest.raises(RefusedError, match=r"^left: the groups"):
        adamw_to_lion(replace(adamw(60, lr=0.0), label="left"), settings)
    assert adamw_to_lion(adamw(60, lr=0.0), replace(settings, decay="scaled")).notes == ()


def test_absent_options_stay_as_constructed(adamw):
    """An option that the file does not hold is the constructor's after loading."""
    state = optimizer_state(adamw_to_lion(adamw(60), Settings(4.0)).optimizer)
    params = [torch.nn.Parameter(torch.zeros(4, 3)), torch.nn.Parameter(torch.zeros(5))]
    lion = Lion(params, lr=1.0, maximize=True)
    lion.load_state_dict(state)
    assert lion.param_groups[0]["maximize"]
    assert lion.param_groups[0]["lr"] == 0.0025
    assert torch.equal(lion.state[params[0]]["exp_avg"], state["state"][0]["exp_avg"])


def test_maximize_is_kept(adamw):
    """`maximize=True` stays for the Lions that read it, and False is left to the constructor."""
    for package in ("liontool", "timm"):
        change = adamw_to_lion(adamw(60, maximize=True), Settings(4.0, package=package))
        assert change.optimizer.groups[0].fields["maximize"] is True
    assert "maximize" not in adamw_to_lion(adamw(60), Settings(4.0)).optimizer.groups[0].fields


def test_maximize_is_refused(adamw):
    """A Lion without `maximize` would walk the other way."""
    settings = Settings(4.0, package="lion-pytorch")
    with pytest.raises(RefusedError, match=r"group 0 has maximize=True, .* --allow maximize$") as e:
        adamw_to_lion(adamw(60, maximize=True), settings)
    assert e.value.id == "maximize"
    allowed = adamw_to_lion(adamw(60, maximize=True), replace(settings, allow=("maximize",)))
    assert ids(allowed.notes) == ["maximize"]
    assert "maximize" not in allowed.optimizer.groups[0].fields


def test_tensor_rates_stay_tensors(adamw):
    """A learning rate that is a tensor stays one, of the same type and shape."""
    before = with_group(adamw(60), lr=ref(torch.tensor(0.02)))
    lr = adamw_to_lion(before, Settings(4.0)).optimizer.groups[0].fields["lr"]
    assert (lr.dtype, lr.shape) == ("float32", ())
    assert tensor(lr).item() == pytest.approx(0.005)


def test_shape_mismatch(adamw):
    """A moment that does not fit its parameter is refused by name, unless allowed."""
    before = adamw(60)
    slot = replace(before.slots[1], name="bias", shape=(6,))
    before = replace(before, label="optimizer", slots={**before.slots, 1: slot})
    message = r"optimizer: bias: exp_avg has shape \[5\], the parameter has \[6\].*shape-mismatch$"
    with pytest.raises(RefusedError, match=message):
        adamw_to_lion(before, Settings(4.0))
    assert adamw_to_lion(before, Settings(4.0, allow=("shape-mismatch",))).dropped


def test_moments_of_two_shapes(adamw):
    """Where the parameter is not known, the two moments must agree."""
    before = adamw(60)
    state = before.slots[0].state.replaced({"exp_avg_sq": ref(torch.ones(3, 4))})
    before = replace(before, slots={**before.slots, 0: replace(before.slots[0], state=state)})
    with pytest.raises(RefusedError, match=r"0: exp_avg_sq has shape \[3, 4\], exp_avg has"):
        adamw_to_lion(before, Settings(4.0))


def test_look_alike_is_refused(adamw):
    """NAdam is refused with the keys that differ, and taken over when allowed."""
    before = adamw(60, kind=torch.optim.NAdam)
    message = "looks like NAdam, and only AdamW can be converted: state has 'mu_product'; groups"
    with pytest.raises(UnknownOptimizerError, match=message):
        adamw_to_lion(before, Settings(4.0))
    change = adamw_to_lion(before, Settings(4.0, allow=("unknown-optimizer",)))
    assert ids(change.warnings) == ["unknown-optimizer"]
    assert list(change.optimizer.slots[0].state) == ["exp_avg"]
    assert "momentum_decay" in change.optimizer.groups[0].fields


def test_sgd_cannot_be_allowed(adamw):
    """Without a first moment there is nothing to take over."""
    before = adamw(60, kind=torch.optim.SGD, momentum=0.9)
    with pytest.raises(
        UnknownOptimizerError, match=r"this looks like SGD, .* 'momentum_buffer'"
    ) as e:
        adamw_to_lion(before, Settings(4.0, allow=("unknown-optimizer",)))
    assert "--allow" not in str(e.value)


def test_lion_already(adamw):
    """A converted state is not converted again."""
    once = adamw_to_lion(adamw(60), Settings(4.0)).optimizer
    with pytest.raises(UnknownOptimizerError, match="this is the state of Lion already"):
        adamw_to_lion(once, Settings(4.0))


def test_adam_with_decay(adamw):
    """Adam converts, and its L2 decay is warned about."""
    change = adamw_to_lion(adamw(60, kind=torch.optim.Adam), Settings(4.0))
    assert change.recognition.kind == "Adam"
    assert ids(change.warnings) == ["l2-decay"]
    plain = adamw_to_lion(adamw(60, kind=torch.optim.Adam, weight_decay=0), Settings(4.0))
    assert plain.warnings == ()


def test_assumed_adamw(adamw):
    """Where a file cannot tell, it is said, if it matters."""
    before = adamw(60)
    old = replace(
        before.groups[0], fields=before.groups[0].fields.without("decoupled_weight_decay")
    )
    change = adamw_to_lion(replace(before, groups=(old,)), Settings(4.0))
    assert ids(change.warnings) == ["assumed-adamw"]
    undecayed = replace(old, fields=old.fields.replaced({"weight_decay": 0}))
    assert adamw_to_lion(replace(before, groups=(undecayed,)), Settings(4.0)).warnings == ()


def test_few_steps(adamw):
    """Below 20 steps the moments are not reliable."""
    assert ids(adamw_to_lion(adamw(19), Settings(4.0)).warnings) == ["few-steps"]
    assert adamw_to_lion(adamw(20), Settings(4.0)).warnings == ()


def test_no_state(adamw):
    """An optimizer before its first step converts with a warning."""
    change = adamw_to_lion(adamw(0), Settings(4.0))
    assert ids(change.warnings) == ["no-state"]
    assert change.moments == ()
    assert change.optimizer.groups[0].fields["horizon"] == pytest.approx(10)


def test_missing_state(adamw):
    """Parameters without state are counted and named."""
    params = [torch.nn.Parameter(torch.zeros(2)).requires_grad_(i == 0) for i in range(6)]
    before = adamw(60, groups=[(f"layer.{i}", param) for i, param in enumerate(params)])
    change = adamw_to_lion(before, Settings(4.0))
    assert ids(change.warnings) == ["missing-state"]
    assert "5 parameters have no state" in change.warnings[0].text
    assert "layer.1, layer.2, layer.3 and 2 more" in change.warnings[0].text
    assert list(change.optimizer.slots) == [0]


def test_groups_of_their_own(adamw):
    """Each group is scaled by itself, an empty one and late parameters included."""
    params = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [
        {"params": params[:1], "lr": 0.1, "weight_decay": 0.0},
        {"params": [], "lr": 0.5},
        {"params": params[1:], "betas": (0.95, 0.99)},
    ]
    after = adamw_to_lion(adamw(400, groups=groups), Settings(2.0)).optimizer
    assert [group.fields["lr"] for group in after.groups] == [0.05, 0.25, 0.005]
    assert [group.fields["weight_decay"] for group in after.groups] == [0.0, 0.2, 0.2]
    horizons = [group.fields["horizon"] for group in after.groups]
    assert horizons == pytest.approx([10, 10, 20])


def test_cycled_momentum_is_noted(adamw):
    """A scheduler that cycles beta1 keeps doing so, and the note says between which values."""
    params = [torch.nn.Parameter(torch.zeros(2))]
    optimizer = torch.optim.AdamW(params, lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 50)
    params[0].grad = torch.ones(2)
    for _ in range(30):
        optimizer.step()
        scheduler.step()
    before = optimizer_of(optimizer.state_dict(), scheduler.state_dict())
    change = adamw_to_lion(before, Settings(4.0))
    assert ids(change.notes) == ["cycled-beta1"]
    assert "group 0: beta1 goes on cycling between 0.85 and 0.95" in change.notes[0].text
    assert change.optimizer.groups[0].fields["max_momentum"] == 0.95
    for package in ("optimi", "liontool"):
        group = adamw_to_lion(before, Settings(4.0, package=package)).optimizer.groups[0]
        assert group.fields["max_lr"] == pytest.approx(0.025)


def test_optimi_keys(adamw):
    """optimi keeps its betas apart, and needs its options and a compensation in the file."""
    change = adamw_to_lion(adamw(60), Settings(4.0, package="optimi"))
    group = change.optimizer.groups[0].fields
    assert (group["beta1"], group["beta2"], group["setup"]) == (0.9, 0.99, False)
    assert change.optimizer.slots[0].state["kahan_comp"].shape == (1,)
    half = [torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))]
    low = adamw_to_lion(adamw(60, half), Settings(4.0, package="optimi")).optimizer
    assert low.groups[0].fields["kahan_sum"] is True
    assert tensor(low.slots[0].state["kahan_comp"]).tolist() == [0, 0, 0]


def test_one_notice_for_each_unknown_thing(adamw):
    """Scheduler notes reach the change."""
    before = optimizer_of(
        {"param_groups": [], "state": {}}, {"lr_lambdas": [{}], "base_lrs": [1.0]}
    )
    before = replace(adamw(60), schedulers=before.schedulers)
    change = adamw_to_lion(before, Settings(4.0))
    assert ids(change.notes) == ["scheduler"]
    assert isinstance(change.optimizer.schedulers[0].fields, Fields)
    assert change.optimizer.schedulers[0].fields["base_lrs"] == [0.25]
