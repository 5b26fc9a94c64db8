"""`summarise`: what it finds in checkpoints of every shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from liontool.errors import LayoutError, ReadError
from liontool.inspect import Summary, summarise
from liontool.inspect.tensors import list_tensors


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    """Some steps on random input; parameters beyond `model.used` get no gradient."""
    torch.manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()


@pytest.fixture
def model() -> torch.nn.Sequential:
    """30 elements in four parameters."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))


@pytest.fixture
def adamw(model: torch.nn.Sequential) -> torch.optim.AdamW:
    """Two groups, decayed and not, after three steps."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, weight_decay=0.1)
    train(model, optimizer)
    return optimizer


def saved(path: Path, **parts: Any) -> Path:
    """A plain training script's checkpoint."""
    torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    return path


def test_groups(model: torch.nn.Module, adamw: torch.optim.AdamW, tmp_path: Path) -> None:
    """Each group has its sizes, its hyperparameters and the element type of its moments."""
    summary = summarise(saved(tmp_path / "a.pt", model=model, optimizer=adamw))
    (optimizer,) = summary.optimizers
    assert (optimizer.kind, optimizer.label) == ("AdamW", "optimizer")
    assert [group.parameters for group in optimizer.groups] == [2, 2]
    assert [group.elements for group in optimizer.groups] == [24, 6]
    assert [group.dtypes for group in optimizer.groups] == [("float32",)] * 2
    assert [group.fields["weight_decay"] for group in optimizer.groups] == [0.1, 0.0]
    assert optimizer.groups[0].fields["betas"] == (0.9, 0.999)


def test_memory(model: torch.nn.Module, adamw: torch.optim.AdamW, tmp_path: Path) -> None:
    """AdamW keeps two moments of four bytes for each element, Lion one."""
    (optimizer,) = summarise(saved(tmp_path / "a.pt", optimizer=adamw)).optimizers
    assert (optimizer.bytes_adamw, optimizer.bytes_lion) == (240, 120)
    assert optimizer.bytes == 240 + 4 * 4  # and a step for each parameter
    assert sum(group.bytes for group in optimizer.groups) == optimizer.bytes


@pytest.mark.parametrize("step", [float("nan"), float("inf"), "30", None, [30]])
def test_step_that_is_no_number(adamw: torch.optim.AdamW, tmp_path: Path, step: Any) -> None:
    """A step that counts nothing is not known."""
    state = adamw.state_dict()
    for slot in state["state"].values():
        slot["step"] = torch.tensor(step) if isinstance(step, float) else step
    torch.save(state, tmp_path / "a.pt")
    assert summarise(tmp_path / "a.pt").step is None


def test_tensors(model: torch.nn.Module, adamw: torch.optim.AdamW, tmp_path: Path) -> None:
    """All tensors of the file are counted, weights and state."""
    (file,) = summarise(saved(tmp_path / "a.pt", model=model, optimizer=adamw)).files
    assert file.container == "torch zip"
    assert file.tensors == 4 + 4 * 3
    assert file.elements == 3 * 30 + 4
    assert file.dtypes == {"float32": 4 * file.elements}
    assert file.tensor_bytes == 4 * file.elements
    assert file.bytes == (tmp_path / "a.pt").stat().st_size


def test_step_and_scheduler(
    model: torch.nn.Module, adamw: torch.optim.AdamW, tmp_path: Path
) -> None:
    """The scheduler's class, position, length and learning rates are told, nested ones too."""
    parts = [
        torch.optim.lr_scheduler.LinearLR(adamw, total_iters=2),
        torch.optim.lr_scheduler.CosineAnnealingLR(adamw, 100, eta_min=1e-5),
    ]
    scheduler = torch.optim.lr_scheduler.SequentialLR(adamw, parts, milestones=[2])
    summary = summarise(saved(tmp_path / "a.pt", optimizer=adamw, scheduler=scheduler))
    assert summary.step == 3
    (found,) = summary.optimizers[0].schedulers
    assert (found.kind, found.label) == ("SequentialLR", "scheduler")
    assert [child.kind for child in found.children] == ["LinearLR", "CosineAnnealingLR"]
    assert found.children[1].length == 100
    assert found.children[1].rates["eta_min"] == 1e-5


def test_parameters_without_state(model: torch.nn.Sequential, tmp_path: Path) -> None:
    """Frozen parameters are counted."""
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train(model, optimizer)
    (found,) = summarise(saved(tmp_path / "a.pt", optimizer=optimizer)).optimizers
    assert found.without_state == 2
    assert (found.groups[0].elements, found.groups[0].unsized) == (10, 2)


@pytest.mark.parametrize("named", [False, True])
def test_frozen_parameters_have_elements(
    model: torch.nn.Sequential, tmp_path: Path, named: bool
) -> None:
    """The weights in the file tell the size of what has no state, by name or by their order."""
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    make = model.named_parameters if named else model.parameters
    optimizer = torch.optim.AdamW(make(), lr=1e-3)
    train(model, optimizer)
    path = saved(tmp_path / "a.pt", model=model, optimizer=optimizer)
    (group,) = summarise(path).optimizers[0].groups
    assert (group.elements, group.unsized) == (30, 0)


