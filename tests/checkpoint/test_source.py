"""Sources: which files there are, links, and whether anything changed."""

from __future__ import annotations

import json
import os

import pytest

from liontool.checkpoint import source as source_module
from liontool.checkpoint.source import open_source
from liontool.errors import LimitError, ReadError, SourceChangedError, UnsafePathError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "checkpoint-5"
    (folder / "sub").mkdir(parents=True)
    for name in ("b.pt", "a.pt", "sub/c.json"):
        (folder / name).write_text("{}")
    return folder


def test_names_are_relative_and_sorted(folder):
    """Everything below a folder is listed by its relative name."""
    assert open_source(folder).names() == ("a.pt", "b.pt", "sub/c.json")


def test_file_has_no_names(folder):
    """A single file is no folder; its document is called ''."""
    source = open_source(str(folder / "a.pt"))
    assert (source.is_folder, source.names()) == (False, ())


def test_document_is_opened_once(folder, monkeypatch):
    """A second call gives the same object."""
    opened = []
    monkeypatch.setattr(
        source_module.formats,
        "open_document",
        lambda path, name: opened.append((path, name)) or object(),
        raising=False,
    )
    source = open_source(folder)
    assert source.document("sub/c.json") is source.document("sub/c.json")
    assert opened == [(folder / "sub/c.json", "sub/c.json")]


def test_missing_path(tmp_path):
    """A path that leads nowhere is named."""
    with pytest.raises(ReadError, match="nothing: no such file or folder"):
        open_source(tmp_path / "nothing")


def test_missing_document(folder):
    """A file that the folder does not have is named."""
    with pytest.raises(ReadError, match=r"has no file 'scheduler\.pt'"):
        open_source(folder).document("scheduler.pt")


def test_special_file(tmp_path):
    """A pipe would block whoever reads it."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="neither a file nor a folder"):
        open_source(tmp_path / "pipe")


def test_special_file_in_folder(folder):
    """A pipe in a folder cannot be copied."""
    os.mkfifo(folder / "pipe")
    with pytest.raises(ReadError, match="pipe: is neither a file, a folder nor a link"):
        open_source(folder)


def test_too_many_entries(folder, monkeypatch):
    """A folder like a home directory is not a checkpoint."""
    monkeypatch.setattr(source_module, "MAX_ENTRIES", 2)
    with pytest.raises(LimitError, match="more than 2 entries"):
        open_source(folder)


def test_link_inside_stays(folder):
    """A link to another file of the folder is listed as it is."""
    (folder / "sub/link").symlink_to("../a.pt")
    assert "sub/link" in open_source(folder).names()


def test_linked_folder_is_not_entered(folder):
    """A link to a folder is one name, even where it leads back up."""
    (folder / "sub/loop").symlink_to("..")
    assert [n for n in open_source(folder).names() if "loop" in n] == ["sub/loop"]


@pytest.mark.parametrize("target", ["../outside", "../checkpoint-5/a.pt", "sub/../../outside"])
def test_link_out_is_refused(folder, target):
    """A link that leaves the folder is refused, even if it comes back by the folder's own name."""
    (folder / "link").symlink_to(target)
    with pytest.raises(UnsafePathError, match=r"link: is a link to .* leads out of the folder"):
        open_source(folder).names()


def test_absolute_link_is_refused(folder):
    """An absolute link would lead from the copy into the original."""
    (folder / "link").symlink_to(folder / "a.pt")
    with pytest.raises(UnsafePathError, match="leads out of the folder"):
        open_source(folder).names()


def test_link_out_through_another_link_is_refused(folder):
    """What counts is where a link ends."""
    (folder / "sub" / "up").symlink_to("../..")
    (folder / "link").symlink_to("sub/up/outside")
    with pytest.raises(UnsafePathError, match="link: is a link to 'sub/up/outside'"):
        open_source(folder).document("link")


def test_linked_source_is_followed(folder, tmp_path):
    """The path itself may be a link."""
    (tmp_path / "last").symlink_to(folder)
    assert open_source(tmp_path / "last").is_folder


def test_unchanged(folder):
    """A source that nobody writes to passes."""
    source = open_source(folder)
    assert source.check_unchanged() is None


def test_written_to(folder):
    """Another size is a change."""
    source = open_source(folder)
    (folder / "a.pt").write_text("{ }")
    with pytest.raises(SourceChangedError, match=r"a\.pt: was changed .* still writing"):
        source.check_unchanged()


def test_touched(folder):
    """Another time is a change, also of a single file."""
    source = open_source(folder / "a.pt")
    os.utime(folder / "a.pt", ns=(1, 1))
    with pytest.raises(SourceChangedError, match=r"a\.pt: was changed"):
        source.check_unchanged()


def test_exchanged(folder):
    """Another inode is a change even with the same size and time."""
    source = open_source(folder)
    status = (folder / "a.pt").stat()
    (folder / "new").write_text("{}")
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "new").rename(folder / "a.pt")
    with pytest.raises(SourceChangedError, match=r"a\.pt: was changed"):
        source.check_unchanged()


def test_file_appeared(folder):
    """A file that is new means that the run is still writing."""
    source = open_source(folder)
    (folder / "z.pt").write_text("")
    with pytest.raises(SourceChangedError, match=r"z\.pt: appeared"):
        source.check_unchanged()


def test_file_removed(folder):
    """A file that is gone is a change."""
    source = open_source(folder)
    (folder / "b.pt").unlink()
    with pytest.raises(SourceChangedError, match=r"b\.pt: was removed"):
        source.check_unchanged()


def test_source_removed(folder):
    """A source that is gone altogether is a change."""
    source = open_source(folder / "a.pt")
    (folder / "a.pt").unlink()
    with pytest.raises(SourceChangedError, match=r"a\.pt: no such file.*first look"):
        source.check_unchanged()


# --- shards of an index -------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path):
    """Two shards of safetensors with one byte each, and their index."""
    for name in ("a", "b"):
        entry = {name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}
        header = json.dumps(entry).encode()
        data = len(header).to_bytes(8, "little") + header + b"x"
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    path = tmp_path / "m.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}')
    return path


def test_size_of_shards(index):
    """Shards count as soon as their index was read, and once."""
    source = open_source(index)
    assert source.size == index.stat().st_size
    source.document()
    total = sum(path.stat().st_size for path in index.parent.iterdir())
    assert source.size == total
    folder = open_source(index.parent)
    folder.document(index.name)
    assert folder.size == total


@pytest.mark.parametrize(
    ("change", "what"), [(os.unlink, "removed"), (lambda p: os.utime(p, ns=(1, 1)), "changed")]
)
def test_shard_that_changes(index, change, what):
    """Each shard is compared with what it was when the index was read."""
    source = open_source(index)
    source.document()
    assert source.check_unchanged() is None
    change(index.parent / "b.safetensors")
    with pytest.raises(SourceChangedError, match=rf"b\.safetensors: was {what} while"):
        source.check_unchanged()
