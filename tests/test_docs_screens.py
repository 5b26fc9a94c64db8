"""Screens in the documentation are what the command prints."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from liontool.cli import main
from support.doc_runs import adamw_checkpoint, adamw_run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCREEN = re.compile(r"<!-- prints -->\n```console\n\$ liontool ([^\n]*)\n(.*?)```", re.DOTALL)


def screens() -> list[object]:
    """Every command with its output that is marked as what it prints."""
    return [
        pytest.param(words, shown, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, (words, shown) in enumerate(SCREEN.findall(page.read_text(encoding="utf-8")))
    ]


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are shown as the documentation shows them."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.filterwarnings("ignore:Detected call of")
@pytest.mark.parametrize(("words", "shown"), screens())
def test_screen(
    words: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Beside the documentation's files the command prints exactly this, at 80 columns."""
    adamw_checkpoint(tmp_path / "adamw.ckpt")
    if "runs/exp1" in words:
        adamw_run(tmp_path / "runs" / "exp1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(shlex.split(words)) == 0
    assert capsys.readouterr().out == shown


def test_there_are_screens() -> None:
    """The README has the first screens of inspect and resume."""
    readme = SCREEN.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert [words for words, _ in readme] == ["inspect adamw.ckpt", "resume runs/exp1"]
    assert screens()
