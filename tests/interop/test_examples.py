"""Each file in examples/ runs as a user runs it, and what it prints is so."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from liontool.optim import Lion

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "examples.md"

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2")
COMMANDS = {
    "plain_loop": (),
    "hot_resume": (),
    "grad_scaler": (),
    "step_in_backward": (),
    "fsdp2": TORCHRUN,
    "hf_trainer": (),
    "lightning_module": (),
    "accelerate_loop": (),
}
NEEDS = {
    "hot_resume": "torchdata",
    "hf_trainer": "transformers",
    "lightning_module": "lightning",
    "accelerate_loop": "accelerate",
}
ALSO = {
    "plain_loop": [r"Lion, cosine schedule: loss ", r"LionSF, constant lr: loss "],
    "grad_scaler": [
        r"step 40 skipped at loss scale \d+, the same weights: True",
        r"steps counted: 119 of 120",
    ],
    "step_in_backward": [r"gradients alive at once: 1 of 6"],
    "fsdp2": [r"momentum \(64, 16\), of it here \(32, 16\)"],
}


def cases() -> list[object]:
    """Those that need a framework are marked so, and skipped where it is not installed."""
    return [
        pytest.param(name, marks=framework_marks(NEEDS[name]) if name in NEEDS else ())
        for name in COMMANDS
    ]


def framework_marks(package: str) -> tuple[pytest.MarkDecorator, ...]:
    missing = find_spec(package) is None
    return pytest.mark.interop, pytest.mark.skipif(missing, reason=f"{package} is not installed")


def run(name: str, folder: Path) -> str:
    """What the example prints, started in an empty folder, where it leaves nothing."""
    here, temporary = folder / "here", folder / "temporary"
    here.mkdir()
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, *COMMANDS[name], str(EXAMPLES / f"{name}.py")],
        cwd=here,
        env={**os.environ, "TMPDIR": str(temporary), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not any(here.iterdir())
    return done.stdout


@pytest.mark.parametrize("name", cases())
def test_example(name, tmp_path):
    """The loss goes down to a half or less, the resumed run is the uninterrupted one."""
    printed = run(name, tmp_path)
    losses = re.findall(r"loss (\d+\.\d{4}) -> (\d+\.\d{4})$", printed, re.MULTILINE)
    assert losses
    assert all(float(after) < float(before) / 2 for before, after in losses)
    assert re.search(r"^resumed [a-z ]+ \d+, the same weights: True$", printed, re.MULTILINE)
    for line in ALSO.get(name, []):
        assert re.search(f"^{line}", printed, re.MULTILINE), printed


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulation_steps": 2}, {"clipnorm": 0.01}],
    ids=["plain", "accumulation", "clipnorm"],
)
def test_step_in_backward_equals_one_lion(options, monkeypatch):
    """Stepping inside backward gives the bits of one Lion over all parameters."""
    example = runpy.run_path(str(EXAMPLES / "step_in_backward.py"))
    lion = partial(Lion, **options)
    monkeypatch.setitem(example["step_in_backward"].__globals__, "Lion", lion)
    steps = 10
    inside = example["network"]()
    example["train"](inside, example["step_in_backward"](inside), range(steps))

    plain = example["network"]()
    matrices = [param for param in plain.parameters() if param.ndim >= 2]
    vectors = [param for param in plain.parameters() if param.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = lion(groups, lr=example["LR"], weight_decay=example["WEIGHT_DECAY"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=example["STEPS"])
    for step in range(steps):
        optimizer.zero_grad()
        example["loss_at"](plain, step).backward()
        optimizer.step()
        schedule.step()
    assert all(map(torch.equal, inside.parameters(), plain.parameters()))


def test_every_example_is_run_and_shown():
    """No file in examples/ is left out here, or on its page."""
    names = {path.stem for path in EXAMPLES.iterdir() if path.suffix == ".py"}
    shown = re.findall(r"^```\{literalinclude\} \.\./examples/(\w+)\.py$", PAGE.read_text(), re.M)
    assert names == set(COMMANDS)
    assert sorted(shown) == sorted(names)


@pytest.mark.parametrize("name", COMMANDS)
def test_example_says_how_it_is_run(name):
    """The docstring has the command, for torchrun by that name."""
    command = "torchrun --nproc-per-node 2" if COMMANDS[name] == TORCHRUN else "python"
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert f"\n    {command} examples/{name}.py\n" in text
