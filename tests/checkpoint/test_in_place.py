"""A header changed in place is the old or the new one, whatever happens, and can be taken back."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from liontool.checkpoint import in_place, undo_record
from liontool.checkpoint.formats import open_document
from liontool.checkpoint.formats.safetensors_file import SafetensorsDocument
from liontool.checkpoint.system import SYSTEM
from liontool.errors import (
    EditError,
    FormatError,
    LiontoolError,
    PublishError,
    SourceChangedError,
)
from support.faults import Death, Faults, Killed, unsupported

NAMES = ("exchange", "rename_new")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk would take most of the time."""
    monkeypatch.setattr(SYSTEM, "fsync", lambda _: None)


def make(folder: Path, text: str = "old") -> Path:
    """A small file; its header has room for a longer text."""
    path = folder / "x.safetensors"
    tensor = np.arange(40_000, dtype=np.float32)
    save_file({"w": tensor}, path, {"note": text + " " * 8})
    return path


def header(path: Path) -> bytes:
    data = path.read_bytes()
    return data[: 8 + int.from_bytes(data[:8], "little")]


def changed(old: bytes, text: bytes) -> bytes:
    """The same header with another text, as long."""
    start = old.index(b'"note":"') + 8
    end = old.index(b'"', start)
    return old[:start] + text.ljust(end - start) + old[end:]


def note(path: Path) -> str:
    """What a reader finds; it changes nothing."""
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    found = open_document(path).facts["note"].strip()
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    return found


def edit(path: Path, text: str, **options: bool) -> None:
    old = header(path)
    in_place.write_header(path, old, changed(old, text.encode()), **options)


# --- what it does -------------------------------------------------------------------------------


def test_a_header_changes_and_nothing_else(tmp_path: Path) -> None:
    """The tensors stay, the inode too, and the record is the way back."""
    path = make(tmp_path)
    before, inode = path.read_bytes(), path.stat().st_ino
    edit(path, "new")
    assert note(path) == "new"
    assert path.read_bytes()[len(header(path)) :] == before[len(header(path)) :]
    assert path.stat().st_ino == inode
    assert sorted(os.listdir(tmp_path)) == ["x.safetensors", "x.safetensors.undo"]
    assert in_place.undo(path) == 0
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_without_undo_no_record_is_left(tmp_path: Path) -> None:
    """`keep_undo=False` needs the record for a moment only."""
    path = make(tmp_path)
    edit(path, "new", keep_undo=False)
    assert note(path) == "new"
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_edits_are_taken_back_one_after_another(tmp_path: Path) -> None:
    """Each edit puts its record before those that are there, up to a number."""
    path = make(tmp_path)
    texts = [f"t{n}" for n in range(undo_record.MOST_RECORDS + 4)]
    for text in texts:
        edit(path, text)
    left = undo_record.MOST_RECORDS
    for text in reversed(texts[-left - 1 : -1]):
        left -= 1
        assert in_place.undo(path) == left
        assert note(path) == text
    with pytest.raises(EditError, match=r"there is no x.safetensors.undo beside it"):
        in_place.undo(path)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """The record lies beside the file itself, and is found through the link."""
    (tmp_path / "real").mkdir()
    path = make(tmp_path / "real")
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    edit(link, "new")
    assert sorted(os.listdir(path.parent)) == ["x.safetensors", "x.safetensors.undo"]
    tear(path)
    assert open_document(link).facts["note"].strip() == "old"


def test_another_name_of_the_file_rules_it_out(tmp_path: Path) -> None:
    """A hard link must not change with the file."""
    path = make(tmp_path)
    assert in_place.is_possible(path)
    os.link(path, tmp_path / "snapshot")
    assert not in_place.is_possible(path)


