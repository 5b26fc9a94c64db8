"""`--lr-ratio auto`: what it finds on known gradients, and when it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from math import sqrt

import numpy as np
import pytest
import torch

from liontool.checkpoint.document import Computed, TensorRef
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Slot
from liontool.convert.ratio import estimate
from liontool.errors import RefusedError
from liontool.measure import formulas
from liontool.measure.evidence import evidence
from support.torch_models import ref, tensor

BETAS = (0.9, 0.99)


@pytest.fixture
def moments():
    """Makes a slot in which every element of AdamW's update has the same size, but for eps."""

    def make(size, shape, steps=400, betas=(0.9, 0.999), square=1.0):
        first = torch.full(shape, size * sqrt(square) * (1 - betas[0] ** steps))
        second = torch.full(shape, square * (1 - betas[1] ** steps))
        state = {"step": float(steps), "exp_avg": ref(first), "exp_avg_sq": ref(second)}
        return Slot(0, Fields(state), "tensor")

    return make


def optimizer_with(*slots):
    """An AdamW with one group, or with one for each (slot, fields of its group)."""
    parts = [slot if isinstance(slot, tuple) else (slot, None) for slot in slots]
    common = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-12, "weight_decay": 0.1}
    keyed = {i: replace(slot, key=i, name=f"tensor {i}") for i, (slot, _) in enumerate(parts)}
    if all(group is None for _, group in parts):
        return Optimizer("", (ParamGroup(Fields(common), tuple(keyed)),), keyed)
    groups = (ParamGroup(Fields({**common, **group}), (i,)) for i, (_, group) in enumerate(parts))
    return Optimizer("", tuple(groups), keyed)


@pytest.mark.parametrize(
    ("s", "beta2", "expected", "tolerance"),
    [
        (0.1, 0.999, 0.099, 0.01),
        (0.3, 0.999, 0.300, 0.005),
        (0.1, 0.95, 0.086, 0.01),
        (0.3, 0.95, 0.287, 0.005),
    ],
)
def test_persistence_of_known_gradients(gaussian, s, beta2, expected, tolerance):
    """s is found on normal gradients, with the small bias that a short second average has."""
    ((found,),) = evidence(gaussian(s, betas=(0.9, beta2)), BETAS, lambda _: None)
    assert found.persistence == pytest.approx(expected, abs=tolerance)
    assert found.ratio == formulas.drift_ratio(found.persistence, BETAS)
    assert found.spread_ratio == formulas.spread_ratio(found.persistence, BETAS)
    assert (found.zero, found.is_sparse, found.counts) == (0, False, True)


def test_pure_noise(gaussian):
    """At pure noise the ratio is k0 within the bias, give or take 30 %; the option repeats it."""
    found = estimate(gaussian(0.0))
    assert found.update_rms == pytest.approx(0.229, abs=0.002)
    assert found.ratio == pytest.approx(6.73, abs=0.17)
    assert (found.low, found.high) == (0.7 * found.ratio, 1.3 * found.ratio)
    assert found.command == f"--lr-ratio {found.ratio}"
    assert float(found.command.split()[1]) == found.ratio
    assert str(found) == f"{found.ratio:.1f}, likely {found.low:.1f} to {found.high:.1f}"
    assert found.sparse == ()
    assert found.warnings == ()


def test_moments_against_float64(gaussian):
    """Every sum of the pass equals the plain formula in double precision."""
    optimizer = gaussian(0.1, shape=(300, 40), eps=1e-2)
    slot = optimizer.slots[0]
    first, second = (tensor(slot.state[key]).double() for key in ("exp_avg", "exp_avg_sq"))
    root = (second / (1 - 0.999**400)).sqrt()
    update = first / (1 - 0.9**400) / (root + 1e-2)
    found = estimate(optimizer).groups[0]
    assert found.update_rms == pytest.approx(update.square().mean().sqrt().item(), rel=1e-5)
    assert found.kurtosis == pytest.approx(
        (update**4).mean().item() / update.square().mean().item() ** 2, rel=1e-4
    )
    assert found.stale == (update.abs() < 1e-4).double().mean().item()


