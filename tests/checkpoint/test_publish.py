"""Files and folders appear whole or not at all, whatever call fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from liontool.checkpoint import publish
from liontool.checkpoint.system import SYSTEM
from liontool.errors import (
    NoSpaceError,
    OutputExistsError,
    PublishError,
    SourceChangedError,
    UnsafePathError,
)
from support.faults import Faults, unsupported

Contents = dict[str, "bytes | str"]

NEW: Contents = {"": b"new"}
OLD: Contents = {"": b"old"}
NEW_FOLDER: Contents = {"a": b"new", "deep/er/b": b"new", "link": "a"}
OLD_FOLDER: Contents = {"a": b"old", "only/old": b"old"}


def contents(path: Path) -> Contents | None:
    """What a file or folder holds; links as what they point to."""
    if not os.path.lexists(path):
        return None
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        str(file.relative_to(path)): os.readlink(file) if file.is_symlink() else file.read_bytes()
        for file in path.rglob("*")
        if file.is_symlink() or not file.is_dir()
    }


def write_file(target: Path, force: bool) -> None:
    with publish.new_file(target, size=3, force=force) as out:
        SYSTEM.write(out.fd, b"new")


def write_folder(target: Path, force: bool) -> None:
    with publish.new_folder(target, size=6, force=force) as out:
        for name, data in NEW_FOLDER.items():
            if isinstance(data, str):
                out.link(name, data)
                continue
            with out.file(name) as file:
                SYSTEM.write(file.fd, data)


def make_old(target: Path, old: Contents) -> None:
    for name, data in old.items():
        path = target / name if name else target
        path.parent.mkdir(parents=True, exist_ok=True)
        assert isinstance(data, bytes)
        path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder; nothing hidden may be left in it."""
    path = tmp_path / "out"
    path.mkdir()
    yield path
    assert [name for name in os.listdir(path) if name.startswith(".")] == []


# --- what appears -------------------------------------------------------------------------------


def test_a_file_appears_when_it_is_done(folder: Path) -> None:
    """Until the body ends there is no target."""
    with publish.new_file(folder / "x", size=3, force=False) as out:
        os.write(out.fd, b"new")
        assert not (folder / "x").exists()
        assert [name.endswith(publish.SUFFIX) for name in os.listdir(folder)] == [True]
    assert contents(folder / "x") == NEW


def test_a_folder_appears_when_it_is_done(folder: Path) -> None:
    """Files, folders and links in it are there all at once."""
    write_folder(folder / "x", force=False)
    assert contents(folder / "x") == NEW_FOLDER


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(folder: Path, mask: int) -> None:
    """A result has the mode of any new file and folder."""
    before = os.umask(mask)
    try:
        write_file(folder / "x", force=False)
        write_folder(folder / "y", force=False)
    finally:
        os.umask(before)
    assert (folder / "x").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (folder / "y").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (folder / "y" / "a").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("exists", [True, False])
def test_a_linked_target_is_followed(folder: Path, tmp_path: Path, exists: bool) -> None:
    """The link stays a link, and the file beside which to write is the real one."""
    real = tmp_path / "elsewhere"
    real.mkdir()
    if exists:
        (real / "y").write_bytes(b"old")
    (folder / "x").symlink_to(real / "y")
    write_file(folder / "x", force=exists)
    assert (folder / "x").is_symlink()
    assert contents(real / "y") == NEW
    assert os.listdir(real) == ["y"]


def test_all_is_flushed_before_and_after_the_name_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes are durable before the rename, and the rename before the call returns."""
    faults = Faults(monkeypatch, OSError, fail_at=10**9)
    write_file(folder / "x", force=False)
    order = [name for name in faults.names if name in ("write", "fsync", "rename_new")]
    assert order == ["write", "fsync", "rename_new", "fsync"]


def test_every_folder_is_flushed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files, three folders and the parent."""
    faults = Faults(monkeypatch, OSError, fail_at=10**9)
    write_folder(folder / "x", force=False)
    assert faults.names.count("fsync") == 6
    assert faults.names[faults.names.index("rename_new") + 1 :].count("fsync") == 1


