"""Checkpoint folders of transformers.Trainer."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool.checkpoint.frameworks import Target, hf_trainer
from liontool.errors import AmbiguousError, FormatError, LayoutError, ReadError, UnfinishedError
from support.fake_source import FakeSource, adamw, opaque

LAMBDA = {"base_lrs": [1e-3] * 2, "last_epoch": 6, "_last_lr": [5e-4] * 2, "lr_lambdas": [{}, {}]}


def decaying():
    """Trainer's two groups, with and without weight decay."""
    optimizer = adamw(groups=2, initial_lr=1e-3, lr=5e-4)
    optimizer["param_groups"][1]["weight_decay"] = 0.0
    return optimizer


def files(**changes):
    """A finished checkpoint; None takes a file away."""
    arguments = opaque(
        "transformers.training_args.TrainingArguments",
        {
            "learning_rate": 1e-3,
            "optim": opaque("transformers.training_args.OptimizerNames", (), ("adamw_torch",)),
            "lr_scheduler_kwargs": {"min_lr": 1e-4},
            "output_dir": "run",
        },
    )
    every = {
        "optimizer": decaying(),
        "scheduler": LAMBDA,
        "trainer_state": {"global_step": 6, "epoch": 1.5, "log_history": []},
        "training_args": arguments,
        **changes,
    }
    names = {
        "optimizer": "optimizer.pt",
        "scheduler": "scheduler.pt",
        "trainer_state": "trainer_state.json",
        "training_args": "training_args.bin",
    }
    return {names[key]: tree for key, tree in every.items() if tree is not None}


def folder(path="run/checkpoint-6", **changes):
    return FakeSource(files=files(**changes), path=path)


def test_found():
    """Optimizer and scheduler come from their files, the step from the trainer's state."""
    checkpoint = hf_trainer.find(folder())
    (optimizer,) = checkpoint.optimizers
    assert (optimizer.label, optimizer.schedulers[0].label) == ("optimizer.pt", "scheduler.pt")
    assert optimizer.groups[1].fields.place.document == "optimizer.pt"
    assert (checkpoint.step, checkpoint.epoch) == (6, 1.5)


def test_arguments_are_read():
    """Of the arguments, those about the learning rate are facts; enum members show their value."""
    assert hf_trainer.find(folder()).facts == {
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "lr_scheduler_kwargs": {"min_lr": 1e-4},
    }


def test_damaged_arguments_are_no_obstacle():
    """training_args.bin only informs."""
    checkpoint = hf_trainer.find(folder(training_args=ReadError("damaged")))
    assert checkpoint.facts == {"training_args.bin": "cannot be read: damaged"}


def test_without_arguments():
    """A folder without training_args.bin has no such facts."""
    assert hf_trainer.find(folder(training_args=None)).facts == {}


@pytest.mark.parametrize(
    "source",
    [
        FakeSource(adamw()),
        FakeSource(files={"optimizer.pt": adamw()}, path="mine"),
        FakeSource(files={"model.pt": 1, "readme": 2}, path="mine"),
    ],
    ids=["file", "optimizer.pt alone", "other files"],
)
def test_others(source):
    """Files, and folders that only look a little alike, are not Trainer's."""
    assert hf_trainer.find(source) is None


@pytest.mark.parametrize("missing", [{}, {"scheduler": None}, {"training_args": None}])
def test_unfinished(missing):
    """Without trainer_state.json, which is written last, the folder is unfinished."""
    with pytest.raises(UnfinishedError, match=r"has no trainer_state\.json.*unfinished"):
        hf_trainer.find(folder(trainer_state=None, **missing))


def test_scheduler_without_optimizer():
    """A scheduler is never converted without its optimizer."""
    with pytest.raises(LayoutError, match=r"has no optimizer\.pt.*never converted without"):
        hf_trainer.find(folder(optimizer=None))


def test_model_only():
    """A folder of weights is refused with the reason and what is there."""
    with pytest.raises(LayoutError, match=r"save_only_model=True.*Found: trainer_state\.json"):
        hf_trainer.find(folder(optimizer=None, scheduler=None, training_args=None))


def test_optimizer_without_scheduler():
    """Trainer would load no optimizer at all."""
    with pytest.raises(LayoutError, match=r"no scheduler\.pt, and Trainer loads neither"):
        hf_trainer.find(folder(scheduler=None))


def test_optimizer_of_another_shape():
    """An optimizer.pt that holds no optimizer is named."""
    with pytest.raises(
        LayoutError, match=r"optimizer\.pt: holds nothing that optimizer\.state_dict"
    ):
        hf_trainer.find(folder(optimizer={"state": {}}))


def test_state_of_another_shape():
    """trainer_state.json must be an object."""
    with pytest.raises(FormatError, match=r"trainer_state\.json: is not a JSON object"):
        hf_trainer.find(folder(trainer_state=[1]))


