"""The table of findings: ids, severities, and the documentation that is made of it."""

from __future__ import annotations

import re
from pathlib import Path

from liontool.inspect.findings import KINDS, SEVERITIES

PAGE = Path(__file__).parents[2] / "docs" / "verify.md"


def table() -> str:
    """The table of the page, from the kinds: to be pasted where this test fails."""
    head = "| id | severity | what it says |\n|---|---|---|\n"
    return head + "".join(
        f"| `{id}` | {kind.severity} | {kind.meaning} |\n" for id, kind in KINDS.items()
    )


def test_page_has_the_table() -> None:
    """Every kind of finding is in the documentation as it is in the table."""
    assert table() in PAGE.read_text(encoding="utf-8"), table()


def test_kinds_are_well_formed() -> None:
    """Ids are words with hyphens, severities known, meanings one sentence."""
    for id, kind in KINDS.items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id), id
        assert kind.severity in SEVERITIES
        assert kind.meaning.endswith(".")


def test_every_kind_is_provoked() -> None:
    """Each id stands in a test, which makes a file that has such a finding."""
    here = Path(__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in here.glob("*.py")]
    assert not {id for id in KINDS if not any(f'"{id}"' in text for text in texts)}
