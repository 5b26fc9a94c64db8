"""`liontool convert`: words in, one library call, one rendering."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liontool.convert.report import ConversionReport
from liontool.errors import OutputExistsError

Run = Callable[..., Any]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, report: ConversionReport) -> list[dict[str, Any]]:
    """The arguments of every library call; each gives the report made by hand."""
    made: list[dict[str, Any]] = []

    def convert_checkpoint(path: Path, **arguments: Any) -> ConversionReport:
        made.append({"path": path, **arguments})
        return report

    monkeypatch.setattr("liontool.convert.convert_checkpoint", convert_checkpoint, raising=False)
    return made


def test_defaults(liontool: Run, calls: list[dict[str, Any]]) -> None:
    """With nothing but the ratio the library is called with its own defaults."""
    assert liontool("convert", "a.ckpt", "--lr-ratio", "3").code == 0
    assert calls == [
        {
            "path": Path("a.ckpt"),
            "output": None,
            "lr_ratio": 3.0,
            "to": "lion",
            "package": "liontool",
            "momentum": None,
            "betas": None,
            "decay": "scaled",
            "zero_stale": False,
            "framework": None,
            "optimizers": (),
            "allow": (),
            "force": False,
            "dry_run": False,
            "progress": None,
        }
    ]


def test_every_option_arrives(liontool: Run, calls: list[dict[str, Any]]) -> None:
    """Each option reaches the library under its name."""
    words = (
        "convert a.ckpt -o b.ckpt --lr-ratio auto --to lion-sf --for timm --momentum scaled "
        "--betas 0.95,0.98 --decay kept --zero-stale --framework plain --optimizer g --optimizer d "
        "--allow nonfinite --allow maximize --force --dry-run --json"
    )
    assert liontool(*words.split()).code == 0
    assert calls == [
        {
            "path": Path("a.ckpt"),
            "output": Path("b.ckpt"),
            "lr_ratio": "auto",
            "to": "lion-sf",
            "package": "timm",
            "momentum": "scaled",
            "betas": (0.95, 0.98),
            "decay": "kept",
            "zero_stale": True,
            "framework": "plain",
            "optimizers": ("g", "d"),
            "allow": ("nonfinite", "maximize"),
            "force": True,
            "dry_run": True,
            "progress": None,
        }
    ]


def test_json_is_one_document(
    liontool: Run, calls: list[dict[str, Any]], report: ConversionReport
) -> None:
    """--json prints the report and nothing else."""
    code, out, err = liontool("convert", "a.ckpt", "--lr-ratio", "3", "--json")
    assert (code, err, len(calls)) == (0, "", 1)
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["output"] == report.output
    assert document["optimizers"][0]["groups_after"][0]["lr"] == 1e-4


def test_missing_ratio(liontool: Run) -> None:
    """Without --lr-ratio: the range of the papers, and the command that estimates it."""
    code, out, err = liontool("convert", "my run.ckpt")
    assert (code, out) == (2, "")
    assert "3 to 10 times smaller" in err
    assert "liontool convert 'my run.ckpt' --lr-ratio auto" in err
    assert err.count("\n") == 1


def test_error_of_the_library(liontool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error raised on purpose is shown as it is, in both forms."""

    def refuse(*_: object, **__: object) -> None:
        raise OutputExistsError("b.ckpt: exists; --force replaces it")

    monkeypatch.setattr("liontool.convert.convert_checkpoint", refuse, raising=False)
    code, out, err = liontool("convert", "a.ckpt", "--lr-ratio", "3", "--json")
    assert code == 2
    assert err == "liontool: error: b.ckpt: exists; --force replaces it\n"
    assert json.loads(out)["error"]["type"] == "OutputExistsError"
