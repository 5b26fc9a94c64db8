"""The folder of a run, converted: a run of its own that `Run` opens under Lion."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from liontool import convert_checkpoint, load_optimizer
from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.choosing import checkpoints
from liontool.checkpoint.run_folder.lock import RunLock
from liontool.errors import (
    DamagedError,
    LoadError,
    OutputExistsError,
    PublishError,
    ResumeError,
)
from liontool.inspect.verify import verify
from liontool.optim import Lion, LionSF
from liontool.resume import Run
from support.run_folders import Net, changed_json, saved_run

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")

RATIO = 3
SCHEDULERS = torch.optim.lr_scheduler
SCHEDULES = {
    "one cycle": lambda o: SCHEDULERS.OneCycleLR(o, [0.01, 0.02], total_steps=100),
    "sequential": lambda o: SCHEDULERS.SequentialLR(
        o, [SCHEDULERS.LinearLR(o), SCHEDULERS.CosineAnnealingLR(o, 50)], [5]
    ),
    "cosine": lambda o: SCHEDULERS.CosineAnnealingLR(o, 50, eta_min=1e-4),
}


class Averaged:
    """An average of the weights that the script keeps itself."""

    def __init__(self, model):
        self.weights = [param.detach().clone() for param in model.parameters()]
        self.history = {0: ("begun", float("inf"))}

    def state_dict(self):
        return {"weights": self.weights, "history": self.history}

    def load_state_dict(self, state):
        self.weights, self.history = state["weights"], state["history"]


class Noisy(torch.utils.data.Dataset):
    """Samples that tell their index."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return torch.full((4,), index / 40)


def groups_of(model):
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]


class Trainer:
    """A script: `run` is its Run."""

    def __init__(self, folder, make_optimizer, schedule=None, steps=100, seed=0, **options):
        torch.manual_seed(seed)
        self.model = Net()
        self.optimizer = make_optimizer(groups_of(self.model))
        self.scheduler = SCHEDULES[schedule](self.optimizer) if schedule else None
        self.loader = StatefulDataLoader(Noisy(), batch_size=4, shuffle=True)
        self.ema = Averaged(self.model)
        self.said = []
        self.run = Run(
            folder, model=self.model, optimizer=self.optimizer, scheduler=self.scheduler,
            loader=self.loader, steps=steps, save_every="1h", say=self.said.append, ema=self.ema,
            **options,
        )  # fmt: skip

    def train(self, steps):
        """So many steps; the batches."""
        batches = []
        while len(batches) < steps:
            for batch in self.run:
                batches.append(batch)
                noise = torch.rand_like(batch) + random.random() + np.random.rand()
                self.model(batch + noise).square().mean().backward()
                self.optimizer.step()
                if self.scheduler:
                    self.scheduler.step()
                self.optimizer.zero_grad()
                self.run.step()
                if len(batches) == steps:
                    break
        return batches


def adamw(groups):
    return torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)


def lion(groups):
    return Lion(groups, lr=1.0)


def trained(folder, schedule=None, steps=13):
    """The folder of an AdamW run, closed in the middle of its second pass."""
    trainer = Trainer(folder, adamw, schedule)
    trainer.train(steps)
    trainer.run.close()
    return trainer


def converted(folder, **options):
    convert_checkpoint(folder, lr_ratio=RATIO, **options)
    return folder.with_name(f"{folder.name}.lion")


