"""The run of the demo that is killed: what it is compared with, and what is said of it."""

from __future__ import annotations

import subprocess
import sys
from math import nextafter
from pathlib import Path

import pytest

from liontool.cli import demo_view
from liontool.demo import CrashResult, DemoResult, RunResult, chart, crash
from liontool.errors import ResumeError

WHOLE = (2.5, 2.25, 2.125, 2.0, 1.75)


def killed(*, went_on_with: tuple[float, ...] = WHOLE[2:]) -> CrashResult:
    """Killed after step 3, in the save of step 3; the newest checkpoint is that of step 2."""
    before = tuple(enumerate(WHOLE[:3], 1))
    return CrashResult(WHOLE, before, tuple(enumerate(went_on_with, 3)), 1_200_000)


def result(crashed: CrashResult | None) -> DemoResult:
    runs = (RunResult("Lion", WHOLE, 1.5, 1000),)
    return DemoResult(Path("here"), (3.0,), 2.5, runs, crashed, None)


def shown(crashed: CrashResult | None, capsys, monkeypatch) -> str:
    """The last part of the screen, with single spaces."""
    monkeypatch.setenv("COLUMNS", "300")
    demo_view.show(result(crashed))
    return " ".join(capsys.readouterr().out.partition("Killed in the middle")[2].split())


def test_steps_made_again_count():
    """Where the kill and the checkpoint lie is read from the steps that were made."""
    assert killed().killed_at == 3
    assert killed().resumed_at == 2
    assert killed().differing == ()


def test_the_last_bit_of_a_loss_counts():
    """A loss that differs by one unit in its last place is found."""
    off = nextafter(WHOLE[3], 0)
    assert killed(went_on_with=(WHOLE[2], off, WHOLE[4])).differing == (4,)


def test_the_screen_says_what_happened(capsys, monkeypatch):
    """Kill, checkpoint and losses, in words and numbers."""
    text = shown(killed(), capsys, monkeypatch)
    assert "killed after step 3, by kill -9, when 1.20 MB of a checkpoint were written" in text
    assert "from step 2, the newest complete checkpoint; 1 step made again" in text
    assert "all 5 the same, to the last bit, as those of the run that was never interr" in text
    assert "the last is 1.750000" in text


def test_the_screen_says_if_losses_differ(capsys, monkeypatch):
    """A resume that went wrong is no success on the screen."""
    text = shown(killed(went_on_with=(WHOLE[2], 9.0, 9.0)), capsys, monkeypatch)
    assert "2 differ from those of the run that was never interrupted, the first at step 4" in text
    assert "the same" not in text


def test_without_xxhash_the_rest_of_the_demo_is_there(capsys, monkeypatch):
    """One line says what is missing and how to get it."""
    monkeypatch.setitem(sys.modules, "xxhash", None)
    monkeypatch.setattr(crash, "find_spec", lambda name: None)
    assert not crash.possible()
    text = shown(None, capsys, monkeypatch)
    assert text.endswith("not shown, for want of xxhash: pip install 'liontool[resume]'")


@pytest.mark.parametrize("crashed", [None, killed(), killed(went_on_with=(1.0, 1.0, 1.0))])
def test_the_chart_has_a_panel_for_it(crashed, tmp_path):
    """One panel without the killed run, two with it."""
    pytest.importorskip("matplotlib")
    losses = [3 - i / 40 for i in range(40)]
    runs = [RunResult("Lion", tuple(losses[20:]), 1.5, 1000)]
    picture = chart.draw(losses, runs, crashed, tmp_path / "losses.png")
    height = int.from_bytes(picture.read_bytes()[20:24], "big")
    assert height == (750 if crashed is None else 1500)


def start_instead(monkeypatch, code: str) -> None:
    """Let the demo start another program than its own."""
    popen = subprocess.Popen

    def other(command: list[str]) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", code, *command[3:]])

    monkeypatch.setattr(crash.subprocess, "Popen", other)


def attempt(folder: Path) -> CrashResult:
    return crash.kill_and_resume(
        folder, Path("lion.ckpt"), WHOLE, say=lambda line: None, command=lambda words: None
    )


def test_saves_that_cannot_be_hit_are_said(tmp_path, monkeypatch):
    """A program that ends before a save was hit is tried again, and then given up."""
    start_instead(monkeypatch, "")
    with pytest.raises(ResumeError, match=r"killed: no save of the demo could be hit while it w"):
        attempt(tmp_path)


def test_a_program_that_fails_is_said(tmp_path, monkeypatch):
    """The second start must end well."""
    code = """
import sys, time, pathlib
run, log = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
if run.exists():
    sys.exit(3)
save = run / ".1-00000000.liontool-tmp"
(run / "step-0000000004").mkdir(parents=True)
log.write_text("4 0x1p0\\n")
save.mkdir()
(save / "state-0.json").write_text("{}")
time.sleep(60)
"""
    start_instead(monkeypatch, code)
    with pytest.raises(ResumeError, match=r"the training program of the demo ended with 3"):
        attempt(tmp_path)
