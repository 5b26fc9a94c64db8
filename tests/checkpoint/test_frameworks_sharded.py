"""Checkpoints in shards are refused by what they are, with the way out where there is one."""

from __future__ import annotations

import re

import pytest

from liontool.checkpoint.frameworks import find
from liontool.errors import AmbiguousError, LayoutError
from support.fake_source import FakeSource, adamw

DISTRIBUTED = (
    "is a sharded checkpoint (torch.distributed.checkpoint), which this version does not read; "
    "make one file of it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch "
)
DEEPSPEED = "is a DeepSpeed checkpoint, which this version does not read"


def folder(*names, path="ckpt"):
    return FakeSource(files={name: {} for name in names}, path=path)


@pytest.mark.parametrize(
    ("files", "part"),
    [
        pytest.param(["__0_0.distcp", ".metadata", "meta.pt"], "", id="its own folder"),
        pytest.param(
            ["optimizer_0/__0_0.distcp", "pytorch_model_fsdp_0/__0_0.distcp", "scheduler.pt",
             "trainer_state.json", "training_args.bin"],
            "/optimizer_0",
            id="of Trainer",
        ),
    ],
)  # fmt: skip
def test_distributed(files, part):
    """The command that makes one file of it names the folder with the optimizer."""
    with pytest.raises(LayoutError, match=re.escape(f"my ckpt: {DISTRIBUTED}'my ckpt{part}' FILE")):
        find(folder(*files, path="my ckpt"))


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_distributed_file(name):
    """One shard stands for its folder."""
    with pytest.raises(LayoutError, match=re.escape(f"{DISTRIBUTED}run/5 FILE")):
        find(FakeSource({}, path=f"run/5/{name}"))


def test_distributed_below():
    """In a folder of other things, the message is about the folder with the shards."""
    with pytest.raises(LayoutError, match=re.escape(f"ckpt/step-5: {DISTRIBUTED}ckpt/step-5 FILE")):
        find(folder("step-5/__0_0.distcp", "log.txt"))
    with pytest.raises(AmbiguousError, match=r"one of which may be a checkpoint: a\.pt;"):
        find(folder("step-5/__0_0.distcp", "a.pt"))


def test_folder_of_a_sharded_run():
    """A run's folder still lists its checkpoints."""
    files = [f"checkpoint-{n}/{f}" for n in (5, 10) for f in ("x.distcp", "trainer_state.json")]
    with pytest.raises(AmbiguousError, match="the folder of a run"):
        find(folder(*files))


@pytest.mark.parametrize(
    "files",
    [
        ["zero_to_fp32.py", "latest", "global_step5/x.pt", "trainer_state.json", "scheduler.pt"],
        ["latest", "global_step5/mp_rank_00_model_states.pt"],
        ["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"],
    ],
    ids=["of Trainer", "its own folder", "one step"],
)
def test_deepspeed_folder(files):
    """DeepSpeed's folders are known by their files, whoever saved through it."""
    with pytest.raises(LayoutError, match=f"^ckpt: {DEEPSPEED}; give a file that has the opt"):
        find(folder(*files))


@pytest.mark.parametrize("name", ["zero_pp_rank_0_mp_rank_00_optim_states.pt", "x.pt"])
@pytest.mark.parametrize("framework", [None, "plain"])
def test_deepspeed_file(name, framework):
    """A shard is no optimizer, though it contains what looks like one."""
    state = {"base_optimizer_state": adamw(), "partition_count": 2}
    with pytest.raises(LayoutError, match=f"^{name}: {DEEPSPEED}"):
        find(FakeSource({"optimizer_state_dict": state}, path=name), framework)


def test_deepspeed_below():
    """Its shards are never offered as checkpoints."""
    shard = "ds/global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt"
    with pytest.raises(AmbiguousError, match=r"one of which may be a checkpoint: a\.pt;"):
        find(folder(shard, "a.pt"))
    with pytest.raises(LayoutError, match=f"ckpt/ds/global_step5: {DEEPSPEED}"):
        find(folder(shard))