def test_the_record_is_durable_before_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flush of the record, its name, flush of the folder; then the header in one call, flushed."""
    path = make(tmp_path)
    faults = Faults(monkeypatch, OSError, fail_at=10**9)
    edit(path, "new")
    order = [name for name in faults.names if name in ("write", "pwrite", "fsync", *NAMES)]
    assert order == ["write", "fsync", "rename_new", "fsync", "pwrite", "fsync"]


# --- what is refused ----------------------------------------------------------------------------


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    """The header must be the one that the edit was made from."""
    path = make(tmp_path)
    old = header(path)
    with pytest.raises(SourceChangedError, match="was written to in the meantime; try again"):
        in_place.write_header(path, changed(old, b"other"), changed(old, b"new"))
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_the_last_check_can_call_it_off(tmp_path: Path) -> None:
    """Nothing is changed, and the record is gone again."""
    path = make(tmp_path)
    old = header(path)

    def refuse() -> None:
        raise SourceChangedError("the run is still writing")

    with pytest.raises(SourceChangedError, match="still writing"):
        in_place.write_header(path, old, changed(old, b"new"), before_write=refuse)
    assert header(path) == old
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_headers_of_two_lengths_are_a_mistake_of_ours(tmp_path: Path) -> None:
    """The tensors would not be where they are."""
    with pytest.raises(ValueError, match="as long as the one before it"):
        in_place.write_header(tmp_path, b"12", b"1")


def test_a_strange_file_in_the_place_of_the_record_is_left_alone(tmp_path: Path) -> None:
    """It is not ours to replace; nor is it a way back."""
    path = make(tmp_path)
    place = undo_record.place(path)
    place.write_bytes(b"my notes")
    with pytest.raises(PublishError, match=r"undo: is in the way, and is no record of an edit"):
        edit(path, "new")
    with pytest.raises(EditError, match="is damaged, or no record of an edit"):
        in_place.undo(path)
    assert place.read_bytes() == b"my notes"
    assert note(path) == "old"


def test_a_damaged_record_is_no_way_back(tmp_path: Path) -> None:
    """One wrong byte anywhere, and the record is not used."""
    path = make(tmp_path)
    edit(path, "new")
    place = undo_record.place(path)
    whole = place.read_bytes()
    for at in range(16, len(whole), 7):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(EditError, match="is damaged, or no record of an edit"):
            in_place.undo(path)
    for length in range(0, len(whole), 7):
        place.write_bytes(whole[:length])
        with pytest.raises(EditError, match="is damaged, or no record of an edit"):
            in_place.undo(path)
    assert note(path) == "new"


def test_a_record_of_another_file_is_not_used(tmp_path: Path) -> None:
    """A new checkpoint of the same name and size has other tensors."""
    path = make(tmp_path)
    edit(path, "new")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(EditError, match="was written to since it was edited"):
        in_place.undo(path)
    path.write_bytes(data[:20] + bytes(20) + data[40:])
    with pytest.raises(FormatError, match="the header is not valid JSON"):
        open_document(path)
    path.write_bytes(data)
    edit(path, "third")  # the useless record gives way
    assert in_place.undo(path) == 0
    assert note(path) == "new"


def test_an_edit_by_somebody_else_is_no_torn_header(tmp_path: Path) -> None:
    """A sound header with bytes that neither of ours has is read as it is."""
    path = make(tmp_path)
    edit(path, "new")
    foreign = changed(header(path), b"foreign")
    path.write_bytes(foreign + path.read_bytes()[len(foreign) :])
    assert note(path) == "foreign"
    with pytest.raises(EditError, match="was written to since it was edited"):
        in_place.undo(path)


def test_a_file_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the reason, and nothing is left behind."""
    path = make(tmp_path)
    unsupported(monkeypatch, errno.EIO, "pwrite")
    with pytest.raises(PublishError, match=r"its header cannot be written: not supported here$"):
        edit(path, "new")
    assert note(path) == "old"
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_half_a_header_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk fails in the middle of a header, the old one is put back over the half."""
    path = make(tmp_path)
    before, real, calls = path.read_bytes(), SYSTEM.pwrite, []

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 2:
            raise OSError(errno.EIO, "I/O error")
        length = len(data) // 2 if len(calls) == 1 else len(data)
        return real(fd, data[:length], offset)

    monkeypatch.setattr(SYSTEM, "pwrite", pwrite)
    with pytest.raises(PublishError, match="its header cannot be written: I/O error"):
        edit(path, "new" * 3)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_record_that_cannot_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit is done, and the message says what to delete."""
    path = make(tmp_path)
    unsupported(monkeypatch, errno.EIO, "unlink")
    with pytest.raises(PublishError, match=r"is edited, but .*undo stayed behind: .*; delete it"):
        edit(path, "new", keep_undo=False)
    assert note(path) == "new"


# --- what goes wrong ----------------------------------------------------------------------------


def tear(path: Path, kept: int = 1) -> None:
    """The header as a crash leaves it: the new one up to `kept` bytes that differ, then the old."""
    record = undo_record.newest(path)
    assert record is not None
    pairs = zip(record.old, record.new, strict=True)
    at = [i for i, (old, new) in enumerate(pairs) if old != new][kept]
    torn = record.new[:at] + record.old[at:]
    path.write_bytes(torn + path.read_bytes()[len(torn) :])