@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
def test_run_goes_on_under_lion(tmp_path, schedule):
    """Weights, momentum, step, pass and average are those of the AdamW run; rates are a third."""
    old = trained(tmp_path / "exp", schedule)
    new = Trainer(converted(tmp_path / "exp"), lion, schedule, seed=1)
    assert (new.run.step_count, new.run.epoch, new.run.resumed_from) == (13, 1, 13)
    for mine, theirs in zip(new.model.parameters(), old.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        state = new.optimizer.state[mine]
        assert torch.equal(state["exp_avg"], old.optimizer.state[theirs]["exp_avg"])
        assert "exp_avg_sq" not in state
    for mine, theirs in zip(new.optimizer.param_groups, old.optimizer.param_groups, strict=True):
        assert mine["lr"] == pytest.approx(theirs["lr"] / RATIO, rel=1e-12)
        assert mine["weight_decay"] == pytest.approx(theirs["weight_decay"] * RATIO)
    assert new.ema.history == {0: ("begun", float("inf"))}
    assert all(map(torch.equal, new.ema.weights, old.ema.weights))
    new.train(10)
    new.run.close()
    assert new.run.saved_step == 23


def test_data_and_random_numbers_go_on_where_they_were(tmp_path):
    """The next batches are those that the AdamW run gets, and so are the generators."""
    trained(tmp_path / "exp")
    shutil.copytree(tmp_path / "exp", tmp_path / "control")
    new = Trainer(converted(tmp_path / "exp"), lion, seed=1)
    found, randoms = new.train(12), (random.random(), np.random.rand(), torch.rand(1))
    control = Trainer(tmp_path / "control", adamw, seed=2)
    assert all(map(torch.equal, found, control.train(12)))
    assert randoms == (random.random(), np.random.rand(), torch.rand(1))


@pytest.mark.parametrize("schedule", [None, "one cycle"])
def test_lion_sf_holds_the_rate(tmp_path, schedule):
    """Without the scheduler, which is held constant in the checkpoint and left out of the code."""
    old = trained(tmp_path / "exp", schedule)
    folder = converted(tmp_path / "exp", to="lion-sf")
    new = Trainer(folder, lambda groups: LionSF(groups, lr=1.0), seed=1)
    rates = [group["lr"] for group in new.optimizer.param_groups]
    assert rates == pytest.approx(
        [group["lr"] / RATIO for group in old.optimizer.param_groups], rel=1e-12
    )
    new.train(5)
    assert [group["lr"] for group in new.optimizer.param_groups] == rates


def test_without_a_conversion_run_names_the_command(tmp_path):
    """It is the one that is tested here."""
    trained(tmp_path / "exp")
    with pytest.raises(ResumeError, match=f"liontool convert {tmp_path}/exp --lr-ratio 3"):
        Trainer(tmp_path / "exp", lion)


@pytest.mark.parametrize("to", ["lion", "lion-sf"])
@pytest.mark.parametrize("schedule", [None, "one cycle"])
def test_the_code_that_is_printed_runs(tmp_path, to, schedule):
    """Pasted into a script that has the rest, it resumes."""
    trained(tmp_path / "exp", schedule)
    (script,) = convert_checkpoint(tmp_path / "exp", lr_ratio=RATIO, to=to).script
    torch.manual_seed(1)
    model = Net()
    program = {
        "model": model,
        "param_groups": groups_of(model),
        "loader": StatefulDataLoader(Noisy(), batch_size=4, shuffle=True),
        "ema": Averaged(model),
        "steps": 20,
        "schedule": SCHEDULES.get(schedule),
    }
    exec(script.replace("= ...  #", "= schedule(optimizer)  #"), program)
    run = program["run"]
    assert (run.step_count, type(program["optimizer"]).__name__) == (
        13,
        {"lion": "Lion", "lion-sf": "LionSF"}[to],
    )
    run.close()


def critic_run(folder, make, steps=20):
    """A run whose second model has an optimizer of its own."""
    torch.manual_seed(0)
    model, critic = Net(), torch.nn.Linear(2, 1)
    optimizer, critic_optimizer = make(groups_of(model)), make([*critic.parameters()])
    run = Run(
        folder, model=model, optimizer=optimizer, steps=steps, save_every="1h",
        say=lambda line: None, critic=critic, critic_optimizer=critic_optimizer,
    )  # fmt: skip
    for _ in run:
        critic(model(torch.randn(4, 4))).square().mean().backward()
        for one in (optimizer, critic_optimizer):
            one.step()
            one.zero_grad()
        run.step()
        if run.step_count % 7 == 0:
            break
    run.close()
    return critic_optimizer


def test_an_optimizer_among_the_extras_goes_on_under_lion(tmp_path):
    """With its momentum, and a third of its rate."""
    old = critic_run(tmp_path / "exp", adamw).state_dict()
    new = critic_run(converted(tmp_path / "exp"), lion, steps=7).state_dict()
    assert new["param_groups"][0]["lr"] == pytest.approx(0.01 / RATIO)
    for key, state in old["state"].items():
        assert torch.equal(new["state"][key]["exp_avg"], state["exp_avg"])


def test_auto_finds_a_ratio(tmp_path):
    """From moments and weights, wherever they lie."""
    folder = saved_run(tmp_path / "exp", steps=(120,))
    report = convert_checkpoint(folder, lr_ratio="auto", dry_run=True)
    assert report.optimizers[0].estimate is not None


# --- what is written ----------------------------------------------------------------------------


def test_the_run_is_left_alone(tmp_path):
    """Not a byte of it changes, and nothing is added."""
    folder = saved_run(tmp_path / "exp", steps=(5, 9))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    converted(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_newest_checkpoint_alone_is_converted(tmp_path):
    """Under a COMMIT of its own that lists the record of the conversion."""
    folder = converted(saved_run(tmp_path / "exp", steps=(5, 9)))
    (made,) = folder.iterdir()
    assert made.name == "step-0000000009"
    commit = check(made)
    assert commit.step == 9
    assert "liontool.json" in commit.files
    record = json.loads((made / "liontool.json").read_text())
    assert record["source"] == "exp/step-0000000009"
    facts = json.loads((made / "run.json").read_text())
    assert facts["classes"]["optimizer"] == "liontool.optim.lion.Lion"


def test_conversion_is_proved(tmp_path):
    """By `verify --against`, which looks at the class too."""
    folder = saved_run(tmp_path / "exp", scheduler=SCHEDULES["cosine"], extras=True)
    found = verify(converted(folder), against=folder)
    assert found.proof.proved
    (made,) = checkpoints(tmp_path / "exp.lion")

    def other(facts):
        facts["classes"]["optimizer"] = "torch.optim.sgd.SGD"

    found = verify(changed_json(made, "run.json", other), against=folder)
    assert [one.id for one in found.findings if one.severity == "error"] == ["field-differs"]


def test_every_optimizer_of_the_run_is_converted(tmp_path):
    """Those among the extras too, each with its own class."""
    folder = saved_run(tmp_path / "exp", extras=True)
    report = convert_checkpoint(folder, lr_ratio=RATIO)
    assert [one.label for one in report.optimizers] == ["optimizer", "extras.critic_optimizer"]
    (made,) = checkpoints(tmp_path / "exp.lion")
    classes = json.loads((made / "run.json").read_text())["classes"]
    assert classes["extras.critic_optimizer"] == "liontool.optim.lion.Lion"
    assert classes["extras.critic"] == "torch.nn.modules.linear.Linear"


def test_one_optimizer_can_be_chosen(tmp_path):
    """The other keeps its class and its state."""
    folder = saved_run(tmp_path / "exp", extras=True)
    convert_checkpoint(folder, lr_ratio=RATIO, optimizers=["extras.critic_optimizer"])
    (made,) = checkpoints(tmp_path / "exp.lion")
    classes = json.loads((made / "run.json").read_text())["classes"]
    assert classes["optimizer"] == "torch.optim.adamw.AdamW"
    assert classes["extras.critic_optimizer"] == "liontool.optim.lion.Lion"


def test_a_checkpoint_in_a_run_can_be_named(tmp_path, monkeypatch):
    """The output is beside the run, also from inside of the checkpoint."""
    folder = saved_run(tmp_path / "exp", steps=(5, 9))
    monkeypatch.chdir(folder / "step-0000000005")
    convert_checkpoint(".", lr_ratio=RATIO)
    assert [path.name for path in checkpoints(tmp_path / "exp.lion")] == ["step-0000000005"]


def test_a_checkpoint_by_another_name_is_a_run_of_its_own(tmp_path):
    """It may have been copied out of its run."""
    folder = saved_run(tmp_path / "exp")
    shutil.copytree(folder / "step-0000000020", tmp_path / "copy")
    convert_checkpoint(tmp_path / "copy", lr_ratio=RATIO)
    assert check(tmp_path / "copy.lion" / "step-0000000020").step == 20


def test_output_can_be_named(tmp_path):
    """A folder for a run, or a file for the optimizer's state alone."""
    folder = saved_run(tmp_path / "exp")
    convert_checkpoint(folder, lr_ratio=RATIO, output=tmp_path / "other")
    check(tmp_path / "other" / "step-0000000020")
    convert_checkpoint(folder, lr_ratio=RATIO, output=tmp_path / "state.safetensors")
    assert (tmp_path / "state.safetensors").is_file()


@pytest.mark.parametrize("where", ["exp", "exp/step-0000000021", "exp/quarantine/x"])
def test_no_output_in_the_run_itself(tmp_path, where):
    """A start would take it for a checkpoint."""
    folder = saved_run(tmp_path / "exp")
    with pytest.raises(PublishError, match=r"is the source itself|lies inside the source"):
        convert_checkpoint(folder / "step-0000000020", lr_ratio=RATIO, output=tmp_path / where)


def test_state_alone_is_loaded_by_name(tmp_path):
    """`load_optimizer` takes the folder of a run, and gives each state to the right parameter."""
    old = trained(tmp_path / "exp")
    folder = converted(tmp_path / "exp")
    model = Net()
    optimizer = lion(reversed(list(model.parameters())))
    with pytest.raises(LoadError, match="group"):
        load_optimizer(folder, optimizer, model)
    optimizer = lion(groups_of(model))
    load_optimizer(folder, optimizer, model)
    for mine, theirs in zip(model.parameters(), old.model.parameters(), strict=True):
        assert torch.equal(optimizer.state[mine]["exp_avg"], old.optimizer.state[theirs]["exp_avg"])


# --- which checkpoint ---------------------------------------------------------------------------


def flip(path):
    """One bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_newest_good_checkpoint_is_taken(tmp_path):
    """Every byte is compared; the report names what was passed over, and why."""
    folder = saved_run(tmp_path / "exp", steps=(5, 9))
    flip(folder / "step-0000000009" / "state-0.safetensors")
    report = convert_checkpoint(folder, lr_ratio=RATIO)
    assert [path.name for path in checkpoints(tmp_path / "exp.lion")] == ["step-0000000005"]
    (notice,) = (one for one in report.notices if one.id == "passed-over")
    assert notice.text.startswith("step-0000000009: state-0.safetensors is damaged")
    assert "step-0000000005 is converted in its place" in notice.text


def test_hidden_files_stay_behind(tmp_path):
    """What a file browser left in a checkpoint is not converted, and COMMIT fits without it."""
    run = saved_run(tmp_path / "exp1")
    (checkpoints(run)[0] / ".DS_Store").write_bytes(b"\0")
    (new,) = checkpoints(converted(run))
    check(new)
    assert not (new / ".DS_Store").exists()


def test_a_damaged_checkpoint_that_is_named_is_refused(tmp_path):
    """Nothing is taken in its place, and nothing is written."""
    folder = saved_run(tmp_path / "exp", steps=(5, 9))
    flip(folder / "step-0000000009" / "run.json")
    with pytest.raises(DamagedError, match=r"step-0000000009: run\.json is damaged"):
        convert_checkpoint(folder / "step-0000000009", lr_ratio=RATIO)
    assert not (tmp_path / "exp.lion").exists()


def test_a_run_without_a_good_checkpoint_is_refused(tmp_path):
    """The line says what is wrong with each."""
    folder = saved_run(tmp_path / "exp")
    flip(folder / "step-0000000020" / "COMMIT")
    with pytest.raises(ResumeError, match="no checkpoint in it is good"):
        convert_checkpoint(folder, lr_ratio=RATIO)


def test_force_replaces_what_a_conversion_wrote(tmp_path):
    """And nothing that was trained since."""
    folder = saved_run(tmp_path / "exp")
    converted(folder)
    with pytest.raises(OutputExistsError, match="is there already"):
        converted(folder)
    converted(folder, force=True)
    trainer = saved_run(tmp_path / "exp.lion", steps=(30,))
    with pytest.raises(OutputExistsError, match="step-0000000030: is the folder of a run"):
        converted(folder, force=True)
    assert len(checkpoints(trainer)) == 2


def test_force_takes_no_folder_away_from_a_run(tmp_path):
    """One that goes on from the conversion has not saved yet."""
    folder = saved_run(tmp_path / "exp")
    converted(folder)
    lock = RunLock()
    lock.acquire(tmp_path / "exp.lion")
    try:
        with pytest.raises(OutputExistsError, match=r"process \d+ .* trains in it"):
            converted(folder, force=True)
    finally:
        lock.release()
    converted(folder, force=True)


def test_dry_run_writes_nothing(tmp_path):
    """And says what it would."""
    folder = saved_run(tmp_path / "exp")
    report = convert_checkpoint(folder, lr_ratio=RATIO, dry_run=True)
    assert report.output == str(tmp_path / "exp.lion")
    assert [path.name for path in tmp_path.iterdir()] == ["exp"]
