"""Every byte of a checkpoint is compared with its COMMIT, and the system's faults are not its."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liontool.checkpoint.run_folder.checking import check, read_commit
from liontool.checkpoint.run_folder.commit import Commit
from liontool.checkpoint.run_folder.hashing import hash_of
from liontool.checkpoint.run_folder.layout import COMMIT
from liontool.checkpoint.system import SYSTEM
from liontool.errors import DamagedError, LayoutError, ReadError, UnfinishedError
from support.checkpoints import TENSORS, TREE, commit_of, flipped, saved
from support.faults import Faults
from support.odd_files import make_device, make_socket


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path, 1200, metric=0.5)


def test_good(folder: Path) -> None:
    """A good checkpoint gives its COMMIT, and progress up to its last byte."""
    seen: list[tuple[int, int]] = []
    commit = check(folder, progress=lambda *pair: seen.append(pair))
    assert (commit.step, commit.epoch, commit.metric) == (1200, 12, 0.5)
    assert seen[-1] == (commit.size, commit.size)
    assert read_commit(folder) == commit


def test_several_blocks(tmp_path: Path) -> None:
    """Files larger than a block are compared to their end."""
    folder = saved(tmp_path, 1, files={TENSORS: bytes(3_000_000)})
    assert check(folder).size > 3_000_000
    flipped(folder / TENSORS, 8 * 2_999_999)
    with pytest.raises(DamagedError, match="safetensors is damaged: its bytes are not"):
        check(folder)


def test_wrong_bytes(folder: Path) -> None:
    """A flipped bit names its file; whoever compares sizes only does not see it."""
    flipped(folder / TENSORS)
    assert read_commit(folder).step == 1200
    with pytest.raises(DamagedError, match=r"step-0000001200: state-0\.safetensors is damaged"):
        check(folder)


def test_every_bit_of_commit(folder: Path) -> None:
    """No flipped bit of COMMIT goes unseen, and no byte less or more."""
    good = (folder / COMMIT).read_bytes()
    for bit in range(8 * len(good)):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            Commit.decoded(bytes(data))
    for length in range(len(good)):
        with pytest.raises(DamagedError, match="its hash is not that of its content"):
            Commit.decoded(good[:length])
    with pytest.raises(DamagedError):
        Commit.decoded(good + b"\n")


@pytest.mark.parametrize("data", [b"", b"tensors 12", b"tensors 12000"])
def test_wrong_size(folder: Path, data: bytes) -> None:
    """A file of another size is found without reading it."""
    (folder / TENSORS).write_bytes(data)
    with pytest.raises(DamagedError, match=f"it has {len(data)} bytes instead of 12"):
        read_commit(folder)


def test_grows_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that gets longer after the look at its size is damaged, and not read for ever."""
    real = SYSTEM.preadv

    def growing(*args: Any) -> int:
        with (folder / TENSORS).open("ab") as file:
            file.write(b"more")
        return real(*args)

    monkeypatch.setattr(SYSTEM, "preadv", growing)
    with pytest.raises(DamagedError, match="safetensors is damaged"):
        check(folder)


def test_missing_file(folder: Path) -> None:
    """A file that COMMIT lists must be there."""
    (folder / TREE).unlink()
    with pytest.raises(DamagedError, match=r"state-0\.json is missing"):
        read_commit(folder)


def test_file_too_many(folder: Path) -> None:
    """A file that COMMIT does not list must not be there."""
    (folder / "evil.pt").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"has 'evil\.pt', which COMMIT does not list"):
        read_commit(folder)


def test_hidden_files_are_not_ours(folder: Path) -> None:
    """What a file browser leaves in a checkpoint is no damage, and is never read."""
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / name).write_bytes(b"\0")
    assert check(folder) == read_commit(folder)


def test_names_that_differ_in_case() -> None:
    """They are one file on some file systems, so no COMMIT lists them."""
    data = commit_of({"state-0.json": b"", "State-0.json": b""}, 1).encoded()
    with pytest.raises(DamagedError, match="two names differ in nothing but case"):
        Commit.decoded(data)


def test_no_commit(folder: Path) -> None:
    """Without COMMIT a checkpoint does not count."""
    (folder / COMMIT).unlink()
    with pytest.raises(UnfinishedError, match="has no COMMIT: it was never finished"):
        check(folder)


def test_other_step(folder: Path) -> None:
    """A renamed checkpoint would be taken for a newer one than it is."""
    renamed = folder.rename(folder.with_name("step-0000009999"))
    with pytest.raises(DamagedError, match=r"COMMIT is that of step 1,200; was it renamed\?"):
        check(renamed)
    assert check(renamed.rename(folder.with_name("a copy"))).step == 1200


