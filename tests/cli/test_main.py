"""The program as a whole: usage, exit codes, what it loads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import liontool as package

HEAVY = {"torch", "numpy", "triton", "safetensors", "pydantic"}

Run = Callable[..., Any]


def test_version(liontool: Run) -> None:
    """--version prints one line."""
    assert liontool("--version") == (0, f"liontool {package.__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)], ids=["bare", "--help", "-h"])
def test_help_lists_the_commands(liontool: Run, arguments: tuple[str, ...]) -> None:
    """Help names every command."""
    code, out, _ = liontool(*arguments)
    assert code == 0
    assert all(name in out for name in ("convert", "inspect", "demo", "--version"))


@pytest.mark.parametrize("command", ["convert", "inspect", "demo"])
def test_every_command_has_help(liontool: Run, command: str) -> None:
    """Help of a command is about that command."""
    code, out, _ = liontool(command, "--help")
    assert code == 0
    assert f"liontool {command}" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspct", "x"), "No such command 'inspct'. Did you mean 'inspect'?"),
        (("inspect",), "Missing argument"),
        (("inspect", "x", "--jsn"), "No such option: --jsn"),
    ],
)
def test_wrong_usage(liontool: Run, arguments: tuple[str, ...], message: str) -> None:
    """Wrong usage is one line on stderr that says where to look, and exit code 2."""
    code, out, err = liontool(*arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("liontool: error: ")
    assert message in err
    assert err.endswith("--help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--lr-ratio", "0", "must be a positive number such as 3, or auto; got '0'"),
        ("--lr-ratio", "nan", "must be a positive number"),
        ("--lr-ratio", "inf", "must be a positive number"),
        ("--lr-ratio", "many", "got 'many'"),
        ("--betas", "0.9", "must be two numbers such as 0.9,0.99; got '0.9'"),
        ("--betas", "a,b", "must be two numbers"),
    ],
)
def test_wrong_values(liontool: Run, option: str, value: str, message: str) -> None:
    """A value that means nothing is told by its option, what is allowed, and what was given."""
    code, out, err = liontool("convert", "x", "--lr-ratio", "3", option, value)
    assert (code, out) == (2, "")
    assert err.startswith(f"liontool: error: {option} ")
    assert message in err
    assert err.count("\n") == 1


def test_interrupt_inside_a_command(liontool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at any moment leaves one line and exit code 130."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("liontool.inspect.summary.summarise", interrupted)
    assert liontool("inspect", "x") == (130, "", "liontool: interrupted\n")


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_told_to_stop_inside_a_command(
    liontool: Run, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    """A signal unwinds the work like Ctrl-C, and the handlers from before come back."""
    number = signal.Signals[name]
    before = signal.getsignal(number)
    unwound = []

    def stopped(*_: object) -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            unwound.append(True)

    monkeypatch.setattr("liontool.inspect.summary.summarise", stopped)
    assert liontool("inspect", "x") == (code, "", f"liontool: stopped by {name}\n")
    assert unwound
    assert signal.getsignal(number) == before


def test_closed_stdout_is_no_bug(tmp_path: Path) -> None:
    """Started with no stdout at all, a command still does its work."""
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights.pt")
    command = f'"{sys.executable}" -m liontool inspect "{tmp_path}/weights.pt" >&-'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_bug_inside_a_command(liontool: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EOFError of our own is a bug like any other, not an abort."""

    def broken(*_: object) -> None:
        raise EOFError("odd")

    monkeypatch.setattr("liontool.inspect.summary.summarise", broken)
    code, _, err = liontool("inspect", "x")
    assert code == 2
    assert "this is a bug in liontool (EOFError: odd)" in err


def _modules_after(*arguments: str) -> set[str]:
    code = (
        "import sys; from liontool.cli import main; code = main(sys.argv[1:]); "
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr); "
        "sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(result.stderr.split())


def test_help_loads_nothing_heavy() -> None:
    """Help needs neither torch nor numpy."""
    assert _modules_after("--help").isdisjoint(HEAVY)


@pytest.mark.parametrize("name", ["adamw.pt", "model.safetensors"])
def test_inspect_loads_nothing_heavy(name: str, tmp_path: Path) -> None:
    """Inspecting a torch file and a safetensors file needs neither torch nor numpy."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(4))])
    optimizer.param_groups[0]["params"][0].sum().backward()
    optimizer.step()
    if name == "adamw.pt":
        torch.save(optimizer.state_dict(), tmp_path / name)
    else:
        save_file({"weight": torch.ones(4)}, tmp_path / name)
    loaded = _modules_after("inspect", str(tmp_path / name))
    assert loaded.isdisjoint(HEAVY)
    assert "rich" in loaded


def test_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`liontool --help | true` says nothing on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        result = subprocess.run(
            [sys.executable, "-m", "liontool", "--help"],
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert result.stderr == b""
    assert result.returncode == 141


def test_terminal_without_unicode() -> None:
    """Where the terminal has no Unicode, nothing fails."""
    result = subprocess.run(
        [sys.executable, "-m", "liontool", "inspect", "größe\N{LION FACE}"],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr.startswith(b"liontool: error: ")
    assert b"Traceback" not in result.stderr