# --- what is refused ----------------------------------------------------------------------------

WRITERS = [(write_file, OLD, NEW), (write_folder, OLD_FOLDER, NEW_FOLDER)]
Writer = Callable[[Path, bool], None]


@pytest.mark.parametrize(("write", "old", "new"), WRITERS)
def test_nothing_is_overwritten_without_force(
    folder: Path, write: Writer, old: Contents, new: Contents
) -> None:
    """What is there stays, and the message has both ways out."""
    make_old(folder / "x", old)
    with pytest.raises(OutputExistsError, match=r"x: is there already; .* -o, or .* --force"):
        write(folder / "x", False)
    assert contents(folder / "x") == old


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_only_its_own_kind_is_replaced(folder: Path, kind: str) -> None:
    """A file replaces neither a folder nor a device, not even with force."""
    target = folder / "x"
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(target)
    with pytest.raises(PublishError, match="x: is not a regular file, so it is not replaced"):
        write_file(target, force=True)


def test_a_folder_does_not_replace_a_file(folder: Path) -> None:
    """A name that is a file stays one."""
    make_old(folder / "x", OLD)
    with pytest.raises(PublishError, match="x: is not a folder, so it is not replaced"):
        write_folder(folder / "x", force=True)
    assert contents(folder / "x") == OLD


def test_the_parent_must_be_there(folder: Path) -> None:
    """A mistyped folder is not made."""
    with pytest.raises(PublishError, match=r"there is no folder .*nowhere; make it first"):
        write_file(folder / "nowhere" / "x", force=False)


def test_space_is_checked_before_the_first_byte(folder: Path) -> None:
    """The message says what is needed, what is free and where."""
    with (
        pytest.raises(
            NoSpaceError, match=r"x: needs [\d,]+ bytes, and .*out has [\d,]+ bytes free"
        ),
        publish.new_file(folder / "x", size=1 << 60, force=False),
    ):
        pytest.fail("the body must not run")


def test_a_file_system_that_knows_no_sizes_is_trusted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zero blocks in all means that nobody has counted."""
    nothing = SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=4096)
    monkeypatch.setattr(SYSTEM, "statvfs", lambda _: nothing)
    write_file(folder / "x", force=False)
    assert contents(folder / "x") == NEW


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_no_space(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Somebody else took the space in the meantime."""
    unsupported(monkeypatch, code, "write")
    with pytest.raises(
        NoSpaceError, match=r"x: needs 3 bytes.* free, but a quota or another writer was in the way"
    ):
        write_file(folder / "x", force=False)


