"""The building blocks of every view."""

from __future__ import annotations

import pytest

from liontool.cli.render import WARNING, Page


def _draw_all(page: Page, name: str) -> None:
    page.headline(name)
    page.heading(name)
    page.facts({name: name})
    page.items([name], mark="!", style=WARNING)
    page.table((name, "number"), [(name, name)])
    page.lines(name)


def test_every_block_is_escaped(capsys: pytest.CaptureFixture[str], evil: tuple[str, str]) -> None:
    """No block lets control characters through, none reads markup, wherever the text stands."""
    _draw_all(Page(), evil[0])
    out = capsys.readouterr().out
    assert out.count(evil[1]) == 9
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_no_line_is_too_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Facts, lists and tables keep to the width and leave no spaces at the end of a line."""
    monkeypatch.setenv("COLUMNS", "60")
    page = Page()
    page.facts({"name": "word " * 40, "path": "x" * 100})
    page.items(["word " * 40])
    page.table(("a", "b"), [("word " * 40, "1")])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert all(line == line.rstrip() for line in lines)


def test_wide_tables_become_blocks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number is never broken over two lines because there are many columns."""
    monkeypatch.setenv("COLUMNS", "40")
    names = ("group", *(f"name{i}" for i in range(9)))
    Page().table(names, [("0", *(["0.000123456"] * 9)), ("1", *(["7"] * 9))])
    out = capsys.readouterr().out
    assert out.count("0.000123456") == 9
    assert out.splitlines()[:2] == ["  group 0", "    name0  0.000123456"]
    assert "  group 1\n    name0  7\n" in out


def test_tables_end(capsys: pytest.CaptureFixture[str]) -> None:
    """A table with a million rows does not flood the terminal."""
    Page().table(("number",), ((str(number),) for number in range(1_000_000)))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 204
    assert lines[-1] == "  - and 999,800 more, all of them with --json"


def test_lines_are_for_copying(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code is neither broken, nor cut, nor moved, nor framed."""
    monkeypatch.setenv("COLUMNS", "40")
    code = ("def f():", "    return " + "x" * 100, "", "# [bold]")
    Page().lines(*code)
    assert capsys.readouterr().out.split("\n") == [*code, ""]


def test_headline_is_never_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long path can be copied from a headline."""
    monkeypatch.setenv("COLUMNS", "40")
    Page().headline("/very/long" * 20)
    assert capsys.readouterr().out == "/very/long" * 20 + "\n"


def test_colours_are_for_terminals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Colours appear on a terminal, not with NO_COLOR, and never in a file."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    Page().headline("x", WARNING)
    assert capsys.readouterr().out == "x\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    Page().headline("x", WARNING)
    assert "\x1b[33m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    Page().headline("x", WARNING)
    assert "33m" not in capsys.readouterr().out


def test_blocks_stand_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """One empty line between blocks, none after a heading, none at the start."""
    page = Page()
    page.heading("A")
    page.facts({"b": "c"})
    page.heading("D")
    page.items(["e"])
    assert capsys.readouterr().out == "A\n  b  c\n\nD\n  - e\n"
