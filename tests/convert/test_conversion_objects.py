"""Objects and strangers in the files of a run: what is refused, what stays, and what is said."""

from __future__ import annotations

import argparse

import pytest
import torch

from liontool import convert_checkpoint
from liontool.errors import LayoutError
from support.plain_runs import RATIO, SCHEDULERS, adamw, save


def test_scheduler_object(tmp_path):
    """A scheduler's object shares the state of its optimizer, which torch could not load then."""
    optimizer = adamw()[1]
    value = {"optimizer": optimizer.state_dict(), "scheduler": SCHEDULERS.StepLR(optimizer, 10)}
    path = save(value, tmp_path / "adamw.pt")
    with pytest.raises(
        LayoutError,
        match=r"holds a pickled torch\.optim\.lr_scheduler\.StepLR object.*"
        r"checkpoint\['scheduler'\] = checkpoint\['scheduler'\]\.state_dict\(\)",
    ):
        convert_checkpoint(path, lr_ratio=RATIO)
    assert [path.name for path in tmp_path.iterdir()] == ["adamw.pt"]


@pytest.mark.parametrize("wrap", [dict, argparse.Namespace])
def test_optimizer_class(tmp_path, wrap):
    """The class of an optimizer among the settings is no optimizer."""
    value = {"optimizer": adamw()[1].state_dict(), "settings": wrap(cls=torch.optim.AdamW)}
    report = convert_checkpoint(save(value, tmp_path / "adamw.pt"), lr_ratio=RATIO)
    found = torch.load(report.output, weights_only=False)
    assert found["settings"] == value["settings"]
    assert "torch.optim.adamw.AdamW" in report.script[0]


def test_scheduler_that_nobody_knows(tmp_path):
    """A scheduler without known fields is left, and the notice says so, whoever's it is."""
    state = adamw()[1].state_dict()
    value = {"optimizer": state, "scheduler": {"step": 30, "peak_lr": 1e-3}}
    report = convert_checkpoint(save(value, tmp_path / "one.pt"), lr_ratio=RATIO)
    (notice,) = report.notices
    assert (notice.id, torch.load(report.output)["scheduler"]) == ("scheduler", value["scheduler"])
    assert "scheduler: its class is not known, and peak_lr may hold" in notice.text
    value["other"] = adamw()[1].state_dict()
    report = convert_checkpoint(save(value, tmp_path / "two.pt"), lr_ratio=RATIO)
    assert [notice.id for notice in report.notices] == ["loose-scheduler", "scheduler"]
