"""Plain torch files: optimizers and schedulers found by what they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool.checkpoint.document import Opaque, Place
from liontool.checkpoint.frameworks import Target, plain
from liontool.errors import LayoutError, LimitError
from support.fake_source import FakeSource, adamw, cosine, opaque, tensor


def labels(checkpoint):
    return [optimizer.label for optimizer in checkpoint.optimizers]


def test_bare_state_dict():
    """The whole file is the optimizer; its label is ''."""
    optimizer = plain.find(FakeSource(adamw())).optimizers[0]
    assert (optimizer.label, list(optimizer.slots)) == ("", [0, 1])
    assert optimizer.groups[0].fields.place_of("lr") == Place("", ("param_groups", 0, "lr"))
    assert optimizer.slots[1].state.place_of("step") == Place("", ("state", 1, "step"))


@pytest.mark.parametrize(
    ("tree", "label"),
    [
        pytest.param({"opt": adamw()}, "opt", id="any key"),
        pytest.param({"a": {"b.c": adamw()}}, "a.b.c", id="nested"),
        pytest.param([1, ("x", adamw())], "1.1", id="lists"),
        pytest.param(opaque("user.Bag", {"optim": adamw()}), "user.Bag.optim", id="object"),
    ],
)
def test_found_anywhere(tree, label):
    """An optimizer is recognised by its shape, wherever it is."""
    assert labels(plain.find(FakeSource(tree))) == [label]


@pytest.mark.parametrize(
    "tree",
    [
        pytest.param({"state": {}, "param_groups": []}, id="no group"),
        pytest.param({"state": {}, "param_groups": [{"lr": 1.0}]}, id="group without params"),
        pytest.param({"state": {0: 1.0}, "param_groups": [{"params": [0]}]}, id="state of numbers"),
        pytest.param({"state": "?", "param_groups": [{"params": [0]}]}, id="no state"),
    ],
)
def test_not_an_optimizer(tree):
    """The keys alone do not make an optimizer."""
    with pytest.raises(LayoutError, match=r"looked for .*found the keys 'state', 'param_groups'"):
        plain.find(FakeSource(tree))


def test_several_in_order():
    """All optimizers are found, in the order of the file."""
    tree = {"d": adamw(), "nets": [adamw(), adamw()], "a": adamw()}
    assert labels(plain.find(FakeSource(tree))) == ["d", "nets.0", "nets.1", "a"]


def test_alias_counts_once():
    """One dict under two keys is one optimizer."""
    shared = adamw()
    assert labels(plain.find(FakeSource({"last": shared, "best": shared}))) == ["last"]


def test_cycles_end():
    """A tree that contains itself is walked once."""
    tree = {"optimizer": adamw()}
    tree["self"] = tree
    assert labels(plain.find(FakeSource(tree))) == ["optimizer"]


def test_deep_trees_are_walked():
    """Depth costs no recursion."""
    tree = adamw()
    for _ in range(5000):
        tree = [tree]
    assert len(plain.find(FakeSource(tree)).optimizers) == 1


def test_scheduler_is_paired():
    """The only scheduler of the only optimizer belongs to it."""
    tree = {"optimizer": adamw(initial_lr=1e-3), "sched": cosine(1e-3)}
    checkpoint = plain.find(FakeSource(tree))
    assert [s.label for s in checkpoint.optimizers[0].schedulers] == ["sched"]
    assert checkpoint.loose_schedulers == ()


def test_nested_schedulers():
    """Schedulers under `_schedulers` are children with their own places."""
    sequential = {"last_epoch": 3, "_last_lr": [1e-3], "_schedulers": [cosine(1e-3), cosine(1e-3)]}
    tree = {"optimizer": adamw(initial_lr=1e-3), "s": sequential, "same": sequential["_schedulers"]}
    (scheduler,) = plain.find(FakeSource(tree)).optimizers[0].schedulers
    assert [child.label for child in scheduler.children] == ["s._schedulers.0", "s._schedulers.1"]
    assert scheduler.children[1].fields.place_of("eta_min").path == (
        "s",
        "_schedulers",
        1,
        "eta_min",
    )
    assert "_schedulers" not in scheduler.fields


def test_chained_scheduler():
    """ChainedScheduler keeps no base_lrs and no last_epoch of its own."""
    chained = {"_schedulers": [cosine(1e-3)], "_last_lr": [1e-3]}
    tree = {"optimizer": adamw(initial_lr=1e-3), "s": chained}
    assert len(plain.find(FakeSource(tree)).optimizers[0].schedulers) == 1


def test_schedulers_in_themselves():
    """A scheduler that contains itself is an error, not an endless loop."""
    scheduler = cosine(1e-3)
    scheduler["_schedulers"] = [scheduler]
    with pytest.raises(LimitError, match="nested more than 32 deep"):
        plain.find(FakeSource({"optimizer": adamw(), "s": scheduler}))


def test_scheduler_alone():
    """A scheduler is never converted without its optimizer."""
    with pytest.raises(LayoutError, match=r"a scheduler but no optimizer.*never converted"):
        plain.find(FakeSource({"s": cosine(1e-3)}))


def test_weights_alone():
    """Weights are called by their name."""
    with pytest.raises(LayoutError, match="found 2 tensors by name, as of a model's weights"):
        plain.find(FakeSource({"a": tensor(2), "b": tensor(2)}))


def test_objects_are_told():
    """Classes that torch.load refuses are facts; those that it knows are not."""
    tree = {
        "optimizer": adamw(),
        "args": opaque("argparse.Namespace"),
        "t": opaque("torch.float32"),
    }
    assert plain.find(FakeSource(tree)).facts == {"objects": ("argparse.Namespace",)}


def test_class_is_no_object():
    """The class of an optimizer, named among the settings, is no optimizer."""
    tree = {
        "optimizer": adamw(),
        "settings": {"class": Opaque("torch.optim.adamw.AdamW", (), None)},
    }
    assert labels(plain.find(FakeSource(tree))) == ["optimizer"]


def test_step_of_the_loop():
    """A training loop's own count wins over the optimizer's."""
    checkpoint = plain.find(FakeSource({"optimizer": adamw(), "iter_num": 500, "epoch": 2}))
    assert (checkpoint.step, checkpoint.epoch) == (500, 2.0)


def test_step_of_the_optimizer():
    """Without one, the first parameter's own step is taken."""
    assert plain.find(FakeSource(adamw())).step == 12


