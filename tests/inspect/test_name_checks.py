"""Names in pickles and groups are looked at like those in headers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from liontool.inspect.verify import verify
from support.finding_files import found, torch_file


def odd(path: Path) -> list[tuple[str, str]]:
    """Where names are odd, and why."""
    return [(f.where, f.text) for f in verify(path).findings if f.id == "odd-name"]


@pytest.mark.parametrize("name", ["w\x1b[2J", "w\n", "w\u202e"])
def test_weights_in_a_pickle(name: str, tmp_path: Path) -> None:
    """A name that turns a terminal is found in a pickle too, once."""
    path = torch_file(tmp_path / "a.pt", {"model": {name: torch.ones(2)}})
    ((where, text),) = odd(path)
    assert where == f"model.{name}"
    assert "cannot be seen" in text


def test_empty_names(tmp_path: Path) -> None:
    """A name without a letter is odd."""
    path = torch_file(tmp_path / "a.pt", {"model": {"": torch.ones(2), "b": torch.ones(1)}})
    assert "its name is empty" in found(path)["odd-name"].text


def test_names_in_a_group(tmp_path: Path) -> None:
    """Parameters that have no state have names too."""
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([("w\x1b", weight)])
    path = torch_file(tmp_path / "a.pt", {"optimizer": optimizer.state_dict()})
    assert odd(path)[0][0] == "optimizer: group 0: w\x1b"


def test_honest_names(tmp_path: Path) -> None:
    """Letters of every language are fine."""
    assert not odd(torch_file(tmp_path / "a.pt", {"model": {"gewicht.ä": torch.ones(2)}}))
