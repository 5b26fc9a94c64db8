"""Folders that are no checkpoint: what is in them that may be one."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool.checkpoint.frameworks import find
from liontool.checkpoint.frameworks.folders import argument
from liontool.errors import AmbiguousError, LayoutError
from support.fake_source import FakeSource


def refusal(*files, path="my runs"):
    with pytest.raises(AmbiguousError) as caught:
        find(FakeSource(files=dict.fromkeys(files, 0), path=path))
    return str(caught.value)


def trainer(folder):
    names = ("optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json")
    return [f"{folder}/{name}" for name in names]


def test_runs():
    """Runs are named by their folders, not by the checkpoints in them; those converted are not."""
    files = [f"{run}/step-0000000040/{name}" for run in ("a", "b", "a.lion") for name in (
        "COMMIT", "run.json", "state-0.json", "state-0.safetensors"
    )]  # fmt: skip
    assert refusal(*files) == (
        "my runs: is a folder of runs, newest first: b, a; name one, such as 'my runs/b'"
    )


def test_files():
    """Files that may be checkpoints are listed, newest first."""
    assert refusal("a.ckpt", "b.ckpt", "x.txt") == (
        "my runs: is a folder of files, 2 of which may be checkpoints, newest first: "
        "b.ckpt, a.ckpt; name one, such as 'my runs/b.ckpt'"
    )


def test_folders_of_trainer():
    """Checkpoint folders go before files, newest first; converted and unfinished ones are left."""
    files = [*trainer("a/checkpoint-40"), *trainer("b/checkpoint-40"), "c.pt"]
    files += [*trainer("b/lion-checkpoint-40"), "d/checkpoint-50/optimizer.pt"]
    assert refusal(*files, path="runs") == (
        "runs: is a folder of runs; its checkpoints, newest first: "
        "b/checkpoint-40, a/checkpoint-40; name one, such as runs/b/checkpoint-40"
    )


@pytest.mark.parametrize(
    "name",
    [
        "rng_state.pth", "rng_state_0.pth", "random_states_0.pkl.pt", "scheduler.bin",
        "training_args.bin", "model.safetensors", "model_1.safetensors", "pytorch_model.bin",
        "model.safetensors.index.json", "x-00001-of-00002.safetensors", "a.lion.pt",
        "lion-checkpoint-5/optimizer.pt", "config.json",
    ],
)  # fmt: skip
def test_files_without_an_optimizer(name):
    """Random states, schedulers, settings, weights, shards and our own outputs are left out."""
    name = f"sub/{name}"
    assert "one of which may be a checkpoint: a.pt; name it: 'my runs/a.pt'" in refusal(
        "a.pt", name
    )
    with pytest.raises(LayoutError, match="found a folder with "):
        find(FakeSource(files={name: 0}))


@pytest.mark.parametrize("name", ["model_last.pt", "state.safetensors.index.json", "optimizer.bin"])
def test_files_that_may_have_one(name):
    """Training loops call their files as they like, and an index stands for its shards."""
    assert f"one of which may be a checkpoint: {name};" in refusal(name)


def test_many():
    """The newest ten are shown."""
    text = refusal(*(f"{i:02}.pt" for i in range(12)))
    assert "12 of which" in text
    assert "03.pt, 02.pt, ...; name one" in text


@pytest.mark.parametrize(
    ("path", "text"), [("a b.pt", "'a b.pt'"), ("-x.pt", "./-x.pt"), ("a/-x.pt", "a/-x.pt")]
)
def test_argument(path, text):
    """A path that would be taken for an option gets a dot before it."""
    assert argument(Path(path)) == text
