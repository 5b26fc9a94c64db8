"""Lion on sharded parameters (FSDP2), saved and loaded by torch.distributed.checkpoint.

    torchrun --nproc-per-node 2 examples/fsdp2.py

The momentum is sharded as its parameter is. Runs on CUDA where each process finds a device, else on
the CPU with gloo.
"""

from __future__ import annotations

import os
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.optim.lr_scheduler import CosineAnnealingLR

from liontool.optim import Lion

STEPS, SAVED_AT = 120, 60
RANK, WORLD = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
DEVICE = "cuda" if torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"]) else "cpu"


def build() -> tuple[nn.Module, Lion, CosineAnnealingLR]:
    """A sharded network; the optimizer is made after sharding, on the sharded parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 1))
    mesh = init_device_mesh(DEVICE, (WORLD,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    matrices = [param for param in model.parameters() if param.ndim >= 2]
    vectors = [param for param in model.parameters() if param.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = Lion(groups, lr=1e-3, weight_decay=0.5)  # where AdamW had 5e-3 and 0.1
    return model, optimizer, CosineAnnealingLR(optimizer, T_max=STEPS)


def loss_at(model: nn.Module, step: int) -> Tensor:
    """The loss on this process's batch of a step."""
    generator = torch.Generator().manual_seed(step * WORLD + RANK)
    inputs = torch.randn(32, 16, generator=generator).to(DEVICE)
    return nn.functional.mse_loss(model(inputs), inputs[:, :4].sin().sum(1, keepdim=True))


def train(model: nn.Module, optimizer: Lion, scheduler: CosineAnnealingLR, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_at(model, step).backward()
        optimizer.step()
        scheduler.step()


def state(model: nn.Module, optimizer: Lion, scheduler: CosineAnnealingLR) -> dict:
    """What a checkpoint keeps; also tells what to read from one."""
    weights, momenta = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": momenta, "scheduler": scheduler.state_dict()}


def say(text: str) -> None:
    if RANK == 0:
        print(text)


def main(folder: str) -> None:
    model, optimizer, scheduler = run = build()
    before = loss_at(model, STEPS).item()
    train(*run, range(SAVED_AT))
    dcp.save(state(*run), checkpoint_id=folder)
    train(*run, range(SAVED_AT, STEPS))
    say(f"loss {before:.4f} -> {loss_at(model, STEPS).item():.4f}")
    momentum = optimizer.state[model[0].weight]["exp_avg"]
    say(f"momentum {tuple(momentum.shape)}, of it here {tuple(momentum.to_local().shape)}")

    resumed, optimizer, scheduler = run = build()
    saved = state(*run)
    dcp.load(saved, checkpoint_id=folder)
    states = {"model_state_dict": saved["model"], "optim_state_dict": saved["optimizer"]}
    set_state_dict(resumed, optimizer, **states)
    scheduler.load_state_dict(saved["scheduler"])
    train(*run, range(SAVED_AT, STEPS))
    pairs = zip(resumed.parameters(), model.parameters(), strict=True)
    same = all(torch.equal(one.to_local(), other.to_local()) for one, other in pairs)
    say(f"resumed at step {SAVED_AT}, the same weights: {same}")


if __name__ == "__main__":
    if DEVICE == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if DEVICE == "cuda" else "gloo")
    with tempfile.TemporaryDirectory() as own:
        folder = [own]
        dist.broadcast_object_list(folder)  # that of the first process
        main(folder[0])
        dist.barrier()
    dist.destroy_process_group()
