"""The documentation says what is there, and its examples run."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path

import click
import pytest
import torch
import typer

import liontool
from liontool.convert.settings import ALLOWABLE
from liontool.resume import Run
from liontool.states import LIONS
from support.doc_runs import adamw_run

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
RUNNABLE = re.compile(r"<!-- runs -->\n```python\n(.*?)```", re.DOTALL)
TERM = re.compile(r"^`-.*\n(?=: )", re.MULTILINE)
FLAG = re.compile(r"`(--?[a-z][a-z-]*)")


def examples() -> list[object]:
    """Every Python example that is marked as one that runs."""
    return [
        pytest.param(code, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, code in enumerate(RUNNABLE.findall(page.read_text(encoding="utf-8")))
    ]


def commands() -> dict[str, click.Command]:
    """The commands, and the groups of commands, by name."""
    from liontool.cli import application

    group = typer.main.get_command(application())
    return dict(group.commands)  # type: ignore[attr-defined]


def flags(name: str) -> set[str]:
    """Every spelling of every option that `--help` of a command, or of those in it, shows."""
    command = commands()[name]
    return {
        spelling
        for one in (command, *getattr(command, "commands", {}).values())
        for parameter in one.params
        if parameter.param_type_name == "option"
        for spelling in parameter.opts
    }


def adamw_checkpoint(model: torch.nn.Module, path: Path) -> None:
    """What a plain training script saves after some steps of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, path)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("code", examples())
def test_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example runs as it stands beside an AdamW checkpoint, its converted file and a run."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    adamw_checkpoint(model, tmp_path / "adamw.ckpt")
    liontool.convert_checkpoint("adamw.ckpt", lr_ratio=3)
    assert (tmp_path / "adamw.lion.ckpt").is_file()
    if "Run(" not in code:
        adamw_run(tmp_path / "runs" / "exp1")
    exec(compile(code, "example", "exec"), {"model": model})


def test_there_are_examples() -> None:
    """The pattern that finds examples finds them."""
    assert len(examples()) >= 4


def test_docstring_examples_of_the_optimizers_run() -> None:
    """The examples of Lion and LionSF run."""
    from liontool import optim
    from liontool.optim import lion, lion_sf

    attempted = 0
    for module in (optim, lion, lion_sf):
        failed, tried = doctest.testmod(module)
        assert failed == 0
        attempted += tried
    assert attempted >= 2


@pytest.mark.parametrize("name", commands())
def test_every_command_has_a_page_in_the_index(name: str) -> None:
    """A command has a page, and the table of contents leads to it."""
    assert (DOCS / f"{name}.md").is_file()
    assert f"\n{name}\n" in (DOCS / "index.md").read_text(encoding="utf-8")


def test_there_are_commands() -> None:
    """The list of the test above is not empty."""
    assert {"convert", "inspect", "verify"} <= set(commands())


@pytest.mark.parametrize("name", commands())
def test_a_page_describes_the_options_of_its_command(name: str) -> None:
    """The options described are exactly those that `--help` shows."""
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    described = {flag for term in TERM.findall(page) for flag in FLAG.findall(term)}
    assert described == flags(name)


def test_convert_page_lists_every_package() -> None:
    """The table of `--for` has a row for each Lion, with its targets."""
    page = (DOCS / "convert.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|.*\| (lion(?:, lion-sf)?) \|$", page, re.MULTILINE)
    assert dict(rows) == {name: ", ".join(lion.targets) for name, lion in LIONS.items()}


def test_convert_page_lists_every_refusal() -> None:
    """The table of `--allow` has a row for each id."""
    page = (DOCS / "convert.md").read_text(encoding="utf-8")
    table = page.partition("| id | what was found |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == set(ALLOWABLE)


def first_cells(page: str, head: str) -> list[str]:
    """The words in backticks in the first column of the table with this head."""
    table = page.partition(head)[2].partition("\n\n")[0]
    cells = re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def test_resume_page_lists_every_argument_and_attribute() -> None:
    """The two tables have what `Run` takes and has, and nothing else."""
    page = (DOCS / "resume.md").read_text(encoding="utf-8")
    parameters = inspect.signature(Run).parameters.values()
    words = ["**" * (one.kind is one.VAR_KEYWORD) + one.name for one in parameters]
    assert first_cells(page, "| argument | means |") == words
    shown = first_cells(page, "| attribute, method | |")
    names = {re.sub(r"^run\.(\w+).*", r"\1", word) for word in shown[1:]}
    public = {name for name in dir(Run) if not name.startswith("_")}
    assert shown[0] == "for batch in run"
    assert names == public | {"resumed_from", "reasons"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_command_lines_use_options_that_exist(page: Path) -> None:
    """Every `liontool ...` line in the docs has only options that its command has."""
    text = page.read_text(encoding="utf-8")
    for name, words in re.findall(rf"liontool ({'|'.join(commands())})\b([^\n`]*)", text):
        used = set(re.findall(r"(?<=[ \[])--?[a-z][a-z-]*", words))
        assert used <= flags(name) | {"--help"}


def test_links_between_pages_lead_somewhere() -> None:
    """Every relative link in README and docs names a file of the repository."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