def test_a_torn_header_is_read_through_the_record(tmp_path: Path) -> None:
    """Wherever it is torn, the old one is read, and a notice says so."""
    path = make(tmp_path)
    edit(path, "new")
    for kept in (1, 2):
        tear(path, kept)
        assert note(path) == "old"
        document = SafetensorsDocument(path)
        assert document.notices
        assert "an edit of its header broke off" in document.notices[0]
        assert "liontool edit" in document.notices[0]
        assert in_place.restore(path)
        assert not in_place.restore(path)
        assert note(path) == "old"
        assert not SafetensorsDocument(path).notices


@pytest.mark.parametrize("seed", range(8))
def test_sectors_may_reach_the_disk_in_any_order(tmp_path: Path, seed: int) -> None:
    """Any mixture of both headers is told from either."""
    path = make(tmp_path, "abcdefgh")
    edit(path, "ijklmnop")
    record = undo_record.newest(path)
    assert record is not None
    chosen = random.Random(seed)
    mixed = bytes(chosen.choice(pair) for pair in zip(record.old, record.new, strict=True))
    assert mixed not in (record.old, record.new)
    path.write_bytes(mixed + path.read_bytes()[len(mixed) :])
    assert note(path) == "abcdefgh"
    assert in_place.undo(path) == 0
    assert header(path) == record.old


def test_a_header_of_garbage_is_read_through_the_record(tmp_path: Path) -> None:
    """What neither of ours has, and what is no header at all, is not read as one."""
    path = make(tmp_path)
    edit(path, "new")
    data = bytearray(path.read_bytes())
    data[20:40] = bytes(20)
    path.write_bytes(data)
    assert note(path) == "old"


@pytest.mark.parametrize("step", ["edit", "edit again", "no undo", "undo"])
def test_the_process_may_die_in_any_call_at_any_byte(tmp_path: Path, step: str) -> None:
    """Afterwards the file reads as before or as after, and can be edited and taken back."""
    at, struck = 0, True
    while struck:
        lengths = [0]
        for written in lengths:
            folder = tmp_path / f"{at}-{written}"
            folder.mkdir()
            path = make(folder)
            if step in ("edit again", "undo"):
                edit(path, "first")
            before = note(path)
            after = "old" if step == "undo" else "new"
            with pytest.MonkeyPatch.context() as patch:
                death = Death(patch, at, written)
                try:
                    if step == "undo":
                        in_place.undo(path)
                    else:
                        edit(path, "new", keep_undo=step != "no undo")
                except Killed:
                    pass
                struck = death.struck
            if written == 0 and struck and death.names[at] == "pwrite":
                lengths.extend(range(1, len(header(path)) + 1))
            assert note(path) in (before, after)
            edit_after(path)
        at += 1
    assert at > 8


def edit_after(path: Path) -> None:
    """Whatever a crash left, the next edit works and can be taken back."""
    in_place.restore(path)
    found = note(path)
    assert not SafetensorsDocument(path).notices
    edit(path, "third")
    assert note(path) == "third"
    in_place.undo(path)
    assert note(path) == found


@pytest.mark.parametrize("error", [lambda: OSError(errno.EIO, "I/O error"), KeyboardInterrupt])
@pytest.mark.parametrize("again", [False, True])
def test_any_call_may_fail(tmp_path: Path, error: type[BaseException], again: bool) -> None:
    """The file is as it was with the records that it had, or it is edited; never torn."""
    number, struck = 0, True
    while struck:
        folder = tmp_path / str(number)
        folder.mkdir()
        path = make(folder)
        if again:
            edit(path, "first")
        before = note(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SYSTEM, "fsync", lambda _: None)
            faults = Faults(patch, error, number)
            try:
                edit(path, "new")
                expected = {"new"}
            except (LiontoolError, KeyboardInterrupt):
                expected = {before, "new"} if "pwrite" in faults.names else {before}
            struck = faults.struck
        assert note(path) in expected, faults.names
        assert not SafetensorsDocument(path).notices, faults.names
        assert {name for name in os.listdir(folder) if name.startswith(".")} == set()
        if note(path) == "first":
            assert in_place.undo(path) == 0
            assert note(path) == "old"
        number += 1
    assert number > 8