def test_other_errors_have_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the name and what the system said."""
    unsupported(monkeypatch, errno.EIO, "fsync")
    with pytest.raises(PublishError, match=r"x: cannot be written: not supported here$"):
        write_file(folder / "x", force=False)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ""])
def test_names_stay_in_the_folder(folder: Path, name: str) -> None:
    """No name climbs out of the folder that is written."""
    with (
        pytest.raises(UnsafePathError, match="leads out of the folder that is being written"),
        publish.new_folder(folder / "x", size=0, force=False) as out,
    ):
        out.link(name, "a")


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    """A link in the folder is never taken for a folder."""

    def write() -> None:
        with publish.new_folder(folder / "x", size=0, force=False) as out:
            out.link("a", str(tmp_path))
            with out.file("a/b"):
                pytest.fail("the file must not be made")

    with pytest.raises(PublishError, match="x: cannot be written: File exists"):
        write()


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("write", "old", "new"), WRITERS)
def test_the_last_check_can_call_it_off(
    folder: Path, write: Writer, old: Contents, new: Contents, force: bool
) -> None:
    """An exception of `before_publish` comes through, and nothing has changed."""
    if force:
        make_old(folder / "x", old)

    def changed() -> None:
        raise SourceChangedError("the run is still writing")

    make = publish.new_file if write is write_file else publish.new_folder
    with (
        pytest.raises(SourceChangedError, match="still writing"),
        make(folder / "x", size=0, force=force, before_publish=changed),
    ):
        pass
    assert contents(folder / "x") == (old if force else None)


FALLBACKS = {
    "renameat2": (),
    "link": ("rename_new", "exchange"),
    "neither": ("rename_new", "exchange", "link"),
}


@pytest.mark.parametrize("missing", FALLBACKS)
@pytest.mark.parametrize(("write", "old", "new"), WRITERS)
def test_a_target_that_appears_meanwhile_is_not_overwritten(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Writer,
    old: Contents,
    new: Contents,
    missing: str,
) -> None:
    """Whoever takes the name between the check and the rename keeps it, on every file system."""
    unsupported(monkeypatch, errno.EINVAL, *FALLBACKS[missing])
    make = publish.new_file if write is write_file else publish.new_folder
    with (
        pytest.raises(OutputExistsError, match="x: is there already"),
        make(folder / "x", size=0, force=False, before_publish=lambda: make_old(folder / "x", old)),
    ):
        pass
    assert contents(folder / "x") == old


@pytest.mark.parametrize("missing", FALLBACKS)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("write", "old", "new"), WRITERS)
def test_every_file_system_will_do(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Writer,
    old: Contents,
    new: Contents,
    force: bool,
    missing: str,
) -> None:
    """Without renameat2 and without hard links the result is the same."""
    if force:
        make_old(folder / "x", old)
    unsupported(monkeypatch, errno.ENOSYS, *FALLBACKS[missing])
    write(folder / "x", force)
    assert contents(folder / "x") == new
    assert os.listdir(folder) == ["x"]


ERRORS: dict[str, Callable[[], BaseException]] = {
    "EIO": lambda: OSError(errno.EIO, "Input/output error"),
    "ENOSPC": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "EINVAL": lambda: OSError(errno.EINVAL, "Invalid argument"),
    "Ctrl-C": KeyboardInterrupt,
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("missing", FALLBACKS)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("write", "old", "new"), WRITERS)
def test_each_call_may_fail(
    tmp_path: Path,
    write: Writer,
    old: Contents,
    new: Contents,
    force: bool,
    missing: str,
    error: str,
) -> None:
    """Whichever call fails, there is the old or the new target, whole, and nothing beside it."""
    struck, number = True, 0
    while struck:
        folder = tmp_path / str(number)
        folder.mkdir()
        if force:
            make_old(folder / "x", old)
        with pytest.MonkeyPatch.context() as patch:
            unsupported(patch, errno.ENOSYS, *FALLBACKS[missing])
            patch.setattr(SYSTEM, "fsync", lambda _: None)  # the disk would take most of the time
            faults = Faults(patch, ERRORS[error], number)
            try:
                write(folder / "x", force)
                expected = [new]
            except (PublishError, KeyboardInterrupt):
                expected = [old if force else None]
                if error == "Ctrl-C" and faults.names[number] in ("unlink", "rmtree"):
                    expected = [new]  # too late to take back what is durable
            struck = faults.struck
        assert contents(folder / "x") in expected, faults.names
        assert set(os.listdir(folder)) <= {"x"}, faults.names
        number += 1
    assert number > 5


def test_what_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If clean-up fails for good, the message says what to delete."""
    unsupported(monkeypatch, errno.EIO, "fsync", "unlink")
    with pytest.raises(PublishError, match=r"x: cannot be written: .*; delete .*liontool-tmp$"):
        write_file(tmp_path / "x", force=False)


