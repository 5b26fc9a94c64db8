"""From edits to files and folders on disk."""

from __future__ import annotations

import json
import os

import pytest
import torch

from liontool.checkpoint import writing
from liontool.checkpoint.copying import Literal, Raw
from liontool.checkpoint.document import Place, Replace, Span
from liontool.checkpoint.source import open_source
from liontool.checkpoint.writing import Output, rewritten
from liontool.errors import (
    LayoutError,
    OutputExistsError,
    RefusedError,
    SourceChangedError,
    UnsafePathError,
)

RECORD = {"rule": "a test"}


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder with torch files, other files, folders in it, and links."""
    folder = tmp_path / "checkpoint-5"
    (folder / "logs" / "deep").mkdir(parents=True)
    torch.save({"lr": 0.5, "w": torch.arange(4.0)}, folder / "optimizer.pt")
    torch.save({"lr": 0.5}, folder / "scheduler.pt")
    (folder / "logs" / "deep" / "log.txt").write_text("line\n")
    (folder / "liontool.json").write_text("an older record")
    (folder / "empty").write_bytes(b"")
    (folder / "log").symlink_to("logs/deep/log.txt")
    (folder / "logs" / "up").symlink_to("../optimizer.pt")
    return folder


@pytest.fixture
def source(folder):
    return open_source(folder)


def edit(name, value=0.25):
    return Replace(Place(name, ("lr",)), value)


def write(source, target, edits=(), scan=(), **options):
    output = rewritten(source, edits, scan=scan, provenance=RECORD)
    writing.write(output, target, source=source, **{"force": False, **options})
    return output


def test_folder(folder, source, tmp_path):
    """Edited files are rewritten; others are the same bytes, links the same links."""
    target = tmp_path / "new"
    output = write(source, target, [edit("optimizer.pt")])
    found = torch.load(target / "optimizer.pt", weights_only=True)
    assert found["lr"] == 0.25
    assert torch.equal(found["w"], torch.arange(4.0))
    for name in ("scheduler.pt", "logs/deep/log.txt", "empty"):
        assert (target / name).read_bytes() == (folder / name).read_bytes()
    assert os.readlink(target / "log") == "logs/deep/log.txt"
    assert os.readlink(target / "logs" / "up") == "../optimizer.pt"
    assert json.loads((target / "liontool.json").read_text()) == RECORD
    files = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    assert output.total == sum(path.stat().st_size for path in files)
    assert sorted(source.listing()) == sorted(open_source(target).listing())


def test_link_to_a_file_that_changes(folder, tmp_path):
    """The link stays, and the file that it leads to is the one that is rewritten, alone."""
    (folder / "blobs").mkdir()
    (folder / "optimizer.pt").rename(folder / "blobs" / "opt")
    (folder / "middle").symlink_to("blobs/opt")
    (folder / "optimizer.pt").symlink_to("middle")
    target = tmp_path / "new"
    write(open_source(folder), target, [edit("optimizer.pt")])
    assert os.readlink(target / "optimizer.pt") == "middle"
    assert os.readlink(target / "middle") == "blobs/opt"
    assert torch.load(target / "blobs" / "opt", weights_only=True)["lr"] == 0.25


def test_two_links_to_a_file_that_changes(folder):
    """Edits of one file under two names cannot both be meant."""
    (folder / "scheduler.pt").unlink()
    (folder / "scheduler.pt").symlink_to("optimizer.pt")
    edits = [edit("optimizer.pt"), edit("scheduler.pt")]
    with pytest.raises(LayoutError, match=r"scheduler\.pt are links to one file, optimizer\.pt"):
        rewritten(open_source(folder), edits, scan=(), provenance=RECORD)


def test_record_that_is_a_link(folder, tmp_path):
    """An older record goes, even if it is a link."""
    (folder / "liontool.json").unlink()
    (folder / "liontool.json").symlink_to("optimizer.pt")
    write(open_source(folder), tmp_path / "new")
    assert json.loads((tmp_path / "new" / "liontool.json").read_text()) == RECORD


def test_empty_folders(folder, tmp_path):
    """A folder with nothing in it is there afterwards, one with a link alone is not empty."""
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "c").mkdir()
    (folder / "c" / "up").symlink_to("../a")
    source = open_source(folder)
    assert source.empty_folders() == ("a/b",)
    write(source, tmp_path / "new")
    assert list((tmp_path / "new" / "a").iterdir()) == [tmp_path / "new" / "a" / "b"]
    assert open_source(tmp_path / "new").empty_folders() == ("a/b",)


def test_file(folder, tmp_path):
    """A file gives a file, with the record inside."""
    source = open_source(folder / "optimizer.pt")
    target = tmp_path / "new.pt"
    write(source, target, [edit("")])
    assert torch.load(target, weights_only=True)["lr"] == 0.25
    assert json.loads(open_source(target).document().facts["provenance"]) == RECORD


def test_link_that_climbs_out(folder, source, tmp_path):
    """A link that leads out of the folder would lose its end, so nothing is written."""
    (folder / "out").symlink_to("../elsewhere")
    with pytest.raises(UnsafePathError, match="leads out of the folder"):
        write(open_source(folder), tmp_path / "new")


def test_target_that_exists(source, tmp_path):
    """A folder that is there is refused, and replaced as a whole when asked for."""
    target = tmp_path / "new"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(OutputExistsError):
        write(source, target)
    assert (target / "old").exists()
    write(source, target, force=True)
    assert not (target / "old").exists()
    assert (target / "scheduler.pt").exists()


def test_source_that_changes(folder, source, tmp_path):
    """A file that appears while others are copied calls everything off."""
    (folder / "new.pt").write_bytes(b"x")
    with pytest.raises(SourceChangedError, match=r"new\.pt: appeared while"):
        write(source, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_scan(folder, tmp_path):
    """NaN in a scanned tensor leaves nothing behind; `check` finds it without writing."""
    torch.save({"lr": 0.5, "w": torch.tensor([1.0, float("nan")])}, folder / "optimizer.pt")
    source = open_source(folder)
    tensor = source.document("optimizer.pt").tree["w"]
    with pytest.raises(RefusedError, match="1 non-finite values"):
        write(source, tmp_path / "new", [edit("optimizer.pt")], scan=[tensor])
    with pytest.raises(RefusedError, match="1 non-finite values"):
        writing.check([tensor])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-5"]


def test_check_of_finite_tensors(source):
    """Nothing is said about finite tensors but how far it got."""
    tensor = source.document("optimizer.pt").tree["w"]
    seen = []
    writing.check([tensor, tensor], lambda *now: seen.append(now))
    assert seen == [(16, 32), (32, 32)]


def test_progress(source, tmp_path):
    """Progress goes up to the bytes of all files."""
    seen = []
    output = write(source, tmp_path / "new", progress=lambda *now: seen.append(now))
    assert seen[-1] == (output.total, output.total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert writing.counter(None, 5) is None


def test_room_for_sparse_files(tmp_path):
    """Holes of a source take no room, but count in the length."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    output = Output({"a": [Raw(Span(path, 0, 1 << 30))], "b": [Literal(b"xyz")]}, {})
    assert output.total == (1 << 30) + 3
    assert output.needed < 1 << 20
