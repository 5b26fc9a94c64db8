"""What `--lr-ratio auto` prints about itself."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import pytest

from liontool.cli import estimate_view
from liontool.cli.render import Page
from liontool.convert.ratio import GroupEvidence, RatioEstimate


def _group(index: int, **changes: Any) -> GroupEvidence:
    values: dict[str, Any] = {
        "index": index,
        "elements": 1000,
        "update_rms": 0.2741,
        "persistence": 0.15,
        "step_ratio": 3.648,
        "ratio": 6.174,
        "spread_ratio": 4.12,
        "stale": 0.0624,
        "zero": 0.0,
        "kurtosis": 14.8,
        "weight_growth": 1.28,
        "settling_steps": 6185.4,
        "outside_box": 0.016,
    }
    return GroupEvidence(**{**values, **changes})


def _estimate(*groups: GroupEvidence) -> RatioEstimate:
    return RatioEstimate(
        ratio=6.17,
        low=4.319,
        high=8.021,
        noise_ratio=6.7265,
        betas=(0.9, 0.99),
        update_rms=0.2741,
        steps=1200.0,
        groups=groups,
        sparse=(),
        warnings=(),
    )


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """An estimate from two groups, the second without decay and without any tensor that counts."""
    monkeypatch.setenv("COLUMNS", "80")
    nothing = dict.fromkeys(("update_rms", "step_ratio", "ratio"))
    still = _group(1, weight_growth=None, settling_steps=None, outside_box=None, **nothing)
    estimate_view.show(Page(), asdict(_estimate(_group(0), still)), "")
    return capsys.readouterr().out


def _cells(out: str, start: str, nth: int = 0) -> list[str]:
    lines = [line for line in out.splitlines() if line.strip().startswith(start)]
    return re.split(r"  +", lines[nth].strip())


def test_range_and_repetition(out: str) -> None:
    """The estimate has its range, and the option that gives the same again."""
    assert _cells(out, "estimate") == ["estimate", "6.2, likely 4.3 to 8.0"]
    assert _cells(out, "to repeat") == ["to repeat it", "--lr-ratio 6.17"]
    assert _cells(out, "pure noise") == ["pure noise", "6.73 with betas 0.9, 0.99"]
    assert "down to half of it (3.1)" in out


def test_one_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there are several optimizers, each has a ratio of its own to be repeated."""
    estimate_view.show(Page(), asdict(_estimate(_group(0))), "states.my net")
    out = capsys.readouterr().out
    assert "How the ratio was estimated (states.my net)" in out
    assert _cells(out, "to repeat")[1] == "--optimizer 'states.my net' --lr-ratio 6.17"


def test_evidence_by_group(out: str) -> None:
    """Each group has a row; what cannot be told is a dash."""
    assert _cells(out, "0 ")[1:] == [
        "0.274",
        "0.15",
        "3.65",
        "6.17",
        "4.12",
        "6.2 %",
        "0 %",
        "14.8",
    ]
    assert _cells(out, "1 ")[1:5] == ["-", "0.15", "-", "-"]


def test_weights(out: str) -> None:
    """Groups that decay tell where their weights tend to, and when."""
    assert _cells(out, "0 ", 1)[1:] == ["1.28 times AdamW's", "6,185 steps", "1.6 %"]
    assert len([line for line in out.splitlines() if line.startswith("  1 ")]) == 1


def test_width(out: str) -> None:
    """It fits into 80 columns without breaking a head or a number."""
    assert max(map(len, out.splitlines())) <= 80
    assert "kurtosis\n" in out