def test_an_old_one_that_stays_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is there, and the message says so."""
    make_old(tmp_path / "x", OLD)
    unsupported(monkeypatch, errno.EIO, "unlink")
    with pytest.raises(
        PublishError, match=r"x: is written, but the old one stayed behind: .*delete"
    ):
        write_file(tmp_path / "x", force=True)
    assert contents(tmp_path / "x") == NEW


def test_folders_that_need_no_flush(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems say EINVAL to the flush of a folder."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd)

    monkeypatch.setattr(SYSTEM, "fsync", fsync)
    write_file(folder / "x", force=False)
    assert contents(folder / "x") == NEW


# --- in place -----------------------------------------------------------------------------------


def replace_file(target: Path, keep: Path | None) -> None:
    place = publish.InPlace(keep)
    with publish.new_file(target, size=3, force=False, in_place=place) as out:
        SYSTEM.write(out.fd, b"new")


def replace_folder(target: Path, keep: Path | None) -> None:
    place = publish.InPlace(keep)
    with publish.new_folder(target, size=3, force=False, in_place=place) as out:
        for name, data in NEW_FOLDER.items():
            if isinstance(data, str):
                out.link(name, data)
                continue
            with out.file(name) as file:
                SYSTEM.write(file.fd, data)


REPLACERS = [(replace_file, OLD, NEW), (replace_folder, OLD_FOLDER, NEW_FOLDER)]
Replacer = Callable[[Path, "Path | None"], None]


@pytest.mark.parametrize("missing", ["renameat2", "link"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(("write", "old", "new"), REPLACERS)
def test_the_old_one_is_kept_if_asked_for(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Replacer,
    old: Contents,
    new: Contents,
    kept: bool,
    missing: str,
) -> None:
    """In place needs no force; the new one has the mode of the old one."""
    make_old(folder / "x", old)
    (folder / "x").chmod(0o750)
    unsupported(monkeypatch, errno.EINVAL, *FALLBACKS[missing])
    write(folder / "x", folder / "x.orig" if kept else None)
    assert contents(folder / "x") == new
    assert contents(folder / "x.orig") == (old if kept else None)
    assert (folder / "x").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("missing", ["renameat2", "link"])
@pytest.mark.parametrize(("write", "old", "new"), REPLACERS)
def test_an_older_backup_is_never_overwritten(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Replacer,
    old: Contents,
    new: Contents,
    missing: str,
) -> None:
    """Neither one that is there from the first, nor one that appears meanwhile."""
    make_old(folder / "x", old)
    unsupported(monkeypatch, errno.EINVAL, *FALLBACKS[missing])
    make = publish.new_file if write is replace_file else publish.new_folder
    backup = folder / "x.orig"
    with (
        pytest.raises(OutputExistsError, match=r"x\.orig: is there already, .*--no-backup"),
        make(
            folder / "x",
            size=0,
            force=False,
            in_place=publish.InPlace(backup),
            before_publish=lambda: backup.write_bytes(b"older") and None,
        ),
    ):
        pass
    with pytest.raises(OutputExistsError, match=r"x\.orig: is there already"):
        write(folder / "x", backup)
    assert contents(folder / "x") == old
    assert backup.read_bytes() == b"older"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("missing", ["renameat2", "link"])
@pytest.mark.parametrize(("write", "old", "new"), REPLACERS)
def test_each_call_may_fail_in_place(
    tmp_path: Path, write: Replacer, old: Contents, new: Contents, missing: str, error: str
) -> None:
    """Whichever call fails, there is the old one alone, or the new one and the backup."""
    struck, number = True, 0
    while struck:
        folder = tmp_path / str(number)
        folder.mkdir()
        make_old(folder / "x", old)
        with pytest.MonkeyPatch.context() as patch:
            unsupported(patch, errno.ENOSYS, *FALLBACKS[missing])
            patch.setattr(SYSTEM, "fsync", lambda _: None)
            faults = Faults(patch, ERRORS[error], number)
            try:
                write(folder / "x", folder / "x.orig")
                expected = (new, old)
            except (PublishError, KeyboardInterrupt):
                expected = (old, None)
            struck = faults.struck
        found = (contents(folder / "x"), contents(folder / "x.orig"))
        assert found == expected, faults.names
        assert set(os.listdir(folder)) <= {"x", "x.orig"}, faults.names
        number += 1
    assert number > 5
