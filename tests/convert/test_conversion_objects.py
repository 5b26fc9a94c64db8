"""Objects in the files of a run: what is refused, what stays, and what is said of it."""

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
