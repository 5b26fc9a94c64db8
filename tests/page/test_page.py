"""The page as text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from liontool.inspect.findings import Finding
from liontool.measure.summary import ValueSummary
from liontool.page.exponents import common
from liontool.page.markup import cut, table, text
from liontool.page.page import html
from liontool.page.scales import LogScale, ticks
from liontool.page.svg_curve import picture
from support.page_data import (
    HOSTILE,
    curve,
    extremes,
    network,
    odd_rates,
    statistics,
    summary,
    tensor,
    values,
    with_curve,
)

VOID = {"meta", "path", "rect", "circle", "wbr"}


class Parser(HTMLParser):
    """Notes tags, attributes and what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(page: str) -> Parser:
    """The page, whose tags are all closed."""
    parser = Parser()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_page_has_everything() -> None:
    """Groups, curve, heat maps and histograms are on the page, and every tag is closed."""
    page = html(summary(), network(4, ["attn.weight", "mlp.weight"]))
    parsed(page)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["What a resume will do", "Learning rate", "Groups", "Values", "RMS by layer",
                      "Histograms by layer"]  # fmt: skip
    assert page.count("<svg") == 1 + 3 + 3
    assert "AdamW 2.40 kB, Lion 1.20 kB" in page


def test_page_allows_nothing() -> None:
    """The policy forbids scripts and requests, and the page has neither."""
    page = html(summary(), network(2, ["w"]))
    found = parsed(page)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not found.tags & {"script", "link", "img", "iframe", "a", "object"}
    assert not {name for name in found.attributes if name.startswith("on")}
    assert not re.search(r"url\(|@import|https?:|src=|href=", page)


def test_names_are_no_markup() -> None:
    """Names of a file, wherever they stand, become text that can be seen."""
    hostile = statistics(
        tensor(name, kind, values(0.1, nan=1, infinite=2))
        for name in (HOSTILE, f"{HOSTILE}.0.{HOSTILE}")
        for kind in ("weight", HOSTILE)
    )
    findings = (Finding("duplicate-key", HOSTILE, HOSTILE),)
    page = html(summary(HOSTILE, findings=findings, no_optimizer=HOSTILE), hostile)
    found = parsed(page)
    assert not found.tags & {"script", "img"}
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert r"\u202etxt\x1b[2J" in page


def test_values_that_are_not_finite_come_first() -> None:
    """NaN, negative second moments and findings stand before everything else."""
    bad = [
        tensor("layers.0.w", "weight", values(nan=3, infinite=1)),
        tensor("layers.0.w", "exp_avg_sq", values(min=-1.0)),
    ]
    page = html(summary(), statistics(bad))
    assert re.findall(r"<h2>(.*?)</h2>", page)[0] == "To look at first"
    assert "layers.0.w: 3 NaN and 1 infinite among 100 values" in page
    assert "state.layers.0.w.exp_avg_sq: negative, which no square can be" in page
    assert '<rect class="bad"' in page


@pytest.mark.parametrize(("role", "count", "is_told"), [("other", 1, False), ("other", 2, True),
                                                        ("state", 1, True)])  # fmt: skip
def test_infinite_scores_are_no_trouble(role: str, count: int, is_told: bool) -> None:
    """A callback's best score so far is one infinite number; anything else infinite is told."""
    found = ValueSummary(count=count, infinite=count)
    page = html(summary(), statistics([replace(tensor("best", "x", found), role=role)]))
    assert (f"{count} infinite among" in page) == is_told


def test_zeros_are_told() -> None:
    """Moments that are all zero are counted, and their cells have a color of their own."""
    zero = ValueSummary(count=9, zeros=9, rms=0.0, mean=0.0, min=0.0, max=0.0)
    page = html(summary(), statistics([tensor("h.0.w", "exp_avg", zero), tensor("h.0.w")]))
    assert "exp_avg: 1 tensor all zero" in page
    assert '<rect class="none"' in page
    assert "all values are zero, or none is finite" in page


def test_models_have_their_own_pictures() -> None:
    """Of two models each has heat maps, histograms and rows, and the page says why."""
    found = statistics(
        tensor(name, kind, values(nan=kind == "weight" and model == "D"), model=model)
        for model in ("G", "D")
        for name in ("h.0.w", "w")
        for kind in ("weight", "exp_avg")
    )
    page = html(summary(), found)
    assert re.findall(r"<h3>(.*?)</h3>", page)[:2] == ["G: h.{layer}", "D: h.{layer}"]
    assert page.count("<svg") == 1 + 4 + 4
    assert "Histograms of D: exp_avg by size" in page
    assert page.count("D: w<") == 1
    assert page.count("D: w: 1 NaN") == page.count("D: h.0.w: 1 NaN") == 1
    assert "Several models or optimizers have parameters of the same names" in page