def test_average_counts_elements(gaussian):
    """Tensors count by their elements."""
    small, large = gaussian(0.0, shape=(50, 40)), gaussian(0.0, 0.2, shape=(150, 40))
    slots = {0: small.slots[0], 1: large.slots[1]}
    found = estimate(replace(large, slots=slots))
    halves = [
        estimate(replace(large, slots={key: slot})).groups[0].ratio for key, slot in slots.items()
    ]
    assert found.groups[0].ratio == pytest.approx(0.25 * halves[0] + 0.75 * halves[1])
    assert found.ratio == round(found.groups[0].ratio, 2)
    assert found.groups[0].step_ratio == pytest.approx(1 / found.update_rms)


def test_clipped_below(gaussian):
    """Never less than 0.6 of the value for pure noise."""
    optimizer = gaussian(0.1, shape=(100, 100))
    for betas in ((0.9, 0.99), (0.95, 0.98)):
        found = estimate(optimizer, betas)
        assert 0.6 * found.noise_ratio - 0.005 <= found.ratio <= found.noise_ratio + 0.005
    persistent = gaussian(0.26, shape=(100, 100))
    assert estimate(persistent).ratio == pytest.approx(0.6 * formulas.noise_ratio(BETAS), abs=0.005)


def test_clipped_above(moments):
    """Never more than at pure noise: without any memory k* would rise to 1."""
    found = estimate(optimizer_with(moments(0.34, (100,))), (0.0, 0.0))
    assert found.groups[0].ratio > 0.81
    assert found.ratio == 0.80


def test_schedule_free(gaussian):
    """LionSF's smaller steps want a smaller ratio, at most that at pure noise."""
    found = estimate(gaussian(0.0, shape=(100, 100)), to="lion-sf")
    assert found.ratio == pytest.approx(4.29, abs=0.12)
    assert found.high == found.ratio
    assert found.noise_ratio == pytest.approx(4.2947, abs=1e-4)
    factor = formulas.agreement_factor(0, BETAS)
    growth = formulas.weight_growth(found.ratio, BETAS, 0.9, 1e-4)
    assert found.groups[0].weight_growth == pytest.approx(growth * factor)
    assert 0.9 < found.groups[0].weight_growth < 1.1


def test_young_run(gaussian):
    """Before step 100 the ratio is refused, and the value for pure noise is offered."""
    with pytest.raises(
        RefusedError, match=r"needs 100 steps of AdamW, this run has 99: .* 6\.73 is"
    ) as e:
        estimate(gaussian(0.0, shape=(4, 4), steps=99))
    assert e.value.id is None


def test_large_updates(gaussian):
    """Above an update RMS of 0.35 likewise."""
    with pytest.raises(RefusedError, match=r"mean square of 0\.45\d, above 0\.35,.*7\.40 is the"):
        estimate(gaussian(0.4, shape=(100, 100)), (0.95, 0.98))


def test_updates_over_several_tensors(moments):
    """What is refused is the root of the mean square over all elements, told to three digits."""
    tensors = [moments(0.2, (300,)), moments(0.67, (100,))]  # together 0.377, their mean is 0.318
    with pytest.raises(RefusedError, match=r"mean square of 0\.377, above 0\.35,"):
        estimate(optimizer_with(*tensors))
    assert estimate(optimizer_with(*tensors[:1])).update_rms == pytest.approx(0.2)


def test_no_state():
    """An optimizer without state has taken no step."""
    with pytest.raises(RefusedError, match="this run has 0"):
        estimate(Optimizer("", (ParamGroup(Fields({}), ()),), {}))


