"""`liontool demo`: the command around `liontool.demo.run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from liontool.demo import DemoResult, RunResult

Run = Callable[..., Any]


def _result(folder: Path, chart: Path | None) -> DemoResult:
    runs = tuple(RunResult(name, (2.5, 2.4), 2.3, 8_000_000) for name in ("AdamW", "Lion"))
    return DemoResult(folder, (3.0,), 2.5, runs, None, chart)


def test_demo_shows_commands_and_losses(
    liontool: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The commands that run are shown with their output, the losses at the end."""

    def run(
        folder: Path, *, say: Callable[[str], None], command: Callable[[Sequence[str]], None]
    ) -> DemoResult:
        say("Training ...")
        command(["--version"])
        return _result(folder, folder / "losses.png")

    monkeypatch.setattr("liontool.demo.run", run)
    code, out, err = liontool("demo", "--out", str(tmp_path))
    assert (code, err) == (0, "")
    assert out.index("Training ...") < out.index("$ liontool --version") < out.index("Lion  ")
    assert "losses.png" in out
    assert "not shown, for want of xxhash: pip install 'liontool[resume]'" in out


def test_demo_stops_when_a_command_fails(
    liontool: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A command that fails has said why; the demo ends with its exit code."""

    def run(folder: Path, *, command: Callable[[Sequence[str]], None], **_: object) -> DemoResult:
        command(["inspect"])
        return _result(folder, None)

    monkeypatch.setattr("liontool.demo.run", run)
    code, out, err = liontool("demo", "--out", str(tmp_path))
    assert code == 2
    assert "Missing argument" in err
    assert "validation" not in out