def test_param_names():
    """`param_names` name the slots; weights of these names give the shapes, wrapped or not."""
    names = {"param_names": ["w", "b"]}
    tree = {"optimizer": adamw(**names), "model": {"module.w": tensor(3, 4), "module.b": tensor(4)}}
    slots = plain.find(FakeSource(tree)).optimizers[0].slots
    assert [(s.name, s.shape) for s in slots.values()] == [("w", (3, 4)), ("b", (4,))]


def test_names_as_keys():
    """Where parameters are keyed by name, the keys are the names."""
    optimizer = adamw()
    optimizer["state"] = {"w": optimizer["state"][0]}
    optimizer["param_groups"][0]["params"] = ["w"]
    slot = plain.find(FakeSource({"optimizer": optimizer})).optimizers[0].slots["w"]
    assert (slot.name, slot.shape) == ("w", None)


def test_incomplete_weights_give_no_shapes():
    """A mapping that lacks one of the names is not the model's."""
    tree = {"optimizer": adamw(param_names=["w", "b"]), "model": {"w": tensor(3, 4)}}
    assert plain.find(FakeSource(tree)).optimizers[0].slots[0].shape is None


def test_folder_is_not_plain():
    """A folder is for others to recognise."""
    assert plain.find(FakeSource(files={"a.pt": adamw()})) is None


def test_resume_code():
    """The text loads each state from where it lies in the file."""
    tree = {"nets": [adamw(initial_lr=2e-3)], "sched": cosine(2e-3), "args": opaque("a.Namespace")}
    text = plain.resume_code(plain.find(FakeSource(tree)), Target(), Path("run.lion.pt"))
    assert text.splitlines() == [
        "import torch",
        "from liontool.optim import Lion",
        "",
        "# a.Namespace in the file: weights_only=False, for files that you trust",
        "checkpoint = torch.load('run.lion.pt', map_location=\"cpu\", weights_only=False)",
        "optimizer = Lion(model.parameters(), lr=0.002, betas=(0.9, 0.999), weight_decay=0.1)",
        "scheduler = ...  # as before, on this optimizer, before its state is loaded",
        "optimizer.load_state_dict(checkpoint['nets'][0])",
        "scheduler.load_state_dict(checkpoint['sched'])",
    ]


def test_resume_code_for_several():
    """Optimizers and schedulers are counted, each optimizer with parameters of its own."""
    tree = {"g": adamw(initial_lr=2e-3), "d": adamw(initial_lr=1e-3, groups=2)}
    tree |= {"s": cosine(2e-3), "t": cosine(1e-3, 1e-3), "u": cosine(1e-3, 1e-3)}
    text = plain.resume_code(plain.find(FakeSource(tree)), Target(), Path("run.lion.pt"))
    options = "betas=(0.9, 0.999), weight_decay=0.1)"
    before = "= ...  # as before, on this optimizer, before its state is loaded"
    assert text.splitlines()[4:] == [
        f"optimizer = Lion(params, lr=0.002, {options}  # the same parameters as before",
        f"scheduler {before}",
        "optimizer.load_state_dict(checkpoint['g'])",
        "scheduler.load_state_dict(checkpoint['s'])",
        f"optimizer_2 = Lion(param_groups_2, lr=0.001, {options}"
        "  # the same 2 groups in the same order as before",
        f"scheduler_2 {before}",
        f"scheduler_3 {before}",
        "optimizer_2.load_state_dict(checkpoint['d'])",
        "scheduler_2.load_state_dict(checkpoint['t'])",
        "scheduler_3.load_state_dict(checkpoint['u'])",
    ]


def test_resume_code_without_objects():
    """Nothing needs trust where there is nothing but tensors and plain values."""
    text = plain.resume_code(plain.find(FakeSource(adamw())), Target(), Path("run.lion.pt"))
    assert "weights_only" not in text


def test_resume_code_for_constant_lr():
    """LionSF gets no scheduler, and the text says so; several groups are the user's own."""
    checkpoint = plain.find(FakeSource({"o": adamw(groups=2), "s": cosine(1e-3, 1e-3)}))
    text = plain.resume_code(
        checkpoint, Target("from lion_sf import LionSF", constant_lr=True), Path("x.pt")
    )
    assert "LionSF(param_groups, lr=0.001" in text
    assert "the same 2 groups" in text
    assert "scheduler" not in text.rpartition("\n")[0]
    assert text.endswith(
        "# LionSF wants a constant learning rate: leave the scheduler out of the loop"
    )
