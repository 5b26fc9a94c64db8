"""Folders of runs, written through the encoder and the writer of liontool.resume, without Run."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch

from liontool.checkpoint.run_folder.commit import Commit, File
from liontool.checkpoint.run_folder.hashing import hash_of
from liontool.checkpoint.run_folder.layout import COMMIT
from liontool.resume.encoding import encode_state
from liontool.resume.host_copy import HostCopy
from liontool.resume.snapshot import Snapshot
from liontool.resume.writing import write_checkpoint


def class_of(thing) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


class Net(torch.nn.Module):
    """Two layers and a norm, with buffers."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 6)
        self.norm = torch.nn.BatchNorm1d(6)
        self.last = torch.nn.Linear(6, 2, bias=False)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


class Average:
    """An average of the weights, as scripts write it themselves."""

    def __init__(self, model):
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.count = 0

    def update(self, model):
        self.count += 1
        for name, param in model.named_parameters():
            self.weights[name].lerp_(param.detach(), 0.1)

    def state_dict(self):
        return {"weights": self.weights, "count": self.count}

    def load_state_dict(self, state):
        self.weights, self.count = state["weights"], state["count"]


def adamw(model, **options):
    """Two groups, as with and without decay."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, **{"lr": 0.01, "weight_decay": 0.1, **options})


class Script:
    """What a training script has, and `save`, which does what Run does.

    Args:
        seed: Of the weights and the data.
        optimizer: Makes the optimizer of a model.
        scheduler: Makes the scheduler of an optimizer; None for none.
        extras: Whether there is an average, and a second model with its own optimizer.
    """

    def __init__(self, seed=0, optimizer=adamw, scheduler=None, extras=False):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = Net()
        self.optimizer = optimizer(self.model)
        self.scheduler = scheduler and scheduler(self.optimizer)
        self.extras = {}
        if extras:
            self.critic = torch.nn.Linear(2, 1)
            self.extras["critic"] = self.critic
            self.extras["critic_optimizer"] = torch.optim.AdamW(self.critic.parameters(), lr=0.002)
            self.extras["ema"] = Average(self.model)
        self.step = 0

    def train(self, steps):
        for _ in range(steps):
            out = self.model(torch.randn(8, 4))
            loss = out.square().mean()
            if self.extras:
                loss = loss + self.critic(out).mean()
            loss.backward()
            optimizers = [
                self.optimizer,
                *(
                    thing
                    for thing in self.extras.values()
                    if isinstance(thing, torch.optim.Optimizer)
                ),
            ]
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            if self.scheduler:
                self.scheduler.step()
            if "ema" in self.extras:
                self.extras["ema"].update(self.model)
            self.step += 1
        return self

    def state(self):
        parts = {"model": self.model, "optimizer": self.optimizer}
        parts |= {"scheduler": self.scheduler} if self.scheduler else {}
        state = {name: part.state_dict() for name, part in parts.items()}
        state["loader"] = {"position": self.step, "seen": {3: (1, 2)}, "limit": float("inf")}
        state["generators"] = {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "torch": torch.get_rng_state(),
        }
        if self.extras:
            state["extras"] = {name: part.state_dict() for name, part in self.extras.items()}
        return state | {"run": {"step": self.step, "epoch": 1, "drawn": 2, "between": False}}

    def facts(self):
        owners = {"optimizer": (self.optimizer, self.model, "")}
        classes = {"model": class_of(self.model), "optimizer": class_of(self.optimizer)}
        if self.scheduler:
            classes["scheduler"] = class_of(self.scheduler)
        if self.extras:
            classes |= {f"extras.{name}": class_of(part) for name, part in self.extras.items()}
            critic = self.extras["critic_optimizer"], self.critic, "critic."
            owners["extras.critic_optimizer"] = critic
        names = {key: _names(*parts) for key, parts in owners.items()}
        data = {"batches": 10, "samples": 80, "batch_size": 8, "num_workers": 0}
        return {
            "classes": classes, "param_names": names, "config": None, "data": data,
            "versions": {}, "settings": {}, "level": "exact", "reasons": [],
        }  # fmt: skip

    def save(self, run: Path) -> Path:
        """A checkpoint of the run; the folder of it."""
        run.mkdir(parents=True, exist_ok=True)
        encoded = encode_state(self.state())
        copy = HostCopy()
        copy.prepare(encoded.tensors)
        body = copy.take(encoded.tensors)
        return write_checkpoint(run, Snapshot(self.step, 1, None, body, encoded.tree, self.facts()))


def _names(optimizer, model, prefix):
    known = {id(param): prefix + name for name, param in model.named_parameters()}
    return [[known[id(param)] for param in group["params"]] for group in optimizer.param_groups]


def saved_run(folder: Path, *, steps=(20,), **options) -> Path:
    """The folder of a run with a checkpoint after each of `steps`."""
    script = Script(**options)
    for step in steps:
        script.train(step - script.step).save(folder)
    return folder


def resealed(checkpoint: Path) -> Path:
    """A checkpoint with a new COMMIT for whatever its files are now."""
    old = Commit.decoded((checkpoint / COMMIT).read_bytes())
    files = {}
    for path in checkpoint.iterdir():
        if path.name != COMMIT:
            data = path.read_bytes()
            files[path.name] = File(len(data), hash_of(data))
    commit = Commit(old.step, old.epoch, old.metric, old.time, files)
    (checkpoint / COMMIT).write_bytes(commit.encoded())
    return checkpoint


def changed_json(checkpoint: Path, name: str, change) -> Path:
    """A checkpoint of which one JSON file was changed before it was committed."""
    path = checkpoint / name
    tree = json.loads(path.read_text())
    path.write_text(json.dumps(change(tree) or tree))
    return resealed(checkpoint)
