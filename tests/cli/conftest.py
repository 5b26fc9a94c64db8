"""Reports made by hand, and a way to run the command in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from liontool.cli import main
from liontool.convert.report import ConversionReport, Notice, OptimizerReport

EVIL = "\x1b[2J[red]\u202eevil\n"
EVIL_SHOWN = r"\x1b[2J[red]\u202eevil\n"


class Outcome(NamedTuple):
    """What a run of the command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def evil() -> tuple[str, str]:
    """A name that plays tricks on terminals, and how it must be shown."""
    return EVIL, EVIL_SHOWN


@pytest.fixture
def liontool(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs the command line at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("LIONTOOL_DEBUG", raising=False)

    def run(*arguments: str) -> Outcome:
        code = main(arguments)
        return Outcome(code, *capsys.readouterr())

    return run


def _group(lr: float, decay: float, **fields: Any) -> dict[str, Any]:
    sizes = {"parameters": 24, "elements": 10_646_784}
    return {**sizes, "lr": lr, "initial_lr": 3 * lr, "weight_decay": decay, **fields}


def _scheduler(base: float, end: float) -> dict[str, Any]:
    rates = {"base_lrs": [base, base], "eta_min": end}
    return {
        "name": "SequentialLR",
        "position": 500,
        "length": None,
        "rates": {},
        "children": [
            {
                "name": "CosineAnnealingLR",
                "position": 400,
                "length": 2000.0,
                "rates": rates,
                "children": [],
            }
        ],
    }


@pytest.fixture
def optimizer_report() -> OptimizerReport:
    """AdamW with two groups and nested schedulers, converted with ratio 3."""
    adam = {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
    lion = {"betas": (0.9, 0.99), "horizon": 10.0}
    return OptimizerReport(
        label="optimizer_states.0",
        kind="AdamW",
        ratio=3.0,
        estimate=None,
        groups_before=(_group(3e-4, 0.1, **adam), _group(3e-4, 0.0, **adam)),
        groups_after=(_group(1e-4, 0.3, **lion), _group(1e-4, 0.0, **lion)),
        schedulers_before=(_scheduler(9e-4, 1e-5),),
        schedulers_after=(_scheduler(3e-4, 1e-5 / 3),),
        dropped=("exp_avg_sq", "eps", "amsgrad"),
    )


@pytest.fixture
def report(optimizer_report: OptimizerReport) -> ConversionReport:
    """A finished conversion of a Lightning checkpoint."""
    return ConversionReport(
        source="run/adamw.ckpt",
        output="run/adamw.lion.ckpt",
        framework="lightning",
        container="torch zip",
        step=500,
        to="lion",
        package="liontool",
        momentum="copy",
        optimizers=(optimizer_report,),
        notices=(Notice("few-steps", "only 12 steps: " + "Adam's moments are not reliable. " * 4),),
        bytes_before=3_000_000_000,
        bytes_after=2_000_000_000,
        state_bytes_before=2_000_000_000,
        state_bytes_after=1_000_000_000,
        script=(
            "from liontool.optim import Lion\n\ndef configure_optimizers(self):\n"
            "    return Lion(self.parameters(), lr=0.0003, weight_decay=0.3)  # beyond 80",
            "trainer.fit(model, ckpt_path='run/adamw.lion.ckpt')",
        ),
        advice=("Change initial, peak and end learning rate together.",),
    )
