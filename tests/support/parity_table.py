"""The tables of docs/parity.md: read, and written anew by `python -m support.parity_table`.

Run it in `tests/`, with every peer installed; the rows of those that are not stay as they are.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from support.parity import STEPS, Case, Figures, measure, runs
from support.parity_sides import SIDES
from support.peers import Peer

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
COMMAND = "cd tests && python -m support.parity_table"
HEADER = [
    f"| package | options | weights that differ | by at most | momenta | of {STEPS} single steps |",
    "|---|---|---|---|---|---|",
]
Key = tuple[str, str, str]


def key(case: Case, peer: Peer, dtype: torch.dtype) -> Key:
    """What names a row: dtype, package, options."""
    return (str(dtype).removeprefix("torch."), peer.name, case.options)


def row(case: Case, peer: Peer, figures: Figures) -> str:
    """A line of the first table."""
    single = "" if figures.single is None else str(figures.single)
    cells = [
        peer.label,
        f"`{case.options}`",
        str(figures.differing),
        _number(figures.weights),
        _number(figures.momenta),
        single,
    ]
    return f"| {' | '.join(cells)} |"


def documented() -> dict[Key, str]:
    """The lines of the first table that the page has."""
    found: dict[Key, str] = {}
    dtype = ""
    for line in _block("figures").splitlines():
        if line.startswith("### "):
            dtype = line.removeprefix("### ")
        elif line.startswith("| ") and line not in HEADER:
            options = line.split("|")[2].strip(" `")
            found[dtype, _peer(line), options] = line
    return found


def parsed(line: str) -> Figures:
    """The figures of a line."""
    differing, weights, momenta, single = (cell.strip() for cell in line.split("|")[3:7])
    return Figures(int(differing), float(weights), float(momenta), int(single) if single else None)


def label(line: str) -> str:
    """The package of a line, with its version or that of its rule."""
    return line.split("|")[1].strip()


def _peer(line: str) -> str:
    """The package of a line as `PEERS` calls it."""
    return re.sub(r" (\([^)]*\)|[^ ,]+)", "", label(line), count=1)


def sides() -> str:
    """The second table."""
    lines = ["| test | package | there | here |", "|---|---|---|---|"]
    lines += [
        f"| {side.name.replace('_', ' ')} | {side.packages} | {side.theirs} | {side.ours} |"
        for side in SIDES
    ]
    return "\n".join(lines)


def documented_sides() -> str:
    """The second table as the page has it."""
    return _block("sides")


def _figures() -> str:
    """The first table, measured; lines of peers that are not installed are kept."""
    old, lines, heading = documented(), [], ""
    for case, peer, dtype in runs():
        name = key(case, peer, dtype)
        if name[0] != heading:
            heading = name[0]
            lines += ["", f"### {heading}", "", *HEADER]
        if peer.installed:
            lines.append(row(case, peer, measure(case, dtype)))
        elif name in old:
            lines.append(old[name])
    return "\n".join(lines).strip()


def _number(value: float) -> str:
    return re.sub(r"e-0?", "e-", f"{value:.0e}") if value else "0"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n)(.*?)(\n<!-- end of {name} -->)", re.DOTALL)


def _block(name: str) -> str:
    found = _pattern(name).search(PAGE.read_text(encoding="utf-8"))
    if found is None:
        raise LookupError(f"{PAGE} has no block of {name}")
    return found[2]


def main() -> None:
    """Write both tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, block in (("figures", _figures()), ("sides", sides())):
        text = _pattern(name).sub(lambda found, new=block: found[1] + new + found[3], text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
