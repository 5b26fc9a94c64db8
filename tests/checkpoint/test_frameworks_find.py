"""Choosing the framework, and the optimizer by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool.checkpoint.frameworks import FRAMEWORKS, find, named
from liontool.errors import AmbiguousError, LayoutError
from support.fake_source import FakeSource, adamw, cosine

LIGHTNING = {
    "pytorch-lightning_version": "2.6.6",
    "optimizer_states": [adamw(initial_lr=1e-3)],
    "lr_schedulers": [cosine(1e-3)],
    "ema": adamw(lr=7.0),
}


def labels(checkpoint):
    return [optimizer.label for optimizer in checkpoint.optimizers]


def test_found_by_content():
    """Each file goes to the lens that knows it."""
    assert find(FakeSource(LIGHTNING))[0].name == "lightning"
    assert find(FakeSource(adamw()))[0].name == "plain"


def test_forced():
    """A named framework is the only one asked."""
    framework, checkpoint = find(FakeSource(LIGHTNING), "plain")
    assert framework.name == "plain"
    assert labels(checkpoint) == ["optimizer_states.0", "ema"]


def test_forced_in_vain():
    """The error says what was looked for, what was found, and that the choice may be left out."""
    found = "found the keys 'state', 'param_groups'; leave --framework out$"
    with pytest.raises(LayoutError, match=rf"looked for a folder with optimizer\.pt.*{found}"):
        find(FakeSource(adamw()), "hf-trainer")
    with pytest.raises(LayoutError, match=rf"looked for a file with 'pytorch-light.*{found}"):
        find(FakeSource(adamw()), "lightning")


def test_unknown_name():
    """The error lists the names."""
    with pytest.raises(LayoutError, match="unknown framework 'megatron'; choose from: hf-trainer"):
        named("megatron")


def test_names_are_unique():
    """Each framework has a name of its own."""
    assert len({framework.name for framework in FRAMEWORKS}) == len(FRAMEWORKS)


def test_folder_of_nothing():
    """A folder without checkpoints says what it holds."""
    with pytest.raises(LayoutError, match=r"looked for .*; found a folder with x\.txt"):
        find(FakeSource(files={"x.txt": 0}))


def test_chosen_optimizer():
    """Only the chosen optimizer comes along, with its schedulers only."""
    source = FakeSource(
        {"g": adamw(lr=1.0, initial_lr=1.0), "d": adamw(initial_lr=1e-3), "s": cosine(1e-3)}
    )
    _, checkpoint = find(source, None, ["g"])
    assert (labels(checkpoint), checkpoint.loose_schedulers) == (["g"], ())


def test_chosen_outside_of_the_layout():
    """A path may lead to an optimizer that the framework does not keep itself."""
    _, checkpoint = find(FakeSource(LIGHTNING), None, ["ema"])
    assert labels(checkpoint) == ["ema"]
    assert checkpoint.optimizers[0].groups[0].fields["lr"] == 7.0


def test_chosen_where_the_framework_finds_none():
    """A path helps where the layout is not the usual one."""
    _, checkpoint = find(FakeSource({**LIGHTNING, "optimizer_states": []}), None, ["ema"])
    assert labels(checkpoint) == ["ema"]


def test_chosen_by_another_path():
    """An alias leads to the same optimizer, with its schedulers."""
    shared = adamw(initial_lr=1e-3)
    source = FakeSource({"last": shared, "best": shared, "s": cosine(1e-3)})
    _, checkpoint = find(source, None, ["best", "last"])
    assert labels(checkpoint) == ["last"]
    assert len(checkpoint.optimizers[0].schedulers) == 1


def test_chosen_with_the_schedulers_of_the_framework():
    """Where only a path tells of the optimizer, the framework's schedulers still go with it."""
    tree = {**LIGHTNING, "optimizer_states": [], "mine": adamw(initial_lr=1e-3)}
    framework, checkpoint = find(FakeSource(tree), None, ["mine"])
    assert framework.name == "lightning"
    assert [s.label for s in checkpoint.optimizers[0].schedulers] == ["lr_schedulers.0"]


def test_chosen_in_a_folder():
    """In a folder, a path begins with the file."""
    every = {"optimizer.pt": {"a.b": adamw()}, "scheduler.pt": {}, "trainer_state.json": {}}
    source = FakeSource(files=every, path="checkpoint-5")
    assert labels(find(source, None, ["optimizer.pt.a.b"])[1]) == ["optimizer.pt.a.b"]


@pytest.mark.parametrize(
    ("path", "found"), [("nowhere", "leads nowhere"), ("s", "leads to the keys 'T_max'")]
)
def test_chosen_in_vain(path, found):
    """The error says what is there, and which optimizers there are."""
    with pytest.raises(LayoutError, match=f"--optimizer {path} {found}.*optimizers found: o"):
        find(FakeSource({"o": adamw(), "s": cosine(1e-3)}), None, [path])


def test_chosen_among_checkpoints():
    """A path does not choose between checkpoints."""
    with pytest.raises(AmbiguousError, match="the folder of a run"):
        find(FakeSource(files={"checkpoint-5/optimizer.pt": 0}, path="run"), None, ["x"])


def test_output_names():
    """The word goes before the ending."""
    sources = ("adamw.ckpt", "last.pth.tar", "run", "s.safetensors.index.json")
    names = [named("plain").output_name(Path(name)) for name in sources]
    assert names == ["adamw.lion.ckpt", "last.lion.pth.tar", "run.lion", "s.lion.safetensors"]
