"""`liontool inspect --html` and `--plot`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.page_data import checkpoint

Run = Callable[..., Any]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in the working folder."""
    monkeypatch.chdir(tmp_path)
    return checkpoint(Path("run.ckpt"), layers=2)


def test_html(liontool: Run, source: Path) -> None:
    """The page is written, and its name printed."""
    code, out, err = liontool("inspect", str(source), "--html", "run.html")
    assert (code, err) == (0, "")
    assert out.split() == ["written", "run.html"]
    page = Path("run.html").read_text(encoding="utf-8")
    assert "layers.{layer}" in page
    assert "CosineAnnealingLR: what remains" in page
    assert sorted(path.name for path in Path().iterdir()) == ["run.ckpt", "run.html"]


def test_html_and_plot(liontool: Run, source: Path) -> None:
    """Both in one go, and with --json a document names them."""
    pytest.importorskip("matplotlib")
    words = ("--html", "a.html", "--plot", "a.svg", "--json")
    code, out, err = liontool("inspect", str(source), *words)
    assert (code, err) == (0, "")
    assert json.loads(out) == {"schema": 1, "written": ["a.html", "a.svg"]}
    assert b"<svg" in Path("a.svg").read_bytes()


def test_filter(liontool: Run, source: Path) -> None:
    """--filter chooses what is drawn."""
    code, _, _ = liontool("inspect", str(source), "--html", "a.html", "--filter", "*up.weight")
    assert code == 0
    page = Path("a.html").read_text(encoding="utf-8")
    assert "up.weight" in page
    assert "down.weight" not in page


def test_nothing_is_overwritten(liontool: Run, source: Path) -> None:
    """A file that is there stays, unless --force is given."""
    Path("a.html").write_text("mine")
    code, _, err = liontool("inspect", str(source), "--html", "a.html")
    assert (code, Path("a.html").read_text()) == (2, "mine")
    assert "a.html: is there already; give another name, or replace it with --force" in err
    assert liontool("inspect", str(source), "--html", "a.html", "--force").code == 0
    assert Path("a.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--html", "run.ckpt", "--force"], "run.ckpt: is part of the checkpoint"),
        (["--html", "a.png", "--plot", "./a.png"], "page and picture need a file each"),
        (["--plot", "a.gif"], "--plot draws .png or .svg, got 'a.gif'"),
        (["--html", "no/a.html"], "no/a.html: "),
        (["--html", "a.html", "--tensors"], "take no --tensors, --tree, --field or --assert"),
        (["--force"], "--force belongs to --html and --plot"),
    ],
    ids=["source", "twice", "suffix", "folder", "tensors", "force"],
)
def test_refusals(liontool: Run, source: Path, words: list[str], message: str) -> None:
    """One line says what is wrong, nothing is written, and the checkpoint stays."""
    pytest.importorskip("matplotlib")
    before = source.read_bytes()
    code, out, err = liontool("inspect", str(source), *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert source.read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["run.ckpt"]


def test_file_in_the_folder_of_a_checkpoint(liontool: Run, source: Path) -> None:
    """Nothing is written into a folder that is a checkpoint."""
    Path("folder").mkdir()
    source.rename("folder/run.ckpt")
    code, _, err = liontool("inspect", "folder", "--html", "folder/a.html")
    assert code == 2
    assert "folder/a.html: is part of the checkpoint" in err


def test_without_matplotlib(source: Path) -> None:
    """A plain install says which extra it lacks before it reads anything."""
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from liontool.cli import main\n"
        "sys.exit(main(['inspect', 'no-such-file', '--plot', 'a.png']))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == (
        'liontool: error: --plot needs matplotlib: pip install "liontool[plot]"\n'
    )


def test_page_needs_no_torch(source: Path) -> None:
    """Neither torch nor matplotlib is imported for the page."""
    program = (
        "import sys\nfrom liontool.cli import main\n"
        "code = main(['inspect', 'run.ckpt', '--html', 'a.html'])\n"
        "print(code, {'torch', 'matplotlib'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "0 set()"