def test_folder_of_checkpoints():
    """Several checkpoints are listed, newest first, with the command for the newest finished."""
    every = {f"checkpoint-{step}/{name}": 0 for step in (5, 10, 20) for name in files()}
    del every["checkpoint-20/trainer_state.json"]
    with pytest.raises(
        AmbiguousError,
        match=r"the folder of a run; its checkpoints, newest first: checkpoint-20 \(unfinished\), "
        r"checkpoint-10, checkpoint-5; name one, such as run/checkpoint-10$",
    ):
        hf_trainer.find(FakeSource(files={**every, "trainer_state.json": {}}, path="run"))


def test_long_list_is_cut():
    """The error stays readable."""
    every = {f"checkpoint-{step}/trainer_state.json": 0 for step in range(1, 31)}
    with pytest.raises(AmbiguousError, match=r"checkpoint-30, .*checkpoint-21, \.\.\.; name one"):
        hf_trainer.find(FakeSource(files=every, path="run"))


def test_output_name():
    """The default name is out of reach of the rotation."""
    name = hf_trainer.output_name(Path("run/checkpoint-500"))
    assert name == "lion-checkpoint-500"
    assert hf_trainer.output_warning(Path("run") / name) is None


def test_output_warning():
    """A name that the rotation would delete is warned of."""
    assert "save_total_limit" in hf_trainer.output_warning(Path("run/checkpoint-500-lion"))


def test_resume_code():
    """Trainer's own two groups: it makes them itself, from the class and its arguments."""
    text = hf_trainer.resume_code(hf_trainer.find(folder()), Target(), Path("lion-checkpoint-6"))
    assert (
        "optimizer_cls_and_kwargs=(Lion, "
        '{"lr": args.learning_rate, "betas": (0.9, 0.999), "weight_decay": 0.1}),'
    ) in text
    assert "trainer.train(resume_from_checkpoint='lion-checkpoint-6')" in text
    assert "leave learning_rate and" in text


def test_resume_code_for_other_groups():
    """Groups that Trainer would not make are the user's own."""
    checkpoint = hf_trainer.find(folder(optimizer=adamw(groups=1), scheduler=LAMBDA))
    text = hf_trainer.resume_code(checkpoint, Target(), Path("x"))
    assert "optimizers=(optimizer, None)" in text


@pytest.mark.parametrize(
    ("changes", "trainers"),
    [
        ([{}, {}], True),
        ([{"weight_decay": 0.0}, {}], True),
        ([{}, {"weight_decay": 0.1}], False),
        ([{"weight_decay": 0.0}, {"weight_decay": 0.1}], False),
        ([{}, {"initial_lr": 1e-4}], False),
    ],
)
def test_resume_code_for_two_groups(changes, trainers):
    """Trainer's own have one learning rate, and no weight decay in the second."""
    optimizer = decaying()
    for group, change in zip(optimizer["param_groups"], changes, strict=True):
        group.update(change)
    checkpoint = hf_trainer.find(folder(optimizer=optimizer))
    text = hf_trainer.resume_code(checkpoint, Target(), Path("x"))
    assert ("optimizer_cls_and_kwargs=" in text) == trainers
    assert ("Lion(param_groups, " in text) != trainers


def test_resume_code_for_constant_lr():
    """LionSF needs the constant schedule."""
    target = Target("from liontool.optim import LionSF", constant_lr=True)
    text = hf_trainer.resume_code(hf_trainer.find(folder()), target, Path("x"))
    assert text.endswith('TrainingArguments(lr_scheduler_type="constant", ...)')


def test_resume_code_for_constant_lr_without_lambda():
    """Trainer's constant schedule could not load the state of another class."""
    plateau = {"best": 1.0, "patience": 3, "min_lrs": [0.0] * 2, "eps": 1e-8, "factor": 1.0}
    checkpoint = hf_trainer.find(folder(scheduler={**plateau, "_last_lr": [5e-4] * 2}))
    target = Target("from liontool.optim import LionSF", constant_lr=True)
    text = hf_trainer.resume_code(checkpoint, target, Path("x"))
    assert text.endswith("leave lr_scheduler_type as it is, the checkpoint holds the rate")
    assert '"constant"' not in text


def test_resume_code_with_an_argument():
    """Where the constructor has to know the highest lr, it is told that and not args'."""
    argument = "decoupled_weight_decay=True"
    target = Target("from lion_pytorch import Lion", argument=argument, highest_lrs=(0.00025,))
    text = hf_trainer.resume_code(hf_trainer.find(folder()), target, Path("x"))
    assert (
        '(Lion, {"lr": 0.00025, "betas": (0.9, 0.999), "weight_decay": 0.1, '
        '"decoupled_weight_decay": True}),'
    ) in text