def test_group_without_state(gaussian):
    """A group without state has no evidence, and nothing in an estimate is NaN."""
    optimizer = gaussian(0.0, shape=(64, 64))
    empty = replace(optimizer.groups[0], params=())
    found = estimate(replace(optimizer, groups=(*optimizer.groups, empty)))
    assert found.groups[1].elements == 0
    assert (found.groups[1].ratio, found.groups[1].kurtosis) == (None, None)
    json.dumps(asdict(found), allow_nan=False)


def test_sparse_tensors(gaussian):
    """Rows that are rarely alive flag their tensor, which stays out of the average."""
    dense = gaussian(0.05, shape=(400, 50))
    rows = gaussian(0.0, 0.0, shape=(400, 50), live=0.01)
    mixed = replace(
        dense,
        groups=(replace(dense.groups[0], params=(0, 1)),),
        slots={0: dense.slots[0], 1: replace(rows.slots[1], key=1)},
    )
    found = estimate(mixed)
    assert [item.label for item in found.sparse] == ["layer.1"]
    assert found.sparse[0].kurtosis > 6
    assert found.sparse[0].stale > 0.3
    assert found.ratio == estimate(dense).ratio
    assert "layer.1; Lion will move these rows" in found.warnings[0].text
    with pytest.raises(RefusedError, match="finds no tensor to go by"):
        estimate(rows)


def test_young_tensors_are_left_out(gaussian):
    """A parameter that joined late does not count."""
    old, young = gaussian(0.0, 0.0, shape=(64, 64)), gaussian(0.0, 0.0, shape=(64, 64), steps=5)
    mixed = replace(old, slots={0: old.slots[0], 1: young.slots[1]})
    alone = replace(old, groups=(replace(old.groups[0], params=(0,)),), slots={0: old.slots[0]})
    assert estimate(mixed).ratio == estimate(alone).ratio


def test_amsgrad(gaussian):
    """Under amsgrad the largest average of squares divides."""
    optimizer = gaussian(0.0, shape=(64, 64))
    slot = optimizer.slots[0]
    largest = ref(4 * tensor(slot.state["exp_avg_sq"]))
    state = slot.state.replaced({"max_exp_avg_sq": largest})
    amsgrad = replace(optimizer, slots={0: replace(slot, state=state)})
    halved = estimate(amsgrad).update_rms
    assert halved == pytest.approx(estimate(optimizer).update_rms / 2, rel=1e-5)


def test_eps_warning(gaussian):
    """eps that takes part of the step is warned about."""
    found = estimate(gaussian(0.0, shape=(64, 64), eps=0.2))
    assert any("eps takes part of AdamW's step away in layer.0" in n.text for n in found.warnings)
    assert "(the least is left in 83%)" in " ".join(n.text for n in found.warnings)


def test_oscillation_warning(gaussian):
    """Updates below those of pure noise on a matrix are called oscillation."""
    optimizer = gaussian(0.0, shape=(64, 64))
    slot = optimizer.slots[0]
    state = slot.state.replaced({"exp_avg": ref(0.7 * tensor(slot.state["exp_avg"]))})
    found = estimate(replace(optimizer, slots={0: replace(slot, state=state)}))
    assert [notice.id for notice in found.warnings] == ["oscillating"]
    assert found.groups[0].persistence == 0


