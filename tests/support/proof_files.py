"""Runs of AdamW, their conversions, and conversions that were tampered with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from liontool.convert import convert_checkpoint
from support.finding_files import records, torch_file, zipped

Tree = dict[str, Any]


def adamw(path: Path, *, seed: int = 0, steps: int = 60, named: bool = False, **more: Any) -> Path:
    """What a training loop saves: two groups, a cosine, a random state, and `more`."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    names = list(model.named_parameters())
    given: list[Any] = names if named else [parameter for _, parameter in names]
    parts: list[Any] = [{"params": given[:2]}, {"params": given[2:]}]
    parts[1]["weight_decay"] = 0.0
    optimizer = torch.optim.AdamW(
        parts, lr=torch.tensor(1e-3) if seed == 7 else 1e-3, weight_decay=0.1
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(steps):
        model(torch.randn(2, 4)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    tree = {name: part.state_dict() for name, part in state.items()}
    return torch_file(path, {**tree, "rng": torch.get_rng_state(), **more})


def converted(source: Path, output: str = "lion.ckpt", **options: Any) -> Path:
    """The source as a Lion."""
    output_path = source.with_name(output)
    convert_checkpoint(source, lr_ratio=3, output=output_path, **options)
    return output_path


def changed(path: Path, change: Callable[[Tree], Any]) -> Path:
    """The converted file saved again with a change; the record is kept."""
    record = next(data for name, data in records(path) if name.endswith("liontool.json"))
    tree = torch.load(path)
    change(tree)
    torch_file(path, tree)
    prefix = records(path)[0][0].split("/")[0]
    return zipped(path, [*records(path), (f"{prefix}/liontool.json", record)])
