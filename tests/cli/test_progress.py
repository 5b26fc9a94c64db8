"""The progress bar: for people, and only when there is something to wait for."""

from __future__ import annotations

import io
import sys

import pytest

from liontool.cli import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Put stderr on a terminal. Not a fixture: pytest sets stderr anew after those."""
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    return stream


def test_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal there is no callback at all."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.copying() as advance:
        assert advance is None


def test_short_copies_show_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first second is over nothing is drawn."""
    terminal = _terminal(monkeypatch)
    with progress.copying() as advance:
        assert advance is not None
        advance(1, 2)
        advance(2, 2)
    assert terminal.getvalue() == ""


def test_long_copies_show_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once patience is over the bar appears on stderr, and goes when the copy ends."""
    terminal = _terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    with progress.copying() as advance:
        assert advance is not None
        advance(1_000_000, 2_000_000)
    assert "working" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")


def test_bar_goes_when_the_copy_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error leaves the terminal as it was, with the cursor in sight."""
    terminal = _terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)

    def fail() -> None:
        with progress.copying() as advance:
            assert advance is not None
            advance(1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert "\x1b[?25h" in terminal.getvalue()