@pytest.mark.parametrize(
    ("size", "options", "oscillates"),
    [
        # Pure noise has 0.2294 for beta1 0.9, 0.1601 for 0.95 and 0.333 for 0.8; x 0.83 counts.
        (0.189, {}, True),
        (0.192, {}, False),
        (0.134, {"betas": (0.95, 0.999)}, False),
        (0.131, {"betas": (0.95, 0.999)}, True),
        (0.25, {"betas": (0.8, 0.999)}, True),
        (0.189, {"shape": (400,)}, False),  # no matrix
        (0.5, {"eps": 0.5}, False),  # eps makes it small, 0.333, and is named instead
        (0.25, {"eps": 0.5}, False),
        (0.09, {"betas": (0.98, 0.999)}, False),
        (0.09, {"betas": (0.98, 0.999), "steps": 100}, True),  # noise is larger at first: 0.1148
    ],
)
def test_oscillation_floor(moments, size, options, oscillates):
    """The floor is that of the tensor's own beta1 and step, and eps is no oscillation."""
    slot_options = {key: options[key] for key in ("shape", "steps", "betas") if key in options}
    slot = moments(size, **{"shape": (20, 20), **slot_options})
    group = {key: options[key] for key in ("betas", "eps") if key in options}
    # A first group with other betas has no say.
    found = estimate(optimizer_with((moments(0.25, (5, 5)), {}), (slot, group)))
    ids = [notice.id for notice in found.warnings]
    assert ("oscillating" in ids) == oscillates
    assert ("eps" in ids) == ("eps" in options)


def test_nonfinite_tensor_is_left_out(gaussian):
    """A tensor with NaN is named and does not count."""
    optimizer = gaussian(0.0, 0.0, shape=(64, 64))
    slot = optimizer.slots[1]
    broken = tensor(slot.state["exp_avg"])
    broken[3, 3] = torch.nan
    state = slot.state.replaced({"exp_avg": ref(broken)})
    found = estimate(replace(optimizer, slots={**optimizer.slots, 1: replace(slot, state=state)}))
    assert [notice.id for notice in found.warnings] == ["nonfinite"]
    assert np.isfinite(found.ratio)
    json.dumps(asdict(found), allow_nan=False)


def test_weights(gaussian):
    """Growth, its time, and the share of weights outside the box of this ratio."""
    optimizer = gaussian(0.0, shape=(64, 64), lr=1e-2, weight_decay=0.1)
    ratio = estimate(optimizer).ratio
    edge = 1 / (0.1 * ratio)
    weights = {0: ref(torch.tensor([0.0, 0.99 * edge, -1.01 * edge, 2 * edge]))}
    group = estimate(optimizer, weights=weights).groups[0]
    assert group.outside_box == 0.5
    assert group.settling_steps == pytest.approx(500)
    assert group.weight_growth == formulas.weight_growth(ratio, BETAS, 0.9, 1e-3)
    long = estimate(gaussian(0.0, shape=(64, 64), betas=(0.95, 0.999), lr=1e-2))
    growth = formulas.weight_growth(long.ratio, BETAS, 0.95, 1e-3)
    assert long.groups[0].weight_growth == growth
    same = estimate(optimizer, weights=weights, decay="decoupled").groups[0]
    assert same == group  # it decays by as much in every step
    free = estimate(gaussian(0.0, shape=(64, 64), weight_decay=0.0), weights=weights).groups[0]
    assert (free.outside_box, free.settling_steps, free.weight_growth) == (None, None, None)


def test_weights_with_kept_decay(gaussian):
    """A decay that is not multiplied acts a ratio times slower, up to a box as much wider."""
    optimizer = gaussian(0.0, shape=(64, 64), lr=1e-2, weight_decay=0.1)
    weights = {0: ref(torch.tensor([0.0, 9.9, -10.1, 20.0]))}
    found = estimate(optimizer, weights=weights, decay="kept")
    (group,) = found.groups
    assert group.outside_box == 0.5
    assert group.settling_steps == pytest.approx(500 * found.ratio)
    grown = formulas.weight_growth(found.ratio, BETAS, 0.9, 1e-3, 1 / found.ratio)
    assert group.weight_growth == grown
    assert grown == pytest.approx(
        formulas.weight_growth(found.ratio, BETAS, 0.9, 1e-3) * sqrt(found.ratio), rel=0.05
    )


def test_box_of_lion_sf(gaussian):
    """LionSF's smaller steps hold out against the decay up to a smaller size."""
    optimizer = gaussian(0.0, shape=(64, 64), weight_decay=0.1)
    ratio = estimate(optimizer, to="lion-sf").ratio
    edge = formulas.agreement_factor(0, BETAS) / (0.1 * ratio)
    weights = {0: ref(torch.tensor([0.99 * edge, -1.01 * edge, 0.0, 0.0]))}
    assert estimate(optimizer, to="lion-sf", weights=weights).groups[0].outside_box == 0.25


