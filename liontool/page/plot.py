"""The pictures of the page alone, drawn with matplotlib."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from liontool import escape
from liontool.inspect.lr_curve import Curve
from liontool.inspect.statistics import Statistics
from liontool.inspect.summary import Summary
from liontool.page import svg_curve
from liontool.page.exponents import common
from liontool.page.layers import Grid, Layers, by_layer, titled
from liontool.page.markup import cut
from liontool.page.scales import LogScale, from_log
from liontool.page.svg_heatmap import is_bad

SUFFIXES = (".png", ".svg")
_COLORS = ("#0b57b8", "#b35900", "#1a7f4b", "#a3268f", "#6b5bd2", "#57606a")
_MAP = "viridis"
_BAD = "#c2185b"
_PANEL = 4.6
_MOST_PANELS = 4  # kinds, from left to right
_MOST_STACKS = 4  # stacks of layers, one below the other
_STYLE: Any = {
    "svg.hashsalt": "liontool",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def check(target: Path) -> None:
    """Find out before any long work whether `target` can be drawn.

    Raises:
        ValueError: Another suffix, or matplotlib is not installed.
    """
    if target.suffix.lower() not in SUFFIXES:
        raise ValueError(f"--plot draws {' or '.join(SUFFIXES)}, got '{target.name}'")
    if find_spec("matplotlib") is None:
        raise ValueError('--plot needs matplotlib: pip install "liontool[plot]"')


def draw(summary: Summary, found: Statistics, kind: str) -> bytes:
    """The picture as a file of that kind, "png" or "svg"."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    layers = by_layer(found)
    stacks = _stacks(layers)
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # names in any script
        curves = _drawn(summary)
        rows = [
            *([3.0] if curves else []),
            *map(_height, stacks),
            *([3.6] if layers.kinds else []),
        ]
        if not rows:
            raise ValueError(f"{summary.path}: holds nothing to draw: no schedule, no values")
        wide = max(2, min(_MOST_PANELS, len(layers.kinds))) * _PANEL
        figure = Figure(figsize=(wide, sum(rows) + 0.5), layout="constrained")
        figure.suptitle(_title(summary), fontsize=12)
        bands = iter(figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0])
        if curves:
            _curves(next(bands), curves)
        for grids in stacks:
            _heatmaps(next(bands), grids)
        if layers.kinds:
            _histograms(next(bands), layers)
        content = BytesIO()
        figure.savefig(content, format=kind, dpi=130, metadata=_metadata(kind))
    return content.getvalue()


def _stacks(layers: Layers) -> list[list[Grid]]:
    """The grids of each stack of layers, the first stacks alone."""
    drawn = [grid for grid in layers.grids if grid.kind in _kinds(layers)]
    titles = list(dict.fromkeys(grid.title for grid in drawn))[:_MOST_STACKS]
    return [[grid for grid in drawn if grid.title == title] for title in titles]


def _kinds(layers: Layers) -> tuple[str, ...]:
    return layers.kinds[:_MOST_PANELS]


def _height(grids: list[Grid]) -> float:
    names = max((len(_short(name)) for grid in grids for name in grid.columns), default=0)
    return 1.2 + 0.075 * names + max(1.6, 0.17 * max(len(grid.rows) for grid in grids))


def _metadata(kind: str) -> dict[str, Any]:
    """No date: the same checkpoint gives the same bytes."""
    return {"Date": None} if kind == "svg" else {}


def _title(summary: Summary) -> str:
    kinds = ", ".join(optimizer.kind for optimizer in summary.optimizers)
    step = f", step {summary.step:,}" if summary.step is not None else ""
    return f"{_safe(Path(summary.path).name)}: {kinds or 'no optimizer'}{step}"


def _safe(words: str) -> str:
    """Text as matplotlib shows it: dollars of a file begin no formula."""
    return escape.safe(words[:200]).replace("$", r"\$")


def _short(name: str) -> str:
    return _safe(cut(name, 30)) or "all"


def _drawn(summary: Summary) -> list[tuple[str, Curve]]:
    """The curves with something to draw, with the class of their scheduler."""
    every = [
        (one.kind, one.curve)
        for optimizer in summary.optimizers
        for one in optimizer.schedulers
        if one.curve is not None and svg_curve.is_drawn(one.curve)
    ]
    return every[:_MOST_PANELS]


