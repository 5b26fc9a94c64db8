"""Lightning's `.ckpt`."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool.checkpoint.frameworks import Target, lightning
from liontool.errors import LayoutError
from support.fake_source import FakeSource, adamw, cosine, opaque, tensor


def ckpt(**extra):
    return {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {"net.w": tensor(3, 4), "net.b": tensor(4)},
        "optimizer_states": [adamw(initial_lr=1e-3)],
        "lr_schedulers": [cosine(1e-3)],
        **extra,
    }


def test_found():
    """Optimizers, schedulers, step and version come from their own keys."""
    checkpoint = lightning.find(FakeSource(ckpt()))
    (optimizer,) = checkpoint.optimizers
    assert (optimizer.label, optimizer.schedulers[0].label) == (
        "optimizer_states.0",
        "lr_schedulers.0",
    )
    assert (checkpoint.step, checkpoint.epoch) == (12, 3.0)
    assert checkpoint.facts == {"lightning version": "2.6.6"}


def test_look_alikes_elsewhere_stay():
    """An optimizer's state among the callbacks is the user's own business."""
    checkpoint = lightning.find(FakeSource(ckpt(callbacks={"mine": adamw()})))
    assert len(checkpoint.optimizers) == 1


def test_alias_before_the_list():
    """The list is asked first, even where the same dict also lies under an earlier key."""
    tree = ckpt()
    assert lightning.find(FakeSource({"a": tree["optimizer_states"], **tree})).optimizers


def test_names_and_shapes():
    """A module's `param_names` are found in `state_dict` behind the attribute's prefix."""
    tree = ckpt(optimizer_states=[adamw(param_names=["w", "b"])])
    slots = lightning.find(FakeSource(tree)).optimizers[0].slots
    assert [slot.shape for slot in slots.values()] == [(3, 4), (4,)]


@pytest.mark.parametrize("source", [FakeSource({"optimizer": adamw()}), FakeSource(files={})])
def test_others(source):
    """Files of others and folders are not Lightning's."""
    assert lightning.find(source) is None


@pytest.mark.parametrize(("states", "why"), [(None, "is missing"), ([], "is empty")])
def test_weights_only(states, why):
    """A file of weights is refused with the reason."""
    tree = ckpt(optimizer_states=states)
    if states is None:
        del tree["optimizer_states"]
    with pytest.raises(LayoutError, match=f"'optimizer_states' {why}.*save_weights_only"):
        lightning.find(FakeSource(tree))


def test_resume_code():
    """The text has configure_optimizers and fit."""
    text = lightning.resume_code(
        lightning.find(FakeSource(ckpt())), Target(), Path("adamw.lion.ckpt")
    )
    assert "def configure_optimizers(self):" in text
    assert "    optimizer = Lion(self.parameters(), lr=0.001, betas=(0.9, 0.999)" in text
    assert text.endswith("trainer.fit(model, ckpt_path='adamw.lion.ckpt')")


def test_resume_code_with_objects():
    """A class among the hyperparameters needs weights_only=False, and is named."""
    tree = ckpt(hyper_parameters={"config": opaque("mine.Config", {"width": 3})})
    text = lightning.resume_code(lightning.find(FakeSource(tree)), Target(), Path("x.ckpt"))
    assert "# mine.Config in the file" in text
    assert "trainer.fit(model, ckpt_path='x.ckpt', weights_only=False)" in text


def test_resume_code_for_constant_lr():
    """LionSF is returned without a scheduler."""
    target = Target("from liontool.optim import LionSF", constant_lr=True)
    text = lightning.resume_code(lightning.find(FakeSource(ckpt())), target, Path("x.ckpt"))
    assert "    ...  # return it alone, without a scheduler\n" in text
    assert text.endswith("constant learning rate: configure_optimizers returns no scheduler")
    assert "as before" not in text


@pytest.mark.parametrize(
    ("constant", "how"),
    [(False, "with the same schedulers as before"), (True, "alone, without a scheduler")],
)
def test_resume_code_for_several(constant, how):
    """Each optimizer has parameters of its own."""
    tree = ckpt(optimizer_states=[adamw(), adamw(groups=2), adamw()], lr_schedulers=[])
    target = Target(constant_lr=constant)
    text = lightning.resume_code(lightning.find(FakeSource(tree)), target, Path("x.ckpt"))
    assert "    optimizer = Lion(params, lr=" in text
    assert "    optimizer_2 = Lion(param_groups_2, lr=" in text
    assert "    optimizer_3 = Lion(params_3, lr=" in text
    assert text.count("  # the same parameters as before\n") == 2
    assert f"    ...  # return them {how}\n" in text