def test_where_names_come_from() -> None:
    """Names that the optimizer has not, and positions that none was found for, are told."""
    inferred = html(summary(), statistics([tensor("h.0.w", "exp_avg", inferred=True)]))
    assert "stand under the names of the weights" in inferred
    positions = html(summary(), statistics([tensor("3", "exp_avg", model="opt_d")]))
    assert "opt_d: by position" in positions
    assert "do not tell for certain which" in positions
    plain = html(summary(), network(2, ["w"]))
    assert "The optimizer keeps positions" not in plain
    assert "Several models" not in plain


def test_page_without_optimizer() -> None:
    """A file of weights alone has its page, with the reason."""
    bare = summary(optimizers=(), framework=None, no_optimizer="no optimizer in it", facts={})
    page = html(bare, network(2, ["w"]))
    parsed(page)
    assert "<li>no optimizer in it</li>" in page
    assert "Learning rate" not in page


def test_page_of_a_huge_model_is_small() -> None:
    """20,000 parameters with long names and their moments fit into two megabytes."""
    parts = [f"{'block' * 6}.part_{index}.weight" for index in range(40)]
    page = html(summary(), network(500, parts))
    parsed(page)
    assert len(page.encode()) < 2_000_000
    assert "and 8 more columns" in page


def test_endless_names_are_cut() -> None:
    """A name of a megabyte does not make a page of megabytes."""
    page = html(summary(), statistics(tensor(f"{'x' * 10**6}{n}", "exp_avg") for n in range(9)))
    assert len(page) < 100_000


@pytest.mark.parametrize("rates", [(float("nan"),) * 5, None], ids=["nan", "odd"])
def test_numbers_that_cannot_be_drawn(rates: tuple[float, ...] | None) -> None:
    """Rates that are not finite leave gaps, and the ends of float64 have their place."""
    odd = odd_rates()
    if rates is not None:
        odd = replace(odd, curves=(replace(odd.curves[0], rates=rates),))
    page = html(with_curve(odd), extremes())
    parsed(page)
    assert not re.search(r'(?: d| x| y|cy)="[^"]*(?:nan|inf)', page)


def test_many_curves_are_cut() -> None:
    """More groups than can be told apart are counted."""
    drawn = picture(curve(groups=9))
    assert drawn.count('class="line') == 6
    assert "and 3 more" in drawn


def test_long_tables_are_cut() -> None:
    """A table beyond two hundred rows says how many are missing."""
    shown = table("numbers", ("a", "b"), [(index, index) for index in range(1234)])
    assert "and 1,034 more" in shown
    assert shown.count("<tr>") == 201


def test_text_is_escaped_and_cut() -> None:
    """Markup, quotes and controls are spelled out."""
    assert text('<a href="\'">&\n') == r"&lt;a href=&quot;&#x27;&quot;&gt;&amp;\n"
    assert text("x" * 400) == "x" * 299 + "…"
    assert cut("transformer.h.attn.weight", 12) == "attn.weight"
    assert cut("embedding", 5) == "embe…"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (150, 1000, [200, 400, 600, 800, 1000]), (3, 3, [3])],
    ids=["unit", "steps", "point"],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    """Marks are round numbers within the range."""
    assert ticks(low, high) == pytest.approx(expected)


def test_log_scale() -> None:
    """Shades go up with the logarithm; zeros and what is not finite do not count."""
    scale = LogScale.over([1e-4, None, 0.0, 1.0, float("inf")])
    assert scale is not None
    assert (scale.low, scale.high) == (-4, 0)
    assert [scale.shade(v) for v in (1e-4, 1.1e-2, 1.0)] == [0, 5, 9]
    assert LogScale.over([0.0, None]) is None


def test_small_differences_look_small() -> None:
    """A scale is a power of ten wide at least, so that noise has few shades."""
    scale = LogScale.over([0.95, 1.05])
    assert scale is not None
    assert scale.high - scale.low == pytest.approx(1)
    assert {scale.shade(0.95), scale.shade(1.05)} <= {4, 5}


def test_tails_are_put_together() -> None:
    """The smallest half per cent shares the first bar; no value is lost."""
    found = values(lowest_exponent=-100, exponents=(1, *[0] * 80, 400, 599))
    span = common([found])
    assert span is not None
    assert (span.low, span.high) == (-26, -18)
    assert sum(span.shares(found)) == pytest.approx(1)
    assert span.shares(found)[0] == pytest.approx(0.001)
    assert common([ValueSummary()]) is None
