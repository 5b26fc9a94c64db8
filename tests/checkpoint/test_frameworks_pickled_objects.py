"""Optimizers and schedulers that were saved as objects: refused, with the lines that help."""

from __future__ import annotations

import re

import pytest

from liontool.checkpoint.frameworks import find
from liontool.errors import LayoutError
from support.fake_source import FakeSource, adamw, cosine, opaque

ADAMW = "torch.optim.adamw.AdamW"
COSINE = "torch.optim.lr_scheduler.CosineAnnealingLR"
LOAD = "torch.load('run.pt', weights_only=False)"


def optimizer():
    return opaque(ADAMW, {"state": {}, "param_groups": [], "defaults": {}})


def scheduler(of=None):
    return opaque(COSINE, {**cosine(1e-3), "optimizer": of or optimizer()})


def refusal(source):
    with pytest.raises(
        LayoutError, match=r"holds a pickled .* instead of its state_dict"
    ) as caught:
        find(source)
    return str(caught.value)


def test_optimizer():
    """The lines save the state dict of the optimizer."""
    text = refusal(FakeSource({"run": opaque("mine.Run", {"opt": optimizer()})}))
    assert f"holds a pickled {ADAMW} object" in text
    assert text.endswith(
        f": optimizer = {LOAD}['run'].opt; torch.save(optimizer.state_dict(), 'run-optimizer.pt')"
    )


def test_scheduler():
    """A scheduler has its optimizer inside, and both are saved."""
    text = refusal(FakeSource({"sched": scheduler()}))
    assert text.endswith(
        f": scheduler = {LOAD}['sched']; torch.save("
        "{'optimizer': scheduler.optimizer.state_dict(), 'scheduler': scheduler.state_dict()}, "
        "'run-scheduler.pt')"
    )


def test_scheduler_beside_a_state_dict():
    """The state dict shares its state with the optimizer in the scheduler: nothing is converted."""
    text = refusal(FakeSource({"optimizer": adamw(), "scheduler": scheduler()}))
    assert text.endswith(
        f": checkpoint = {LOAD}; checkpoint['scheduler'] = checkpoint['scheduler'].state_dict(); "
        "torch.save(checkpoint, 'run-states.pt')"
    )


def test_both():
    """Each object is named once, though the scheduler holds the optimizer too."""
    adam = optimizer()
    text = refusal(FakeSource([adam, scheduler(adam)]))
    assert f"a pickled {ADAMW}, {COSINE} object" in text
    assert text.count(".state_dict(); ") == 2


def test_scheduler_of_another_package():
    """What looks like a scheduler and has an optimizer is one."""
    other = opaque("mine.Warmup", {"last_epoch": 3, "base_lrs": [1e-3], "optimizer": optimizer()})
    assert "checkpoint[1] = checkpoint[1].state_dict()" in refusal(FakeSource([adamw(), other]))


def test_lightning():
    """In a Lightning file the object may be anywhere."""
    tree = {
        "pytorch-lightning_version": "2.6.6",
        "optimizer_states": [adamw()],
        "hyper_parameters": {"optimizer": optimizer()},
    }
    assert "checkpoint['hyper_parameters']['optimizer'] =" in refusal(FakeSource(tree))


@pytest.mark.parametrize(
    ("name", "tree"), [("optimizer.pt", optimizer()), ("scheduler.pt", scheduler())]
)
def test_trainer(name, tree):
    """In a Trainer's folder each file keeps its layout."""
    files = {"optimizer.pt": adamw(), "scheduler.pt": cosine(1e-3), "trainer_state.json": {}}
    text = refusal(FakeSource(files={**files, name: tree}, path="checkpoint-5"))
    assert re.search(r"checkpoint = checkpoint\.state_dict\(\); torch\.save\(checkpoint", text)


def test_chosen_path_does_not_help():
    """The object stays where it is, whatever --optimizer says."""
    source = FakeSource({"optimizer": adamw(), "scheduler": scheduler()})
    with pytest.raises(LayoutError, match="holds a pickled"):
        find(source, None, ["optimizer"])
