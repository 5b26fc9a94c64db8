"""Every way to fail: one line, an exit code, no traceback."""

from __future__ import annotations

import json

import pytest

from liontool.cli import failures
from liontool.errors import LayoutError, RefusedError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (LayoutError("x.pt: no optimizer"), "x.pt: no optimizer"),
        (ValueError("betas[1] must lie in [0, 1), got 2"), "betas[1] must lie in [0, 1), got 2"),
        (PermissionError(13, "Permission denied", "a.pt"), "a.pt: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "the machine has too little memory for this"),
    ],
)
def test_expected_errors(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be expected to go wrong is told in one line, and the exit code is 2."""
    assert failures.report(error) == 2
    assert capsys.readouterr().err == f"liontool: error: {line}\n"


@pytest.mark.parametrize("error", [KeyError("x"), RecursionError("deep"), OSError("odd")])
def test_bugs_say_so(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody planned is called a bug, with its type and what to do."""
    assert failures.report(error) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"liontool: error: this is a bug in liontool ({type(error).__name__}: ")
    assert "please report it" in err
    assert "LIONTOOL_DEBUG=1" in err
    assert err.count("\n") == 1


def test_message_cannot_trick_the_terminal(
    capsys: pytest.CaptureFixture[str], evil: tuple[str, str]
) -> None:
    """Names in messages are escaped, so a message is always one line."""
    failures.report(LayoutError(evil[0]))
    assert capsys.readouterr().err == f"liontool: error: {evil[1]}\n"


def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LIONTOOL_DEBUG=1 is the way to the traceback."""
    monkeypatch.setenv("LIONTOOL_DEBUG", "1")
    failures.report(LayoutError("x"))
    assert "liontool.errors.LayoutError: x" in capsys.readouterr().err


def test_interrupt(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C gives the shell's own exit code and one line."""
    assert failures.report(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "liontool: interrupted\n"


def test_json_error(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the error is a document too, with the id that --allow takes."""
    assert failures.report(RefusedError("bad moment", id="nonfinite"), ["--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "schema": 1,
        "error": {
            "type": "RefusedError",
            "message": "bad moment; to go on all the same: --allow nonfinite",
            "id": "nonfinite",
        },
    }
    assert captured.err.startswith("liontool: error: bad moment")
