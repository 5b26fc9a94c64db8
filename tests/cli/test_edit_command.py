"""`liontool edit`: words in, a page or a JSON document out, and the right exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from liontool import convert_checkpoint
from liontool.cli import edit_view
from liontool.edit import Change, EditReport, Notice, UndoReport
from support.edited_runs import save_plain

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint in the current folder."""
    monkeypatch.chdir(tmp_path)
    return save_plain(Path("run.ckpt"))


def test_an_edit_is_shown(liontool: Run, plain: Path) -> None:
    """The verdict, what it was, and what is different, with names folded."""
    code, out, err = liontool("edit", "run.ckpt", "rename:layers=blocks", "drop:state.head.*")
    assert (code, err) == (0, "")
    assert out.startswith("Edited run.ckpt to run.edited.ckpt\n")
    assert "layers.{0-1}.weight" in out
    assert "is now blocks.{0-1}.weight" in out
    assert "dropped" in out
    assert Path("run.edited.ckpt").is_file()


def test_a_dry_run_says_so(liontool: Run, plain: Path) -> None:
    """Nothing is written."""
    code, out, _ = liontool("edit", "run.ckpt", "drop:head.*", "--in-place", "--dry-run")
    assert code == 0
    assert out.startswith("Dry run, nothing written: run.ckpt would be edited in place")
    assert "groups.0.params   3        2" in out
    assert [path.name for path in Path().iterdir()] == ["run.ckpt"]


def test_in_place_and_back(liontool: Run, plain: Path) -> None:
    """The page says how to go back, and that works."""
    convert_checkpoint(plain, lr_ratio=3, output="state.safetensors")
    before = Path("state.safetensors").read_bytes()
    code, out, _ = liontool("edit", "state.safetensors", "meta.author=me", "--in-place")
    assert code == 0
    assert "liontool edit state.safetensors --undo" in out
    assert "meta.author   -        me" in out
    code, out, _ = liontool("edit", "state.safetensors", "--undo")
    assert code == 0
    assert out.startswith("Took the last edit of state.safetensors back")
    assert Path("state.safetensors").read_bytes() == before


def test_json(liontool: Run, plain: Path) -> None:
    """The whole report, and that of an undo."""
    _, out, _ = liontool("edit", "run.ckpt", "drop:head.*", "--json")
    found = json.loads(out)
    assert found["schema"] == 1
    assert found["output"] == "run.edited.ckpt"
    assert found["how"] == "copy"
    convert_checkpoint(plain, lr_ratio=3, output="state.safetensors")
    liontool("edit", "state.safetensors", "meta.a=b", "--in-place")
    _, out, _ = liontool("edit", "state.safetensors", "--undo", "--json")
    assert json.loads(out) == {"schema": 1, "path": "state.safetensors", "left": 0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no edit is given; an edit is"),
        (("head",), "'head' "),
        (("rename:a",), "'rename:a' must be rename:OLD=NEW"),
        (("rename:a.*=b",), "'rename:a.*=b' must have as many * on the right"),
        (("drop:",), "'drop:' lacks the name"),
        (("keep:",), "'keep:' lacks the name"),
        (("meta.a",), "'meta.a' must be meta.KEY=VALUE"),
        (("drop:x", "--no-backup"), "--no-backup belongs to --in-place"),
        (("drop:x", "--undo"), "--undo stands alone"),
        (("drop:nothing-like-it",), "'drop:nothing-like-it': nothing is called"),
        (("--undo",), "there is no run.ckpt.undo beside it"),
        (("drop:head.*", "-o", "no/such/x.ckpt"), "there is no folder"),
        (("drop:head.*", "--optimizer", "x"), "--optimizer x leads nowhere"),
        (("drop:head.*", "--framework", "x"), "unknown framework 'x'"),
    ],
)
def test_mistakes_are_one_line(
    liontool: Run, plain: Path, words: tuple[str, ...], message: str
) -> None:
    """Exit code 2, and nothing is written."""
    code, out, err = liontool("edit", "run.ckpt", *words)
    assert (code, out) == (2, "")
    assert err.startswith("liontool: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["run.ckpt"]


def test_names_from_files_are_escaped(liontool: Run, tmp_path: Path, evil: tuple[str, str]) -> None:
    """A tensor's name gives no orders to the terminal."""
    path = tmp_path / "model.safetensors"
    save_file({evil[0]: torch.zeros(2), "b": torch.zeros(2)}, path)
    _, out, _ = liontool("edit", str(path), "drop:*evil*")
    assert evil[0] not in out
    assert "evil" in out
    code, _, err = liontool("edit", str(path), "drop:x")
    assert code == 2
    assert evil[0] not in err


def test_all_kinds_of_change_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Values before and after, and what became of tensors."""
    changes = (
        Change("group", "groups.0.lr", 1e-3, 5e-4),
        Change("state", "state.{0-3}.exp_avg", "float32", "bfloat16", 4),
        Change("state", "state.9.x", None, "float32"),
        Change("weight", "a", "float32", None),
    )
    report = EditReport(
        "a.pt", "a.pt", "a.pt.orig", None, "copy", "plain", "torch zip", ("lr=x0.5",), changes,
        (Notice("written-anew", "there was no room"),), 2_000, 1_000,
    )  # fmt: skip
    edit_view.show(report)
    out = capsys.readouterr().out
    assert "Edited a.pt in place" in out
    assert "groups.0.lr   0.001    0.0005" in out
    assert "4 state tensors   state.{0-3}.exp_avg   float32 -> bfloat16" in out
    assert "new: float32" in out
    assert "a.pt.orig" in out
    assert "! there was no room" in out
    edit_view.show(UndoReport("a.safetensors", 2))
    assert "2 edits more can be taken back" in capsys.readouterr().out
