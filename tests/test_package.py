"""The package as a whole: what it exports, what it loads, where its version stands."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import liontool

HEAVY = ("torch", "triton", "numpy", "typer", "rich")


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after one statement."""
    code = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_exports_are_what_is_promised() -> None:
    """`__all__` is the list of promises, sorted, and each of them is there."""
    assert liontool.__all__ == sorted(liontool.__all__)
    for name in liontool.__all__:
        assert getattr(liontool, name) is not None
    assert set(liontool.__all__) <= set(dir(liontool))


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not exported fails as it would in any module."""
    with pytest.raises(AttributeError, match="module 'liontool' has no attribute 'lion'"):
        _ = liontool.lion  # type: ignore[attr-defined]


def test_package_ships_its_types() -> None:
    """Type checkers find the marker file beside the sources."""
    assert Path(liontool.__file__).with_name("py.typed").is_file()


def test_version_stands_in_one_place() -> None:
    """The installed metadata is made from `__version__`."""
    assert importlib.metadata.version("liontool") == liontool.__version__


def test_changelog_knows_the_version() -> None:
    """What users notice in this version is written down."""
    changelog = Path(__file__).parents[1] / "CHANGELOG.md"
    headings = re.findall(r"^## (\S+)", changelog.read_text(encoding="utf-8"), re.MULTILINE)
    assert liontool.__version__ in headings


def test_import_loads_nothing_heavy() -> None:
    """`import liontool` costs nothing."""
    assert loaded_by("import liontool").isdisjoint(HEAVY)


@pytest.mark.parametrize("package", ["checkpoint", "convert", "edit", "inspect"])
def test_file_packages_load_nothing_heavy(package: str) -> None:
    """Reading and converting files needs no torch, and numpy only once values are asked for."""
    assert loaded_by(f"import liontool.{package}").isdisjoint(HEAVY)


def test_command_line_loads_no_torch() -> None:
    """The command line has Typer, and neither torch nor numpy."""
    loaded = loaded_by("import liontool.cli")
    assert "liontool" in loaded
    assert loaded.isdisjoint({"torch", "triton", "numpy"})


def test_optimizers_load_no_file_code() -> None:
    """`liontool.optim` works without the code that reads files."""
    code = "import liontool.optim, sys; print([m for m in sys.modules if 'liontool.check' in m])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    [[str(Path(sys.executable).with_name("liontool"))], [sys.executable, "-m", "liontool"]],
    ids=["script", "module"],
)
def test_both_spellings_of_the_command(command: list[str]) -> None:
    """The console script and `python -m liontool` are the same program."""
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert liontool.__version__ in result.stdout
