"""The page in a real browser: desktop and phone, dark and light, with no network."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from liontool.page.files import write_pictures
from liontool.page.page import html
from support.browser import Visit, chromium
from support.page_data import HOSTILE, checkpoint, network, statistics, summary, tensor, values

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
SCHEMES = ("light", "dark")

# Every element with words of its own, its color, and the color that lies behind it.
TEXTS = """() => {
  const solid = c => c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent';
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (solid(c)) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll('*')].filter(
    e => own(e) && e.tagName.toLowerCase() !== 'title').map(e => {
      const style = getComputedStyle(e);
      return [e.closest('svg') ? style.fill : style.color, behind(e), e.textContent.slice(0, 40)];
  });
}"""

# Tables and pictures that cannot be seen.
UNSEEN = """() => [...document.querySelectorAll('svg, table, h1, h2, figure')].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width < 20 || box.height < 8 || getComputedStyle(e).visibility !== 'visible';
}).map(e => e.outerHTML.slice(0, 80))"""

# Words of a picture that stick out of it.
OUTSIDE = """() => [...document.querySelectorAll('svg text')].filter(e => {
  const box = e.getBoundingClientRect(), all = e.closest('svg').getBoundingClientRect();
  return box.left < all.left - 1 || box.right > all.right + 1
    || box.top < all.top - 1 || box.bottom > all.bottom + 1;
}).map(e => e.textContent)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for all tests here."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A real checkpoint, one full of hostile names, and a large one."""
    folder = tmp_path_factory.mktemp("pages")
    found = {name: folder / f"{name}.html" for name in ("real", "hostile", "large")}
    write_pictures(checkpoint(folder / "run.ckpt"), page=found["real"])
    names = (HOSTILE, f"{HOSTILE}.0.{HOSTILE}", "x" * 3000, f"h.1.{'y' * 3000}")
    tensors = [tensor(n, k, values(nan=1)) for n in names for k in ("weight", HOSTILE)]
    hostile = html(summary(HOSTILE, no_optimizer=HOSTILE), statistics(tensors))
    found["hostile"].write_text(hostile, encoding="utf-8")
    large = html(summary(), network(120, [f"part_{index}.weight" for index in range(40)]))
    found["large"].write_text(large, encoding="utf-8")
    return found


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    """Dark or light."""
    return str(request.param)


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Of a desktop or a phone."""
    return SIZES[str(request.param)]


@pytest.mark.parametrize("name", ["real", "hostile", "large"])
def test_page_can_be_read(
    browser: Any, pages: dict[str, Path], size: tuple[int, int], scheme: str, name: str
) -> None:
    """It fits the width, everything can be seen and read, nothing is asked for or complained of."""
    visit = Visit(browser, pages[name], size, scheme)
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.page.evaluate(UNSEEN) == []
    assert visit.page.evaluate(OUTSIDE) == []
    assert visit.page.locator("svg").count() >= 3
    assert [text for text in visit.page.evaluate(TEXTS) if _contrast(*text[:2]) < 4.5] == []
    assert visit.page.evaluate("[typeof window.boom, document.querySelector('script, img')]") == [
        "undefined",
        None,
    ]
    assert (visit.complaints, visit.requests) == ([], [])
    visit.page.close()


def test_a_browser_that_sees_trouble_tells(browser: Any, tmp_path: Path) -> None:
    """The test above is not blind: requests, scripts, faint and wide things are noticed."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<body style='background:#fff'><div style='width:2000px;color:#ccc'>wide and faint</div>"
        "<img src=https://example.org/a.png><svg width=1 height=1></svg><script>boom()</script>"
    )
    visit = Visit(browser, bad, SIZES["phone"], "light")
    assert visit.page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert len(visit.page.evaluate(UNSEEN)) == 1
    assert _contrast(*visit.page.evaluate(TEXTS)[0][:2]) < 2
    assert visit.requests == ["https://example.org/a.png"]
    assert "boom is not defined" in "".join(visit.complaints)
    visit.page.close()


def test_schemes_differ(browser: Any, pages: dict[str, Path]) -> None:
    """The picture is not blank, and dark is dark."""
    image = pytest.importorskip("PIL.Image", reason="needs pillow: pip install it")
    shades = {}
    for scheme in SCHEMES:
        visit = Visit(browser, pages["real"], SIZES["desktop"], scheme)
        shot = image.open(BytesIO(visit.page.screenshot())).convert("L")
        visit.page.close()
        assert len(shot.getcolors()) > 50
        shades[scheme] = sum(index * n for index, n in enumerate(shot.histogram())) / shot.width
        shades[scheme] /= shot.height
    assert shades["dark"] < 60
    assert shades["light"] > 200


def test_words_for_those_who_cannot_see(browser: Any, pages: dict[str, Path]) -> None:
    """Pictures have a name, tables a caption, headings an order, cells a tip."""
    visit = Visit(browser, pages["real"], SIZES["desktop"], "light")
    nameless = (
        "svg:not([role=img][aria-label]), table:not(:has(caption)), figure:not(:has(figcaption))"
    )
    assert visit.page.locator(nameless).count() == 0
    assert visit.page.locator("h1").count() == 1
    assert visit.page.evaluate("document.documentElement.lang") == "en"
    assert visit.page.locator("rect:not(:has(title))").count() == 0
    assert "0.up.weight: RMS" in "".join(visit.page.locator("rect title").all_text_contents())
    visit.page.close()


def _contrast(front: str, back: str) -> float:
    """The ratio of WCAG 2."""
    high, low = sorted((_luminance(front), _luminance(back)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    parts = [float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
