"""Small checkpoints to be edited: with and without names, as files and as folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from liontool.checkpoint import undo_record


def network() -> torch.nn.Module:
    """Two layers and a head."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    return torch.nn.ModuleDict({"layers": layers, "head": torch.nn.Linear(4, 2)})


def forward(model: torch.nn.Module) -> torch.Tensor:
    """A loss."""
    inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    return model["head"](model["layers"](inputs)).square().mean()  # type: ignore[index]


def stepped(
    model: torch.nn.Module, *, named: bool = True
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.CosineAnnealingLR]:
    """AdamW and a scheduler after three steps, with two groups."""
    parameters = list(model.named_parameters())
    biases = [pair for pair in parameters if pair[0].endswith("bias")]
    weights = [pair for pair in parameters if pair not in biases]
    groups = [{"params": weights}, {"params": biases, "weight_decay": 0.0}]
    if not named:
        groups = [{**group, "params": [p for _, p in group["params"]]} for group in groups]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
    for _ in range(3):
        optimizer.zero_grad()
        forward(model).backward()
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def save_plain(path: Path, *, named: bool = True, **options: Any) -> Path:
    """What a training loop of one's own saves."""
    model = network()
    optimizer, scheduler = stepped(model, named=named)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "step": 3,
    }
    torch.save(state, path, **options)
    return path


def load(path: Path) -> Any:
    """The file as torch reads it."""
    return torch.load(path, weights_only=True)


def save_shards(folder: Path) -> dict[str, torch.Tensor]:
    """A model in two safetensors files with their index."""
    folder.mkdir()
    tensors = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    parts = {"a.safetensors": "layers", "b.safetensors": "head"}
    weight_map: dict[str, str] = {}
    for file, prefix in parts.items():
        some = {name: t for name, t in tensors.items() if name.startswith(prefix)}
        save_file(some, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(some, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index: Mapping[str, Any] = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return tensors


def tear(path: Path) -> bytes:
    """Leave the header of an edited file as a crash does: parts of both; gives those bytes."""
    record = undo_record.newest(path)
    assert record is not None
    pairs = zip(record.old, record.new, strict=True)
    half = [i for i, (old, new) in enumerate(pairs) if old != new][3]
    torn = record.new[:half] + record.old[half:]
    path.write_bytes(torn + path.read_bytes()[len(torn) :])
    return torn
