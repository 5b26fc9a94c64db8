"""What every view is made of: headings, facts, tables, lists and text to copy.

Everything is drawn without markup, so that no name in a file can give orders, at the width of the
terminal (80 columns where there is none), and without colours unless it goes to a terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from liontool.escape import safe

HEADING = "bold"
LABEL = "dim"
_MARGIN = 2
_FEW_COLUMNS = 3  # so few can break their cells and still be read
MOST_ROWS = 200
"""Rows of a table on a screen; the rest is for --json."""
GOOD = "green"
WARNING = "yellow"


class Page:
    """A column of blocks on stdout, an empty line between any two.

    Cells and sentences are escaped here; callers pass them as they are.
    """

    def __init__(self) -> None:
        # Made for each page: the console must see the stdout and the width of this moment.
        self._console = Console(markup=False, highlight=False, emoji=False)
        self._empty = True

    @property
    def width(self) -> int:
        """Columns of the terminal, 80 where there is none."""
        return self._console.width

    @property
    def blocks(self) -> bool:
        """Whether block characters can be printed."""
        return self._console.encoding.startswith("utf")

    def headline(self, text: str, style: str = HEADING) -> None:
        """One line that is never broken, so that a path in it can be copied."""
        self._gap()
        self._line(text, style)

    def sentence(self, text: str, style: str = "") -> None:
        """A line that has nothing to copy, broken between words where it is too long."""
        self._gap()
        self._print(Text(safe(text), style=style))

    def heading(self, text: str) -> None:
        """The title of the blocks below."""
        self.headline(text)
        self._empty = True

    def lines(self, *lines: str) -> None:
        """Lines of their own, never broken, with their spaces: for code to copy."""
        self._gap()
        for line in lines:
            self._line(line)

    def facts(self, facts: Mapping[str, str]) -> None:
        """Names and values, one pair a line."""
        self._gap()
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style=LABEL, no_wrap=True)
        grid.add_column(overflow="fold")
        for name, value in facts.items():
            grid.add_row(safe(name), safe(value))
        self._block(grid)

    def items(self, sentences: Iterable[str], mark: str = "-", style: str = "") -> None:
        """A list of sentences, broken between words."""
        self._gap()
        grid = Table.grid(padding=(0, 1))
        grid.add_column(style=style, no_wrap=True)
        grid.add_column(overflow="fold")
        for sentence in sentences:
            grid.add_row(mark, safe(sentence))
        self._block(grid)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        left: int = 1,
    ) -> None:
        """A table with a line under its head; one block a row where numbers would be broken.

        Args:
            columns: The head.
            rows: Cells, as many as columns.
            left: How many columns from the left are text; the others are numbers, set to the right.
        """
        self._gap()
        every = list(rows)
        shown = every[:MOST_ROWS]
        for gap in (_MARGIN + 1, _MARGIN):
            table = _drawn(columns, shown, left, gap)
            if self._fits(table) or left > 1 or len(columns) <= _FEW_COLUMNS:
                self._block(table)
                break
        else:
            self._rows_as_blocks(columns, shown)
        if len(every) > MOST_ROWS:
            self.items([f"and {len(every) - MOST_ROWS:,} more, all of them with --json"])

    def _fits(self, table: Table) -> bool:
        return self._console.measure(table).maximum + _MARGIN <= self._console.width

    def _rows_as_blocks(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        for name, *cells in rows:
            self._line(f"{' ' * _MARGIN}{columns[0]} {name}", LABEL)
            grid = Table.grid(padding=(0, 2))
            grid.add_column(no_wrap=True)
            grid.add_column(overflow="fold")
            for column, cell in zip(columns[1:], cells, strict=True):
                grid.add_row(safe(column), safe(cell))
            self._block(Padding(grid, (0, 0, 0, _MARGIN)))

    def _gap(self) -> None:
        if not self._empty:
            self._console.print()
        self._empty = False

    def _line(self, text: str, style: str = "") -> None:
        self._console.print(Text(safe(text), style=style), soft_wrap=True)

    def _block(self, content: RenderableType) -> None:
        self._print(Padding(content, (0, 0, 0, _MARGIN), expand=False))

    def _print(self, content: RenderableType) -> None:
        # Rich fills cells up with spaces, which nobody wants in a file.
        with self._console.capture() as drawn:
            self._console.print(content)
        for line in drawn.get().splitlines():
            self._console.out(line.rstrip(), highlight=False)


def _drawn(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int, gap: int) -> Table:
    """The table with `gap` columns between its columns; one of them comes with the box."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        header_style=LABEL,
        padding=(0, 1, 0, gap - 2),
    )
    for index, column in enumerate(columns):
        justify = "left" if index < left else "right"
        table.add_column(safe(column), justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(safe, row))
    return table
