"""The demo, cut short: the same files, commands and figures with a tenth of the steps."""

from __future__ import annotations

from math import isfinite

import pytest

from liontool import cli, demo
from liontool.demo import crash, training

STEPS = 10
SWITCH = ["inspect", "convert", "inspect", "convert"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A result, and the commands that were run for it."""
    commands = []

    def command(arguments):
        commands.append(arguments)
        assert cli.main(arguments) == 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "STEPS_BEFORE", 24)  # the chart's mean takes 20
        patch.setattr(training, "STEPS_AFTER", STEPS)
        patch.setattr(crash, "SAVE_EVERY", 2)
        folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
        return demo.run(folder, say=lambda line: None, command=command), commands


def test_all_three_go_on_from_one_checkpoint(finished):
    """AdamW, Lion and LionSF train on, Lions with half the state; the loss does not jump."""
    runs = finished[0].runs
    assert [item.name for item in runs] == ["AdamW", "Lion", "LionSF"]
    for item in runs:
        assert len(item.losses) == STEPS
        assert all(map(isfinite, [*item.losses, item.validation_loss]))
        assert item.losses[0] == pytest.approx(runs[0].losses[0])
    adamw, lion, lion_sf = (item.state_bytes for item in runs)
    assert lion == lion_sf == pytest.approx(adamw / 2, rel=0.01)


def test_the_real_commands_run(finished):
    """Inspect and convert are run as a user would, on files in the folder."""
    result, commands = finished
    assert [words[0] for words in commands] == [*SWITCH, "resume"]
    names = {path.name for path in result.folder.glob("*.ckpt")}
    assert names == {"adamw.ckpt", "adamw.lion.ckpt", "adamw.lion-sf.ckpt"}


def test_the_chart_is_a_png(finished):
    """The losses are drawn where matplotlib is installed."""
    pytest.importorskip("matplotlib")
    assert finished[0].chart.read_bytes().startswith(b"\x89PNG\r\n")


def test_batches_depend_on_the_seed_alone():
    """Every run sees the same text."""
    import torch

    from liontool.demo import corpus

    data = torch.arange(200, dtype=torch.uint8)
    one, same = (corpus.batch(data, 7, sequences=3, length=5) for _ in range(2))
    other = corpus.batch(data, 8, sequences=3, length=5)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.shape == (3, 6)
