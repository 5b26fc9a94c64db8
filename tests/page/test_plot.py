"""Pictures by matplotlib."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from liontool.page import plot
from support.page_data import (
    HOSTILE,
    extremes,
    network,
    odd_rates,
    statistics,
    summary,
    tensor,
    values,
    with_curve,
)

PNG = b"\x89PNG\r\n\x1a\n"


def test_png() -> None:
    """Curve, heat maps and histograms give a picture of some size."""
    pytest.importorskip("matplotlib")
    content = plot.draw(summary(), network(4, ["attn.weight", "mlp.weight"]), "png")
    assert content.startswith(PNG)
    wide, high = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    assert (wide > 1200, high > 800) == (True, True)


def test_svg_is_the_same_each_time() -> None:
    """The same checkpoint gives the same bytes, and no date is in them."""
    pytest.importorskip("matplotlib")
    first, second = (plot.draw(summary(), network(2, ["w"]), "svg") for _ in range(2))
    assert first == second
    assert b"<svg" in first
    assert b"dc:date" not in first


def test_hostile_names() -> None:
    """Dollars begin no formula, signs without a letter form are no warning, markup is none."""
    pytest.importorskip("matplotlib")
    names = [f"h.0.{name}" for name in ("$\\frac$", "$x", "\\$$", "層.重み", HOSTILE)]
    found = statistics(tensor(name, kind) for name in names for kind in ("weight", "$k$"))
    content = plot.draw(summary("$\\bad{$ 層.ckpt"), found, "svg")
    assert b"<script" not in content


@pytest.mark.parametrize(
    "found",
    [statistics([tensor("a")]), statistics([tensor("h.0.w", found=values(0.0))])],
    ids=["no-layers", "no-values"],
)
def test_little_to_draw(found: object) -> None:
    """Without layers, or with zeros alone, there is still a picture."""
    pytest.importorskip("matplotlib")
    assert plot.draw(summary(optimizers=()), found, "png").startswith(PNG)  # type: ignore[arg-type]


def test_numbers_that_cannot_be_drawn() -> None:
    """Rates that are not finite leave gaps, and the ends of float64 have their place."""
    pytest.importorskip("matplotlib")
    assert plot.draw(with_curve(odd_rates()), extremes(), "png").startswith(PNG)


def test_cells_that_are_not_finite_are_marked() -> None:
    """Cells with NaN, infinities, or an RMS beyond float64 are red, as on the page; others not."""
    pytest.importorskip("matplotlib")
    bad = [values(nan=1), values(infinite=2), values(float("inf")), values(), values(0.0)]
    found = statistics(tensor(f"h.{layer}.w", found=one) for layer, one in enumerate(bad))
    content = plot.draw(summary(), found, "svg")
    assert content.count(b'id="bad"') == 3
    clean = plot.draw(summary(), network(2, ["w"]), "svg")
    assert b'id="bad"' not in clean


def test_every_model_is_drawn() -> None:
    """Of two models each has its heat maps, so that a NaN in either is seen."""
    pytest.importorskip("matplotlib")
    bad = [tensor("h.0.w", found=values(nan=1), model=model) for model in ("G", "D")]
    content = plot.draw(summary(), statistics(bad), "svg")
    assert content.count(b'id="bad"') == 2


def test_nothing_to_draw() -> None:
    """A checkpoint with neither schedule nor values is refused."""
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"run/a\.ckpt: holds nothing to draw: no schedule, no"):
        plot.draw(summary(optimizers=()), statistics([]), "png")


def test_suffix() -> None:
    """Only files that can be drawn are accepted."""
    with pytest.raises(ValueError, match=r"--plot draws \.png or \.svg, got 'a\.jpg'"):
        plot.check(Path("a.jpg"))


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has the command that installs it."""
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'needs matplotlib: pip install "liontool\[plot\]"'):
        plot.check(Path("a.png"))


def test_find_spec_is_the_real_one() -> None:
    """The name that the test above replaces is what looks for packages."""
    assert plot.find_spec is importlib.util.find_spec
