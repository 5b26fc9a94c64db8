"""A folder with one damaged file: the file is named, and the others are looked at all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from liontool.cli import main
from liontool.errors import FormatError
from liontool.inspect.diff import diff
from liontool.inspect.statistics import statistics
from liontool.inspect.summary import summarise
from liontool.inspect.tensors import list_tensors
from liontool.inspect.verify import verify
from support.hostile_containers import torch_zip
from support.hostile_honest import honest
from support.hostile_trees import Storages, Tensor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of weights; of one only the walk through its tree meets the fault."""
    path = tmp_path / honest("pickles-folder").put(tmp_path)
    storages = Storages()
    weights = {"b.w": storages.tensor(2), "b.beyond": Tensor("0", (3,), (1,), count=2)}
    (path / "pytorch_model-00002-of-00002.bin").write_bytes(torch_zip(weights, storages))
    return path


def test_the_rest_is_listed(folder: Path) -> None:
    """Tensors of the good file are there, none of the other, which the first screen names."""
    assert {entry.name for entry in list_tensors(folder).tensors} == {"a.w", "a.step"}
    bad, good = sorted(summarise(folder).files, key=lambda file: file.problem is None)
    assert good.tensors == 2
    assert "reaches to element 3 of a storage that has 2" in str(bad.problem)


def test_what_is_left_out_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists and sums without a file say so, on the screen and as JSON."""
    for found in (list_tensors(folder), statistics(folder)):
        (sentence,) = found.unread
        assert "00002-of-00002.bin: tensor 'b.beyond' reaches to element 3" in sentence
        assert found.to_dict()["unread"] == [sentence]
    for option in ("--tensors", "--stats"):
        assert main(["inspect", str(folder), option]) == 0
        assert "liontool: warning: left out: " in capsys.readouterr().err


def test_verify_finds_it(folder: Path) -> None:
    """The fault is an error at its file, and the tensors of the other are read."""
    found = verify(folder)
    faults = [one for one in found.findings if one.severity == "error"]
    assert {one.where.partition(":")[0] for one in faults} == {"pytorch_model-00002-of-00002.bin"}
    assert found.tensors == 2


def test_diff_refuses_it(folder: Path) -> None:
    """A comparison without a file would say that its tensors were removed."""
    with pytest.raises(FormatError, match=r"00002-of-00002\.bin: tensor 'b.beyond' reaches"):
        diff(folder, folder)


def test_a_warning_hides_no_refusal(tmp_path: Path) -> None:
    """What cannot be opened does not pass because of a lesser fault elsewhere in the folder."""
    path = tmp_path / honest("trainer-folder").put(tmp_path)
    (path / "trainer_state.json").write_text("not JSON")
    index = path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("32", "33"))
    found = verify(path)
    assert {"index-size", "unreadable"} <= {one.id for one in found.findings}
    assert not found.passed()
