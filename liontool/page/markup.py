"""HTML from text that nobody vouches for; every word of a file goes through `text`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from liontool.escape import safe

_LONGEST = 300
_MOST_ROWS = 200


def text(words: object, longest: int = _LONGEST) -> str:
    """Words as HTML shows them: none of them is markup, invisible or endless."""
    shown = str(words)
    if len(shown) > longest:
        shown = f"{shown[: longest - 1]}…"
    return escape(safe(shown))


def cut(words: str, longest: int) -> str:
    """A name without its first parts where it is long: they are what it shares with others."""
    words = safe(words)
    while len(words) > longest and "." in words:
        words = words.partition(".")[2]
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def section(title: str, *parts: str, intro: str = "") -> str:
    """A part of the page with its heading; nothing where no part has anything."""
    shown = [part for part in parts if part]
    if not shown:
        return ""
    words = f"<p class=intro>{text(intro)}</p>" if intro else ""
    return f"<section><h2>{text(title)}</h2>{words}{''.join(shown)}</section>\n"


def items(words: Iterable[object], style: str = "") -> str:
    """A list; nothing where there is nothing to list."""
    points = "".join(f"<li>{text(word, 1000)}</li>" for word in words)
    return f'<ul class="{style}">{points}</ul>' if points else ""


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1
) -> str:
    """A table that scrolls by itself where the page is narrow; long ones are cut and say so.

    Args:
        caption: What it shows.
        head: Titles of the columns.
        rows: Cells; the first one of each is its heading.
        left: How many columns are words, the others are numbers.
    """
    if not rows:
        return ""
    styles = ["words" if index < left else "number" for index in range(len(head))]
    titles = _cells(head, styles, 'th scope="col"')
    lines = "".join(
        f"<tr>{_cells(row[:1], styles, 'th scope=row')}{_cells(row[1:], styles[1:], 'td')}</tr>"
        for row in rows[:_MOST_ROWS]
    )
    more = len(rows) - _MOST_ROWS
    note = f"<p class=note>and {more:,} more</p>" if more > 0 else ""
    return (
        f'<div class=scroll role=region tabindex=0 aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{titles}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>{note}"
    )


def _cells(cells: Sequence[object], styles: Sequence[str], start: str) -> str:
    tag = start.split()[0]
    pairs = zip(cells, styles, strict=False)
    return "".join(f"<{start} class={style}>{_cell(cell, style)}</{tag}>" for cell, style in pairs)


def _cell(words: object, style: str) -> str:
    """A line may end after a dot of a name."""
    return text(words).replace(".", ".<wbr>") if style == "words" else text(words)


def card(title: str, picture: str, note: str = "") -> str:
    """A picture with its title above and a remark below."""
    remark = f"<p class=note>{text(note)}</p>" if note else ""
    return f"<figure><figcaption>{text(title)}</figcaption>{picture}{remark}</figure>"


def svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    """A picture as wide as there is room, told in words by `label`."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{text(label, 1000)}">'
        f"{''.join(parts)}</svg>"
    )


def word(x: float, y: float, words: object, style: str = "") -> str:
    """Words in a picture; `style` is "end", "middle" or nothing."""
    kind = f" class={style}" if style else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}>{text(words)}</text>'