def test_elements_of_what_keeps_less(model: torch.nn.Module, tmp_path: Path) -> None:
    """SGD keeps no state and Adafactor factors of it; the weights tell their elements too."""
    for optimizer in (torch.optim.SGD, torch.optim.Adafactor):
        made = optimizer(model.parameters(), lr=1e-3)
        train(model, made)
        found = summarise(saved(tmp_path / "a.pt", model=model, optimizer=made)).optimizers[0]
        assert (found.groups[0].elements, found.groups[0].unsized) == (30, 0)
        assert found.bytes_lion is None


def test_tied_weights_count_once(tmp_path: Path) -> None:
    """Elements and bytes are those of `--tensors`, which counts values that are shared once."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    model[1].weight = model[0].weight
    (file,) = summarise(saved(tmp_path / "a.pt", model=model)).files
    listed = list_tensors(tmp_path / "a.pt")
    assert (file.tensors, file.elements, file.tensor_bytes) == (4, 24, 96)
    assert (listed.elements, listed.bytes, file.dtypes) == (24, 96, {"float32": 96})


def test_other_optimizers_are_shown(model: torch.nn.Module, tmp_path: Path) -> None:
    """What cannot be converted can still be looked at."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer)
    (found,) = summarise(saved(tmp_path / "a.pt", optimizer=optimizer)).optimizers
    assert found.kind == "SGD"
    assert (found.bytes_adamw, found.bytes_lion) == (240, 120)
    assert found.groups[0].fields["momentum"] == 0.9


@pytest.mark.parametrize("name", ["Adagrad", "Adamax", "RMSprop", "Rprop", "ASGD", "Adadelta"])
def test_memory_under_other_optimizers(model: torch.nn.Module, tmp_path: Path, name: str) -> None:
    """Any state with an element for each of the weights tells what AdamW and Lion would take."""
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-3)
    train(model, optimizer)
    (found,) = summarise(saved(tmp_path / "a.pt", optimizer=optimizer)).optimizers
    assert (found.bytes_adamw, found.bytes_lion) == (240, 120)


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_weights_only(model: torch.nn.Module, tmp_path: Path, name: str) -> None:
    """A file of weights is no error: it has tensors and a reason why there is no optimizer."""
    save = save_file if name.endswith(".safetensors") else torch.save
    save(model.state_dict(), tmp_path / name)
    summary = summarise(tmp_path / name)
    assert summary.framework is None
    assert summary.optimizers == ()
    assert name in (summary.no_optimizer or "")
    assert summary.files[0].tensors == 4


def test_named_framework_must_fit(model: torch.nn.Module, tmp_path: Path) -> None:
    """Asked for by name, a framework that is not there is an error."""
    torch.save(model.state_dict(), tmp_path / "model.pt")
    with pytest.raises(LayoutError):
        summarise(tmp_path / "model.pt", "lightning")


def test_missing_file(tmp_path: Path) -> None:
    """What does not exist cannot be looked into."""
    with pytest.raises(ReadError, match="no such file or folder"):
        summarise(tmp_path / "none.pt")


def test_folder(model: torch.nn.Module, adamw: torch.optim.AdamW, tmp_path: Path) -> None:
    """Every file that can hold tensors is listed; a damaged one says so and stops nothing."""
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 3, "epoch": 0.5}')
    (folder / "config.json").write_text("{}")
    save_file(model.state_dict(), folder / "model.safetensors")
    torch.save(adamw.state_dict(), folder / "optimizer.pt")
    scheduler = torch.optim.lr_scheduler.StepLR(adamw, 5)
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    (folder / "extra.bin").write_bytes(b"\x80\x02garbage")
    summary = summarise(folder)
    assert (summary.framework, summary.step, summary.epoch) == ("hf-trainer", 3, 0.5)
    assert [file.name for file in summary.files] == [
        "extra.bin",
        "model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
    ]
    assert summary.files[0].problem is not None
    assert summary.file_count == 6
    assert summary.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert [file.tensors for file in summary.files] == [0, 4, 12, 0]


def test_json(model: torch.nn.Module, adamw: torch.optim.AdamW, tmp_path: Path) -> None:
    """The summary is a JSON document with the version of its schema."""
    summary: Summary = summarise(saved(tmp_path / "a.pt", model=model, optimizer=adamw))
    document = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert document["schema"] == 3
    assert document["optimizers"][0]["groups"][1]["fields"]["weight_decay"] == 0.0


def test_links_that_lead_nowhere(adamw: torch.optim.AdamW, tmp_path: Path) -> None:
    """A file that cannot be read for being a broken link is listed, with the reason."""
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    torch.save(adamw.state_dict(), folder / "optimizer.pt")
    torch.save({"last_epoch": 1, "_step_count": 2}, folder / "scheduler.pt")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "loop.bin").symlink_to("loop.bin")
    (folder / "gone.bin").symlink_to("nowhere")
    problems = {file.name: file.problem for file in summarise(folder).files if file.problem}
    assert problems.keys() == {"loop.bin", "gone.bin"}