def test_newer_layout(folder: Path) -> None:
    """What a newer liontool wrote is not damaged: the message says what to update."""
    line = (folder / COMMIT).read_bytes().splitlines()[0]
    newer = line.replace(b'"liontool.commit": 1', b'"liontool.commit": 2')
    (folder / COMMIT).write_bytes(b"%s\n%s\n" % (newer, hash_of(newer).encode()))
    with pytest.raises(LayoutError, match=r"step-0000001200: COMMIT: layout 2 .* pip install -U"):
        check(folder)


# --- what is no file ----------------------------------------------------------------------------


def _link(path: Path) -> None:
    path.symlink_to(path.rename(path.parent.parent / "outside"))


NO_FILES: dict[str, Callable[[Path], None]] = {
    "a link": _link,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": make_device,
}


@pytest.mark.parametrize("name", [COMMIT, TENSORS])
@pytest.mark.parametrize("kind", NO_FILES)
def test_no_file(folder: Path, kind: str, name: str) -> None:
    """Only regular files are opened: no link is followed, no pipe waited for, no device used."""
    path = folder / name
    if kind != "a link":
        path.unlink()
    NO_FILES[kind](path)
    with pytest.raises(DamagedError, match=f"{name} is {kind}, not a file"):
        check(folder)


def test_folder_is_a_link(folder: Path) -> None:
    """A checkpoint that is a link to another place is not followed either."""
    folder.symlink_to(folder.rename(folder.parent / "elsewhere"))
    with pytest.raises(DamagedError, match="is a link, not a folder"):
        check(folder)


def test_hard_links(folder: Path) -> None:
    """Copies made with `cp -al` are as good as any: only the bytes count."""
    os.link(folder / TENSORS, folder.parent / "copy")
    assert check(folder).step == 1200


# --- what is the system's fault -----------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("at", range(6))
def test_unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, at: int) -> None:
    """A call that the system refuses is an error of reading, whichever it is."""
    faults = Faults(monkeypatch, lambda: OSError(code, os.strerror(code)), at)
    with pytest.raises(ReadError, match=f"cannot be read: {os.strerror(code)}") as caught:
        check(folder)
    assert faults.struck
    assert not isinstance(caught.value, (DamagedError, UnfinishedError))


@pytest.mark.parametrize("at", range(4))
def test_taken_away(folder: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """A trainer that removes the checkpoint meanwhile has not damaged it."""
    real, calls = SYSTEM.open, iter(range(100))

    def racing(path: Any, *args: Any, **kwargs: Any) -> int:
        if next(calls) == at:
            hidden = folder.rename(folder.with_name("hidden"))
            shutil.rmtree(hidden)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(SYSTEM, "open", racing)
    with pytest.raises(ReadError, match="was taken away while it was being read; try again"):
        check(folder)
    assert not folder.exists()


# --- any bytes ----------------------------------------------------------------------------------

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
_GOOD = json.loads(commit_of({"a": b"1", "b": b"22"}, 3, 0.25).encoded().split(b"\n")[0])
_ENTRY = st.lists(_JSON, max_size=3) | _JSON
_NAMES = st.text(max_size=9) | st.sampled_from(["a", "../a", "/a", "a/b", "..", ".", "", "COMMIT"])


def _sealed(line: bytes) -> bytes:
    return b"%s\n%s\n" % (line, hash_of(line).encode())


def _decodes_or_is_refused(data: bytes) -> None:
    try:
        commit = Commit.decoded(data)
    except (DamagedError, LayoutError) as error:
        message = str(error)
    else:
        _is_valid(commit)
        return
    assert "\n" not in message


def _is_valid(commit: Commit) -> None:
    assert 0 <= commit.step < 10**10
    assert commit.epoch >= 0
    assert all(file.size >= 0 and len(file.hash) == 32 for file in commit.files.values())
    assert all("/" not in name and name[0] != "." for name in commit.files)
    assert Commit.decoded(commit.encoded()).files == commit.files


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Whatever stands in COMMIT, with a right hash and without, is valid or refused."""
    _decodes_or_is_refused(data)
    _decodes_or_is_refused(_sealed(data))


@given(st.dictionaries(st.sampled_from([*_GOOD, "more"]), _JSON, max_size=3))
def test_changed_fields(changes: dict[str, Any]) -> None:
    """A COMMIT whose fields were changed by somebody who can compute its hash."""
    _decodes_or_is_refused(_sealed(json.dumps(_GOOD | changes).encode()))


@given(st.dictionaries(_NAMES, _ENTRY, max_size=4))
def test_changed_files(files: dict[str, Any]) -> None:
    """The same for the list of the files."""
    _decodes_or_is_refused(_sealed(json.dumps(_GOOD | {"files": files}).encode()))


@given(st.integers(0, 400), st.binary(max_size=4), st.integers(0, 4))
def test_changed_bytes(at: int, put: bytes, cut: int) -> None:
    """The same for any few bytes of it."""
    line = json.dumps(_GOOD).encode()
    _decodes_or_is_refused(_sealed(line[:at] + put + line[at + cut :]))
