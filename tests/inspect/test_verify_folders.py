"""`verify` on folders: unfinished ones, strangers, left-overs, links, and all files of a kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from liontool.errors import AmbiguousError, ReadError
from liontool.inspect.verify import verify
from support.finding_files import entry, found, safetensors, torch_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of the Trainer."""
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([weight])
    optimizer.step()
    home = tmp_path / "checkpoint-1"
    home.mkdir()
    (home / "trainer_state.json").write_text('{"global_step": 1}')
    torch_file(home / "optimizer.pt", optimizer.state_dict())
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    torch_file(home / "scheduler.pt", scheduler.state_dict())
    safetensors(home / "model.safetensors", {"w": entry(0, 8)})
    return home


def test_good_folder(folder: Path) -> None:
    """An honest folder has no errors, and every file of it was looked at."""
    result = verify(folder)
    assert result.passed()
    assert (result.framework, result.files) == ("hf-trainer", 4)


def test_every_file_is_walked(folder: Path) -> None:
    """Faults of all files are found in one run, each with the name of its file."""
    for name in ("model.safetensors", "optimizer.pt"):
        with (folder / name).open("ab") as file:
            file.write(b"more")
    where = [f.where for f in verify(folder).findings if f.id == "trailing-bytes"]
    assert where == ["model.safetensors", "optimizer.pt"]


def test_unfinished(folder: Path) -> None:
    """A folder without the file that is written last is unfinished."""
    (folder / "trainer_state.json").unlink()
    assert "has no trainer_state.json" in found(folder)["unfinished"].text


def test_strangers_and_leftovers(folder: Path) -> None:
    """Files of no known kind, and temporary files, are noted."""
    (folder / "tokens.bin").write_bytes(b"hello")
    (folder / ".12-ab.liontool-tmp").write_bytes(b"")
    findings = found(folder)
    assert findings["stranger"].where == "tokens.bin"
    assert findings["leftover"].where == ".12-ab.liontool-tmp"
    assert verify(folder).passed()


def test_link_that_leads_out(folder: Path) -> None:
    """A link to outside of the folder is refused, as everywhere."""
    (folder / "model.bin").symlink_to("/etc/passwd")
    assert found(folder)["unsafe-name"].where == "model.bin"


def test_unreadable_settings(folder: Path) -> None:
    """JSON that is none is found; what only the reader refuses is found as such."""
    (folder / "config.json").write_text("{")
    assert found(folder)["bad-json"].where == "config.json"
    shutil.copy(folder / "scheduler.pt", folder / "optimizer.pt")
    assert not {"unreadable", "no-optimizer"}.isdisjoint(found(folder))


def test_dangling_link(folder: Path) -> None:
    """A link to nothing is a file that cannot be read."""
    (folder / "model.bin").symlink_to("nothing.bin")
    assert found(folder)["unreadable"].where == "model.bin"


def test_index_in_a_folder(folder: Path) -> None:
    """An index of the folder is checked against its shards."""
    text = '{"weight_map": {"w": "model.safetensors", "v": "gone.safetensors"}}'
    (folder / "model.safetensors.index.json").write_text(text)
    finding = found(folder)["missing-shard"]
    assert finding.where == "model.safetensors.index.json: gone.safetensors"


def test_several_checkpoints(folder: Path) -> None:
    """Which checkpoint of a run is meant is for the user to say."""
    with pytest.raises(AmbiguousError, match="is the folder of a run"):
        verify(folder.parent)


def test_nothing_there(tmp_path: Path) -> None:
    """What is not there is an error."""
    with pytest.raises(ReadError, match="no such file or folder"):
        verify(tmp_path / "nothing")


def test_weights_that_are_damaged_inside(folder: Path) -> None:
    """A file that reads well until its tensors are looked at is a finding, not a failure."""
    from support.hostile_containers import torch_zip
    from support.hostile_trees import Storages, Tensor

    storages = Storages()
    storages.tensor(6)
    (folder / "model.bin").write_bytes(torch_zip({"a": {"w": Tensor(size=(9, 9))}}, storages))
    assert found(folder)["tensor-bounds"].where == "model.bin"
