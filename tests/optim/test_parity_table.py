"""The tables of docs/parity.md are made anew, with the real packages, and compared."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from support import peer_rules, peers
from support.parity import LR, STEPS, Case, Figures, gradients, measure, normal, runs
from support.parity_table import (
    COMMAND,
    documented,
    documented_sides,
    key,
    label,
    parsed,
    row,
    sides,
)
from support.peer_rules import RuleOptimizer
from support.peer_runs import TorchRun
from support.peers import FLOATS, Peer

# As many weights may take another sign somewhere where a processor rounds its sums differently.
FEW = 2

RULES = {
    "lion-sf": (peers.lion_sf_file, peer_rules.lion_sf, {"pow": 2.0}),
    "google/automl": (peers.automl_file, peer_rules.automl, {}),
    "timm": (peers.timm_file, peer_rules.timm, {"caution": True, "maximize": True}),
}


def _cases() -> list[object]:
    return [
        pytest.param(
            case,
            peer,
            dtype,
            id="-".join(key(case, peer, dtype)),
            marks=[pytest.mark.interop] * peer.heavy,
        )
        for case, peer, dtype in runs()
    ]


@pytest.mark.filterwarnings("ignore:.*rounding")
@pytest.mark.parametrize(("case", "peer", "dtype"), _cases())
def test_a_row_is_what_is_measured(case: Case, peer: Peer, dtype: torch.dtype) -> None:
    """Measured again, a row of the table has the same package, and figures as large."""
    if not peer.installed:
        pytest.skip(f"{peer.name} is not installed")
    line = documented()[key(case, peer, dtype)]
    measured = measure(case, dtype)
    written = row(case, peer, measured)
    assert label(line) == peer.label, f"measured: {written}; to write the table: {COMMAND}"
    assert _alike(measured, parsed(line), torch.finfo(dtype).eps), (
        f"measured: {written}; documented: {line}; to write the table: {COMMAND}"
    )


def _alike(measured: Figures, documented: Figures, eps: float) -> bool:
    """Whether the figures are those of the same run on another processor."""
    pairs = [
        (measured.differing, documented.differing),
        (measured.single or 0, documented.single or 0),
    ]
    counts = all(abs(a - b) <= FEW + max(a, b) / 4 for a, b in pairs)
    signs = 2 * STEPS * LR if measured.differing > documented.differing else 0
    weights = _as_large(measured.weights, documented.weights, 4 * eps + signs)
    momenta = _as_large(measured.momenta, documented.momenta, 4 * eps)
    return counts and weights and momenta


def _as_large(a: float, b: float, floor: float) -> bool:
    return max(a, b) <= 4 * min(a, b) + floor


@pytest.mark.parametrize(
    ("measured", "alike"),
    [
        (Figures(12, 1e-3, 1e-6, 0), True),
        (Figures(13, 1e-3, 1e-6, 1), True),
        (Figures(100, 1e-3, 1e-6, 0), False),
        (Figures(12, 1e-2, 1e-6, 0), False),
        (Figures(12, 1e-3, 1e-4, 0), False),
        (Figures(12, 1e-3, 1e-6, 50), False),
        (Figures(0, 0.0, 1e-6, 0), False),
    ],
)
def test_other_figures_are_noticed(measured: Figures, alike: bool) -> None:
    """A table that is out of date fails, a differently rounded sum does not."""
    assert _alike(measured, Figures(12, 1e-3, 1e-6, 0), 1e-7) is alike


def test_the_table_has_all_rows_and_no_others() -> None:
    """A case that is taken out of the tests leaves the page too."""
    assert [*documented()] == [key(*run) for run in runs()]


def test_the_table_of_differences_is_that_of_its_tests() -> None:
    """The page says what the tests show."""
    assert documented_sides() == sides(), f"to write the table: {COMMAND}"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", RULES)
def test_a_rewritten_rule_is_the_published_one(name: str, dtype: torch.dtype) -> None:
    """Where the published file is at hand, the rewritten rule gives its bits over 100 steps."""
    published, rule, defaults = RULES[name]
    make = published()
    if make is None:
        pytest.skip(f"the file of {name} is not at hand")
    options = {"lr": LR, "weight_decay": 0.1, **defaults}
    start = normal(torch.Generator().manual_seed(0), dtype)
    theirs = TorchRun(start, partial(make, **options))
    rewritten = TorchRun(start, partial(RuleOptimizer, rule=rule, **options))
    for grads in gradients(dtype):
        theirs.step(grads)
        rewritten.step(grads)
    for a, b in (
        (theirs.weights(), rewritten.weights()),
        (theirs.momenta(), rewritten.momenta()),
    ):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
