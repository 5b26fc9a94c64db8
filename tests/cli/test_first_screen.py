"""The first screen of inspect: pictures and groups, at every width and number of groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool import wording
from liontool.inspect.summary import GroupSummary
from liontool.page.group_rows import group_rows

# Schedulers are stepped here without their optimizers.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")

Run = Callable[..., Any]
BLOCKS = set("▁▂▃▄▅▆▇█")


def saved(
    folder: Path, rates: list[float], make: Callable[[torch.optim.Optimizer], Any], steps: int = 3
) -> str:
    """A checkpoint with a group for each rate."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(3))], "lr": rate} for rate in rates]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    scheduler = make(optimizer)
    for _ in range(steps):
        scheduler.step()
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, folder / "a.pt")
    return str(folder / "a.pt")


def cosine(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)


def pictures(out: str) -> list[str]:
    """Lines that have bars in them."""
    return [line for line in out.splitlines() if BLOCKS & set(line)]


def test_picture_of_the_curve(liontool: Run, tmp_path: Path) -> None:
    """Four lines of bars that fall, with the peak, zero and the first and last step as labels."""
    _, out, _ = liontool("inspect", saved(tmp_path, [0.1], cosine))
    lines = pictures(out)
    assert len(lines) == 4
    assert [len(line) for line in lines] == sorted(len(line) for line in lines)
    assert lines[-1].split()[0] == "0"
    axis = out.splitlines()[out.splitlines().index(lines[-1]) + 1]
    assert axis.split() == ["step", "3", "100"]


def test_groups_of_one_shape_share_a_picture(liontool: Run, tmp_path: Path) -> None:
    """Layerwise rates differ in height alone; the highest group is drawn."""
    _, out, _ = liontool("inspect", saved(tmp_path, [0.1, 0.2, 0.05], cosine))
    assert len(pictures(out)) == 4
    assert "drawn for group 1; the curves of the others have its shape" in out


def test_groups_of_other_shapes_have_a_line_each(liontool: Run, tmp_path: Path) -> None:
    """Where shapes differ each group has a spark line, all to one scale."""

    def swa(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.swa_utils.SWALR(optimizer, [0.0, 0.2], anneal_epochs=50)

    _, out, _ = liontool("inspect", saved(tmp_path, [0.1, 0.1], swa))
    assert [line.split()[0] for line in pictures(out)] == ["0", "1"]
    assert "lr from step 3 to 50" in out


def test_many_shapes(liontool: Run, tmp_path: Path) -> None:
    """Of many groups with their own shapes the first few have lines."""
    targets = [0.01 * i for i in range(12)]

    def swa(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.swa_utils.SWALR(optimizer, targets, anneal_epochs=50)

    _, out, _ = liontool("inspect", saved(tmp_path, [0.1] * 12, swa))
    assert len(pictures(out)) == 8
    assert "and 4 more, all of them with --json" in out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("count", [1, 2, 12, 50])
def test_no_line_is_wider_than_the_terminal(
    count: int, width: int, liontool: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group or 50: every line fits, and no row takes a screen of its own."""
    path = saved(tmp_path, [0.1 * 0.9**i for i in range(count)], cosine)
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = liontool("inspect", path)
    assert max(map(len, out.splitlines()[1:])) <= width
    assert len(out.splitlines()) < 60 + count or width < 80


def test_terminal_without_blocks(
    liontool: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where block characters cannot be printed the picture is drawn with others."""
    monkeypatch.setattr("liontool.cli.render.Page.blocks", False)
    _, out, _ = liontool("inspect", saved(tmp_path, [0.1], cosine))
    assert pictures(out) == []
    assert "####" in out


def group(decay: float, parameters: int = 1) -> GroupSummary:
    return GroupSummary(parameters, 10, ("float32",), 80, {"weight_decay": decay})


def test_few_groups_have_a_row_each() -> None:
    """Up to 12 groups stand for themselves, alike or not."""
    assert [row.label for row in group_rows([group(0.1)] * 3)] == ["0", "1", "2"]


def test_many_groups_that_are_alike_share_a_row() -> None:
    """Of more groups those that are alike are added up."""
    rows = group_rows([group(0.1 * (i % 2)) for i in range(24)] + [group(0.5)] * 6 + [group(3)])
    assert [row.label for row in rows] == ["0,2 ... 22", "1,3 ... 23", "24-29", "30"]
    assert [row.parameters for row in rows] == [12, 12, 6, 1]
    assert [row.elements for row in rows] == [120, 120, 60, 10]
    assert rows[2].bytes == 480


def test_many_rates_are_a_range() -> None:
    """Four rates are listed, more are a range."""
    assert wording.rates([0.1, 0.2, 0.3]) == "0.1, 0.2, 0.3"
    assert wording.rates([0.1, 0.2, 0.3, 0.05, 0.1]) == "0.05 to 0.3"
    assert wording.rates([0.1] * 9) == "0.1"


def test_a_scheduler_that_has_not_begun() -> None:
    """Torch counts from -1 before the first step."""
    assert wording.position(-1, 900) == "not begun"
