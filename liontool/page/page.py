"""One HTML page about a checkpoint: no script, no network, nothing of the file is markup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import product
from pathlib import Path

from liontool.inspect.findings import NOTE, Finding
from liontool.inspect.statistics import Statistics
from liontool.inspect.summary import OptimizerSummary, Summary
from liontool.page import notable, svg_curve, svg_heatmap, svg_histograms, tables
from liontool.page.facts import facts
from liontool.page.layers import POSITIONS, Grid, Layers, by_layer, titled
from liontool.page.markup import card, items, section, text
from liontool.version import __version__

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_RMS = (
    "Root mean square of the values in each part of each layer. One layer that stands out from its "
    "neighbours is worth a look; point at a cell for its number. The scale is logarithmic."
)
_HISTOGRAMS = (
    "How large the values are, by their power of two, layer by layer. Each histogram is as high as "
    "its largest bar; the leftmost bar takes in what is smaller still, and zeros are left out."
)
_POSITIONS = (
    "The optimizer keeps positions, not names, and order and shapes do not tell for certain which "
    "weights of the file these are: they stand in the order of the groups, the first of each row "
    "by its position."
)
_INFERRED = (
    "The optimizer keeps positions, not names. Its moments stand under the names of the weights "
    "that are in the same place in the model's order and have the same shapes."
)
_MODELS = (
    "Several models or optimizers have parameters of the same names; each stands by itself, under "
    "the place of its weights, or that of its optimizer where nothing tells whose moments they are."
)
_CURVE = "Computed from what the scheduler saved; what a script does beside it is not known."


def html(summary: Summary, found: Statistics) -> str:
    """The whole page.

    Args:
        summary: What the checkpoint is.
        found: What its values come to.
    """
    layers = by_layer(found)
    name = Path(summary.path).name or summary.path
    body = [
        _head(summary, name),
        _alarms(summary, found),
        section("No optimizer", items([summary.no_optimizer] if summary.no_optimizer else ())),
        *_optimizers(summary, found),
        section("Other schedulers", tables.schedulers(summary.schedulers)),
        section("Values", tables.kinds(found), items(notable.remarks(found))),
        section(
            "RMS by layer", *_origins(found), *_heatmaps(layers), tables.outside(layers), intro=_RMS
        ),
        section("Histograms by layer", _histograms(layers), intro=_HISTOGRAMS),
        section("Files", tables.files(summary)),
    ]
    style = files("liontool.page").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(name)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>\n{''.join(body)}</main>\n<footer>Made by liontool {__version__} from "
        f"{found.matched:,} of {found.total:,} tensors. Nothing in the file was executed."
        "</footer></body></html>\n"
    )


def _head(summary: Summary, name: str) -> str:
    pairs = "".join(
        f"<div><dt>{text(title)}</dt><dd>{text(words)}</dd></div>"
        for title, words in facts(summary)
    )
    where = f"<p class=lead>{text(summary.path)}</p>" if summary.path != name else ""
    return f"<header><h1>{text(name)}</h1>{where}<dl>{pairs}</dl></header>\n"


def _alarms(summary: Summary, found: Statistics) -> str:
    wrong = [_sentence(one) for one in summary.findings if one.severity != NOTE]
    return section("To look at first", items([*wrong, *notable.alarms(found)], "alarm"))


def _sentence(finding: Finding) -> str:
    return f"{finding.where}: {finding.text}" if finding.where else finding.text


def _optimizers(summary: Summary, found: Statistics) -> Iterator[str]:
    several = len(summary.optimizers) > 1
    notes = [_sentence(one) for one in summary.findings if one.severity == NOTE]
    for index, optimizer in enumerate(summary.optimizers):
        own = f": {optimizer.label}" if several else ""
        shown = [*optimizer.resume, *(notes if index == 0 else ())]
        yield section(f"What a resume will do{own}", items(shown))
        curves = _curves(optimizer)
        remark = _CURVE if curves else ""
        held = tables.schedulers(optimizer.schedulers)
        pair = f"<div class=pair>{curves}<div>{held}</div></div>" if curves else held
        yield section(f"Learning rate{own}", pair, intro=remark)
        groups = tables.groups(optimizer)
        yield section(f"Groups{own}", groups, tables.updates(found.groups, index))


def _curves(optimizer: OptimizerSummary) -> str:
    cards = [
        card(f"{one.kind}: what remains", svg_curve.picture(one.curve))
        for one in optimizer.schedulers
        if one.curve is not None and svg_curve.is_drawn(one.curve)
    ]
    return _cards(cards)


def _origins(found: Statistics) -> Iterator[str]:
    """Where the names of moments come from, as far as that needs words."""
    shown = [one for one in found.tensors if one.shares is None]
    if any(one.model for one in shown):
        yield f"<p class=intro>{_MODELS}</p>"
    if any(one.inferred for one in shown):
        yield f"<p class=intro>{_INFERRED}</p>"


def _heatmaps(layers: Layers) -> Iterator[str]:
    for title in dict.fromkeys(grid.title for grid in layers.grids):
        grids = [grid for grid in layers.grids if grid.title == title]
        yield f"<h3>{text(_stack(grids[0]))}</h3>"
        yield f"<p class=intro>{_POSITIONS}</p>" if grids[0].stack == POSITIONS else ""
        yield _cards([card(grid.kind, svg_heatmap.picture(grid), _more(grid)) for grid in grids])
    if layers.hidden_stacks:
        yield f"<p class=note>and {layers.hidden_stacks:,} more stacks of layers</p>"


def _more(grid: Grid) -> str:
    return f"and {grid.hidden:,} more columns" if grid.hidden else ""


def _stack(grid: Grid) -> str:
    if grid.stack == POSITIONS:
        return titled(grid.model, "by position") if grid.model else "By position"
    return titled(grid.model, f"{grid.stack}.{{layer}}".lstrip("."))


def _histograms(layers: Layers) -> str:
    cards = []
    for model, kind in product(layers.models, layers.kinds):
        rows = [
            (one.name, one.kinds[kind])
            for one in layers.outside
            if one.model == model and kind in one.kinds
        ]
        rows += layers.rows(kind, model)
        if rows:
            title = titled(model, kind)
            cards.append(card(title, svg_histograms.picture(title, rows)))
    return _cards(cards)


def _cards(cards: Sequence[str]) -> str:
    return f"<div class=cards>{''.join(cards)}</div>" if cards else ""
