"""What `liontool convert` prints."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from liontool.cli import conversion_view
from liontool.convert.report import ConversionReport, Notice, OptimizerReport

Shown = Callable[[ConversionReport], str]


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Renders a report at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def render(report: ConversionReport) -> str:
        conversion_view.show(report)
        return capsys.readouterr().out

    return render


def _row(out: str, start: str) -> list[str]:
    """The cells of the row that begins with `start`."""
    (line,) = (line for line in out.splitlines() if line.strip().startswith(start))
    return re.split(r"  +", line.strip())


def test_parts_come_in_order(shown: Shown, report: ConversionReport) -> None:
    """The verdict comes first, what the user must do comes last."""
    out = shown(report)
    parts = [
        "Converted run/adamw.ckpt to run/adamw.lion.ckpt",
        "Parameter groups",
        "Scheduler",
        "dropped",
        "Saved",
        "Please note",
        "What you must change in your script",
        "Advice",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)
    assert places[0] == 0


def test_groups_stand_side_by_side(shown: Shown, report: ConversionReport) -> None:
    """What all groups share is one table, what differs is shown by group."""
    out = shown(report)
    assert _row(out, "lr ") == ["lr", "0.0003", "0.0001"]
    assert _row(out, "betas") == ["betas", "0.9, 0.999", "0.9, 0.99"]
    assert _row(out, "horizon") == ["horizon", "-", "10"]
    assert _row(out, "0 ") == ["0", "24", "10,646,784", "0.1 -> 0.3"]
    assert _row(out, "1 ") == ["1", "24", "10,646,784", "0"]


def test_adams_own_keys_are_only_listed(shown: Shown, report: ConversionReport) -> None:
    """Dropped keys take no row; they are named once."""
    out = shown(report)
    assert _row(out, "dropped") == ["dropped", "exp_avg_sq, eps, amsgrad"]
    assert out.count("amsgrad") == 1


def test_schedulers_show_nested_ones(shown: Shown, report: ConversionReport) -> None:
    """Each learning rate of each scheduler stands before and after."""
    out = shown(report)
    assert _row(out, "SequentialLR") == ["SequentialLR at 500"]
    assert _row(out, "CosineAnnealingLR") == ["CosineAnnealingLR at 400 of 2,000"]
    assert _row(out, "base_lrs") == ["base_lrs", "0.0009", "0.0003"]
    assert _row(out, "eta_min") == ["eta_min", "1e-05", "3.33333e-06"]


def test_savings(shown: Shown, report: ConversionReport) -> None:
    """Disk and memory each have a line."""
    out = shown(report)
    assert "3.00 GB before, 2.00 GB after: 33 % less" in out
    assert "2.00 GB before, 1.00 GB after: 50 % less" in out


def test_script_can_be_copied(shown: Shown, report: ConversionReport) -> None:
    """The code stands there character by character, without frame or indentation."""
    out = shown(report)
    assert all(f"\n{block}\n" in out for block in report.script)


def test_everything_else_keeps_to_the_width(shown: Shown, report: ConversionReport) -> None:
    """80 columns are enough for all that is not code."""
    lines = shown(replace(report, script=())).splitlines()
    assert max(map(len, lines)) <= 80


def test_dry_run_says_so(shown: Shown, report: ConversionReport) -> None:
    """A dry run claims nothing."""
    out = shown(replace(report, dry_run=True))
    assert out.startswith("Dry run, nothing written: run/adamw.ckpt would become")
    assert "Converted" not in out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"momentum": "copy"}, "byte for byte"),
        ({"momentum": "scaled"}, "scaled to the size of Lion's own"),
        ({"momentum": "zeros"}, "starts from zeros"),
        ({"to": "lion-sf"}, "divided by 3 wherever it is kept, and held constant"),
        ({"package": "timm"}, "AdamW is now Lion, to be loaded by timm"),
    ],
)
def test_verdict_in_words(
    shown: Shown, report: ConversionReport, changes: dict[str, Any], words: str
) -> None:
    """What was asked for is said in words that need no manual."""
    assert words in shown(replace(report, **changes))


def test_several_optimizers_are_told_apart(
    shown: Shown, report: ConversionReport, optimizer_report: OptimizerReport
) -> None:
    """Each optimizer's tables carry its path."""
    second = replace(optimizer_report, label="optimizer_states.1", ratio=5.0)
    out = shown(replace(report, optimizers=(optimizer_report, second)))
    assert "Parameter groups (optimizer_states.0)" in out
    assert "Scheduler (optimizer_states.1)" in out
    assert "divided by 3, 5" in out


def test_one_group(
    shown: Shown, report: ConversionReport, optimizer_report: OptimizerReport
) -> None:
    """With a single group every hyperparameter is in one table."""
    single = replace(
        optimizer_report,
        groups_before=optimizer_report.groups_before[:1],
        groups_after=optimizer_report.groups_after[:1],
    )
    out = shown(replace(report, optimizers=(single,)))
    assert _row(out, "weight_decay") == ["weight_decay", "0.1", "0.3"]
    assert "all groups" not in out


def test_optimizer_without_groups_or_schedulers(
    shown: Shown, report: ConversionReport, optimizer_report: OptimizerReport
) -> None:
    """What is not there takes no heading."""
    nothing: dict[str, Any] = dict.fromkeys(
        ("groups_before", "groups_after", "schedulers_before", "schedulers_after", "dropped"), ()
    )
    bare = replace(report, optimizers=(replace(optimizer_report, **nothing),), notices=())
    out = shown(bare)
    absent = ("Parameter groups", "Scheduler", "dropped", "Please note")
    assert not any(word in out for word in absent)


def test_names_from_the_file_are_escaped(
    shown: Shown,
    report: ConversionReport,
    optimizer_report: OptimizerReport,
    evil: tuple[str, str],
) -> None:
    """A hostile name comes through nowhere."""
    name, spelled = evil
    group = {**optimizer_report.groups_after[0], name: name}
    hostile = replace(
        optimizer_report, kind=name, groups_after=(group, group), dropped=(name,), label=name
    )
    out = shown(
        replace(
            report,
            source=name,
            framework=name,
            optimizers=(hostile, hostile),
            notices=(Notice(name, name),),
            advice=(name,),
            script=(name,),
        )
    )
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert spelled in out
