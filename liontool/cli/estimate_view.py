"""How the estimate of `--lr-ratio auto` is shown, with its evidence."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from liontool import wording
from liontool.cli import render

_LEGEND = (
    "u is AdamW's update before the learning rate, s the persistence of the gradient.",
    "k_step is the ratio that matches single steps, k* the one that matches the way gone in many, "
    "k_G the same where s differs from element to element.",
)


def show(page: render.Page, estimate: Mapping[str, Any], label: str) -> None:
    """Print an estimate, as `RatioEstimate` has it.

    Args:
        page: Where to print.
        estimate: The fields of the estimate.
        label: The optimizer's, where there are several; else "".
    """
    page.heading("How the ratio was estimated" + (f" ({label})" if label else ""))
    page.facts(dict(_facts(estimate, label)))
    groups = estimate["groups"]
    page.table(
        ("group", "RMS u", "s", "k_step", "k*", "k_G", "stale", "zero", "kurtosis"),
        [tuple(_moments(group)) for group in groups],
    )
    page.items((*_LEGEND, _smaller(estimate["ratio"])))
    if any(group["settling_steps"] is not None for group in groups):
        page.table(
            ("group", "size of weights tends to", "within about", "outside Lion's box"),
            [tuple(_weights(group)) for group in groups if group["settling_steps"] is not None],
        )


def _facts(estimate: Mapping[str, Any], label: str) -> Iterator[tuple[str, str]]:
    ratio, low, high = (f"{estimate[name]:.1f}" for name in ("ratio", "low", "high"))
    betas = wording.value(estimate["betas"])
    yield "estimate", f"{ratio}, likely {low} to {high}"
    alone = f"--optimizer {shlex.quote(label)} " if label else ""
    yield "to repeat it", f"{alone}--lr-ratio {estimate['ratio']:g}"
    yield "pure noise", f"{estimate['noise_ratio']:.2f} with betas {betas}"
    yield "RMS u", f"{estimate['update_rms']:.3f} at step {estimate['steps']:,.0f}"
    if estimate["sparse"]:
        yield "left out", wording.count(len(estimate["sparse"]), "sparse tensor")


def _smaller(ratio: float) -> str:
    return f"Smaller ratios, down to half of it ({ratio / 2:.1f}), often end at a lower loss."


def _moments(group: Mapping[str, Any]) -> Iterator[str]:
    yield str(group["index"])
    for name, digits in (
        ("update_rms", 3),
        ("persistence", 2),
        ("step_ratio", 2),
        ("ratio", 2),
        ("spread_ratio", 2),
    ):
        yield _number(group[name], digits)
    yield wording.share(group["stale"])
    yield wording.share(group["zero"])
    yield _number(group["kurtosis"], 1)


def _weights(group: Mapping[str, Any]) -> Iterator[str]:
    yield str(group["index"])
    yield f"{group['weight_growth']:.2f} times AdamW's"
    yield f"{group['settling_steps']:,.0f} steps"
    yield wording.share(group["outside_box"])


def _number(value: float | None, digits: int) -> str:
    return wording.NOTHING if value is None else f"{value:.{digits}f}"