@pytest.mark.parametrize(("share", "sparse"), [(0.04, False), (0.06, True)])
def test_stale_threshold(moments, share, sparse):
    """More than 5 % of still elements make a tensor sparse."""
    slot = moments(0.2, (1000,))
    first = tensor(slot.state["exp_avg"])
    first[: int(1000 * share)] = 0
    slot = replace(slot, state=slot.state.replaced({"exp_avg": ref(first)}))
    found = estimate(optimizer_with(moments(0.2, (9,)), slot))
    assert bool(found.sparse) == sparse


@pytest.mark.parametrize(("kurtosis", "sparse"), [(5.8, False), (6.2, True)])
def test_kurtosis_threshold(moments, kurtosis, sparse):
    """A kurtosis above 6 likewise."""
    size = moments(1.0, (1000,)).state["exp_avg"]
    # A share p of large elements beside small ones: the kurtosis is about 1 / p.
    large = torch.full((1000,), 0.01)
    large[: round(1000 / kurtosis)] = 0.5
    slot = moments(1.0, (1000,))
    slot = replace(slot, state=slot.state.replaced({"exp_avg": ref(tensor(size) * large)}))
    found = estimate(optimizer_with(moments(0.2, (9000,)), slot))
    assert bool(found.sparse) == sparse
    assert found.groups[0].kurtosis == pytest.approx(kurtosis, rel=0.02)


def test_evidence_of_early_moments(moments):
    """Both bias corrections, eps, and noise that is larger in the beginning: all count."""
    slot = moments(0.5, (50,), steps=120, betas=(0.98, 0.999), square=4.0)
    optimizer = optimizer_with((slot, {"betas": (0.98, 0.999), "eps": 0.5}))
    ((found,),) = evidence(optimizer, BETAS, lambda _: None)
    assert found.update_rms == pytest.approx(0.5 * 2 / 2.5)
    assert found.phi == pytest.approx(0.8)
    assert found.persistence == pytest.approx(formulas.persistence(0.16, 0.98, 120))
    assert found.persistence != pytest.approx(formulas.persistence(0.16, 0.98), abs=1e-3)


def test_elements_without_gradient(moments):
    """Where the second moment is 0 nothing is averaged: they are zero, and stale."""
    slot = moments(0.2, (100,))
    second = tensor(slot.state["exp_avg_sq"])
    second[:4] = 0
    slot = replace(slot, state=slot.state.replaced({"exp_avg_sq": ref(second)}))
    ((found,),) = evidence(optimizer_with(slot), BETAS, lambda _: None)
    assert (found.moving, found.stale) == (96, 0.04)
    assert found.zero == pytest.approx(0.04)
    assert found.update_rms == pytest.approx(0.2)
    assert found.phi == pytest.approx(1)


def test_progress_and_unequal_blocks(gaussian):
    """Moments that come in blocks of different sizes are read side by side, every byte once."""
    optimizer = gaussian(0.1, shape=(64, 64))
    slot = optimizer.slots[0]

    def chopped(found, size):
        data = b"".join(found.source.blocks())
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        return TensorRef(found.dtype, found.shape, Computed(lambda: iter(parts)))

    state = slot.state.replaced(
        {
            "exp_avg": chopped(slot.state["exp_avg"], 4 * 300),
            "exp_avg_sq": chopped(slot.state["exp_avg_sq"], 4 * 700),
        }
    )
    seen = []
    same = replace(optimizer, slots={0: replace(slot, state=state)})
    assert estimate(same, progress=seen.append).ratio == estimate(optimizer).ratio
    assert sum(seen) == 2 * 64 * 64 * 4
    assert len(seen) > 14