def _curves(band: Any, every: list[tuple[str, Curve]]) -> None:
    """What remains of the learning rate, one panel for each scheduler."""
    panels = band.subplots(1, len(every), squeeze=False)[0]
    for axes, (kind, curve) in zip(panels, every, strict=True):
        _curve(axes, curve)
        axes.set(title=f"learning rate that remains: {_safe(kind)}", xlabel="step of the scheduler")


def _curve(axes: Any, curve: Curve) -> None:
    start = curve.position or 0
    for one, color in zip(curve.curves, _COLORS, strict=False):
        steps = [start + step for step in one.steps]
        rates = [float("nan") if rate is None else rate for rate in svg_curve.known(one)]
        axes.plot(steps, rates, color=color, linewidth=2, label=svg_curve.groups(one))
    now = (start, svg_curve.known(curve.curves[0])[0] or 0.0)
    axes.plot(*now, "o", color=_COLORS[0], clip_on=False)
    axes.annotate(f"now, step {start:,}", now, xytext=(8, -14), textcoords="offset points")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 3))
    axes.grid(axis="y", alpha=0.3)
    if len(curve.curves) > 1:
        axes.legend(frameon=False)


def _heatmaps(band: Any, grids: list[Grid]) -> None:
    import numpy as np
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    panels = band.subplots(1, len(grids), squeeze=False)[0]
    for axes, grid in zip(panels, grids, strict=True):
        values = np.full((len(grid.rows), max(1, len(grid.columns))), np.nan)
        for place, one in grid.cells.items():
            values[place] = np.log10(one.rms) if one.rms and not is_bad(one) else np.nan
        scale = LogScale.over(one.rms for one in grid.cells.values())
        limits = {"vmin": scale.low, "vmax": scale.high} if scale else {}
        image = axes.imshow(values, cmap=_MAP, aspect="auto", interpolation="none", **limits)
        if scale is not None:
            words = FuncFormatter(lambda power, _: from_log(power))
            places = MaxNLocator(6, steps=[1, 2, 5, 10])
            band.colorbar(image, ax=axes, shrink=0.8, format=words, ticks=places)
        _mark(axes, [place for place, one in grid.cells.items() if is_bad(one)])
        every = max(1, len(grid.rows) // 16)
        axes.set_yticks(range(0, len(grid.rows), every), grid.rows[::every])
        axes.set_xticks(range(len(grid.columns)), map(_short, grid.columns), rotation=90)
        axes.tick_params(length=0)
        axes.set(title=f"RMS of {_safe(grid.kind)}")
        axes.set_ylabel(_safe(grid.title) or "number")


def _mark(axes: Any, places: list[tuple[int, int]]) -> None:
    """Red cells where values are not finite, as on the page, and a word for them."""
    from matplotlib.patches import Rectangle

    for row, column in places:
        corner = (column - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, color=_BAD, linewidth=0, gid="bad"))
    if places:
        axes.text(1, 1.01, "red: not finite", color=_BAD, ha="right", transform=axes.transAxes)


def _histograms(band: Any, layers: Layers) -> None:
    """Share of the values by their power of two: a line for each row, light to dark."""
    import numpy as np
    from matplotlib import colormaps

    kinds = _kinds(layers)
    for axes, kind in zip(band.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        rows = [
            (titled(model, row), values)
            for model in layers.models
            for row, values in layers.rows(kind, model)
        ] or [(one.title, one.kinds[kind]) for one in layers.outside if kind in one.kinds]
        span = common([values for _, values in rows])
        axes.set(title=f"{_safe(kind)} by size", xlabel="size of the values", yticks=[])
        if span is None:
            continue
        edges = np.arange(span.low, span.high + 2)
        for index, (row, values) in enumerate(rows):
            color = colormaps[_MAP](index / max(1, len(rows) - 1) * 0.9)
            if shares := span.shares(values):
                axes.stairs(shares, edges, color=color, label=_short(row))
        marks = span.marks(8)
        axes.set_xticks([place for _, place in marks], [mark for mark, _ in marks])
        axes.legend(handles=_ends(axes), frameon=False, loc="upper left")


def _ends(axes: Any) -> list[Any]:
    """The first and the last line, and some between, for the legend."""
    handles, _ = axes.get_legend_handles_labels()
    every = max(1, -(-len(handles) // 6))
    return list(dict.fromkeys([*handles[::every], *handles[-1:]]))
