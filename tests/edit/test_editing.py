"""Where an edit is written, what is kept, and how it is taken back."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from liontool import convert_checkpoint, edit_checkpoint, undo
from liontool.checkpoint import undo_record
from liontool.checkpoint.system import SYSTEM
from liontool.errors import EditError, LiontoolError, OutputExistsError, PublishError
from liontool.inspect.opening import opened
from support.edited_runs import load, network, save_plain, save_shards, tear
from support.faults import Faults, unsupported

WORD = "drop:state.head.*"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A torch file."""
    return save_plain(tmp_path / "run.ckpt")


@pytest.fixture
def state(plain: Path) -> Path:
    """A safetensors file of liontool's own, alone in a folder."""
    path = plain.parent / "own" / "state.safetensors"
    path.parent.mkdir()
    convert_checkpoint(plain, lr_ratio=3, output=path)
    return path


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- to another place ---------------------------------------------------------------------------


def test_the_result_is_beside_the_source(plain: Path) -> None:
    """The source stays as it is, and nothing else appears."""
    before = plain.read_bytes()
    report = edit_checkpoint(plain, [WORD])
    assert report.output == str(plain.with_name("run.edited.ckpt"))
    assert (report.how, report.backup, report.undo) == ("copy", None, None)
    assert plain.read_bytes() == before
    assert listing(plain.parent) == ["run.ckpt", "run.edited.ckpt"]
    assert load(Path(report.output))["step"] == 3


@pytest.mark.parametrize(
    ("name", "edited"),
    [("a.pth.tar", "a.edited.pth.tar"), ("a", "a.edited"), ("a.b.pt", "a.b.edited.pt")],
)
def test_names_keep_their_endings(tmp_path: Path, name: str, edited: str) -> None:
    """The container is told by the name as before."""
    report = edit_checkpoint(save_plain(tmp_path / name), [WORD])
    assert Path(report.output).name == edited


def test_a_result_that_is_there_is_replaced_only_by_force(plain: Path) -> None:
    """Like every output of liontool."""
    output = plain.with_name("out.ckpt")
    output.write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"out\.ckpt: is there already"):
        edit_checkpoint(plain, [WORD], output=output)
    edit_checkpoint(plain, [WORD], output=output, force=True)
    assert load(output)["step"] == 3


def test_the_source_is_no_output(plain: Path) -> None:
    """Changing it takes a word of its own."""
    with pytest.raises(PublishError, match=r"is the source itself; to change it there: --in-place"):
        edit_checkpoint(plain, [WORD], output=plain, force=True)


def test_the_container_stays(plain: Path, state: Path) -> None:
    """A name that promises another one is refused."""
    with pytest.raises(PublishError, match=r"keeps the container, which is torch zip; .*'\.ckpt'"):
        edit_checkpoint(plain, [WORD], output=plain.with_name("x.safetensors"))
    with pytest.raises(PublishError, match="keeps the container, which is safetensors"):
        edit_checkpoint(state, ["meta.a=b"], output=state.with_name("x.pt"))


def test_two_places_are_refused(plain: Path) -> None:
    """In place or elsewhere."""
    with pytest.raises(ValueError, match="in place or to another name, not both"):
        edit_checkpoint(plain, [WORD], output="x.ckpt", in_place=True)


def test_one_word_is_a_list_too() -> None:
    """A string would be a list of letters."""
    with pytest.raises(ValueError, match="edits are a list of words"):
        edit_checkpoint("x.ckpt", WORD)


def test_no_words_are_refused(plain: Path) -> None:
    """There is nothing to do."""
    with pytest.raises(ValueError, match="no edit is given; an edit is"):
        edit_checkpoint(plain, [])


def test_a_dry_run_writes_nothing(plain: Path, state: Path) -> None:
    """It tells what would change, and what is in the way."""
    plain.with_name("run.edited.ckpt").write_bytes(b"mine")
    report = edit_checkpoint(plain, [WORD], dry_run=True)
    assert report.dry_run
    assert [notice.id for notice in report.notices] == ["output-refused"]
    assert len(report.changes) == 6
    before = state.read_bytes()
    report = edit_checkpoint(state, ["meta.a=b"], dry_run=True, in_place=True)
    assert report.how == "header"
    assert state.read_bytes() == before
    assert listing(state.parent) == ["state.safetensors"]


def test_the_file_says_what_was_done(plain: Path) -> None:
    """Each edit adds to what the file says about itself, conversions included."""
    lion = plain.with_name("lion.ckpt")
    convert_checkpoint(plain, lr_ratio=3, output=lion)
    first = edit_checkpoint(lion, [WORD])
    second = edit_checkpoint(first.output, ["rename:layers=blocks"])
    facts = opened(second.output).source.document().facts
    record = json.loads(facts["provenance"])
    assert record == second.provenance
    assert record["rule"] == "adamw to lion"
    assert [edit["words"] for edit in record["edits"]] == [[WORD], ["rename:layers=blocks"]]
    assert record["edits"][1]["source"] == "lion.edited.ckpt"
    assert len(record["edits"][1]["source_header_sha256"]) == 64


def test_the_report_is_json(plain: Path) -> None:
    """All fields, and the version of the schema first."""
    found = edit_checkpoint(plain, [WORD], dry_run=True).to_dict()
    assert next(iter(found.items())) == ("schema", 1)
    assert json.loads(json.dumps(found)) == found
    assert found["changes"][0]["kind"] == "state"


# --- in place: written anew ---------------------------------------------------------------------


def test_in_place_keeps_the_old_one(plain: Path) -> None:
    """Under the name with `.orig`, byte for byte; the mode stays."""
    before = plain.read_bytes()
    plain.chmod(0o600)
    report = edit_checkpoint(plain, [WORD], in_place=True)
    assert report.backup == f"{plain}.orig"
    assert Path(report.backup).read_bytes() == before
    assert listing(plain.parent) == ["run.ckpt", "run.ckpt.orig"]
    assert plain.stat().st_mode & 0o777 == 0o600
    assert len(load(plain)["optimizer"]["state"]) == 4


def test_an_older_backup_stops_the_edit(plain: Path) -> None:
    """It may be the only good one; the way out is named, and works."""
    edit_checkpoint(plain, [WORD], in_place=True)
    once, kept = plain.read_bytes(), plain.with_name("run.ckpt.orig").read_bytes()
    with pytest.raises(OutputExistsError, match=r"run\.ckpt\.orig: is there already.*--no-backup"):
        edit_checkpoint(plain, ["drop:state.*"], in_place=True)
    assert plain.read_bytes() == once
    report = edit_checkpoint(plain, ["drop:state.*"], in_place=True, backup=False)
    assert report.backup is None
    assert plain.with_name("run.ckpt.orig").read_bytes() == kept
    assert load(plain)["optimizer"]["state"] == {}


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    """And kept whole."""
    folder = tmp_path / "model"
    tensors = save_shards(folder)
    edit_checkpoint(folder, ["rename:head=h"], in_place=True)
    assert sorted(load_file(folder / "b.safetensors")) == ["h.bias", "h.weight"]
    assert sorted(load_file(tmp_path / "model.orig" / "b.safetensors")) == [
        name for name in sorted(tensors) if name.startswith("head")
    ]


def test_an_edit_that_changes_nothing_writes_nothing(state: Path) -> None:
    """In place there is nothing to do then."""
    edit_checkpoint(state, ["meta.a=b"], in_place=True, backup=False)
    before = state.read_bytes()
    report = edit_checkpoint(state, ["meta.a=b"], in_place=True)
    assert report.how == "nothing"
    assert report.changes == ()
    assert state.read_bytes() == before
    assert listing(state.parent) == ["state.safetensors"]


def test_undo_of_a_file_written_anew_names_the_way(plain: Path) -> None:
    """The old one is there already; a move is all it takes."""
    edit_checkpoint(plain, [WORD], in_place=True)
    with pytest.raises(EditError, match=r"wrote it anew.*: mv -T .*run\.ckpt\.orig .*run\.ckpt$"):
        undo(plain)


@pytest.mark.parametrize("missing", ["nothing", "folder"])
def test_undo_needs_something_to_go_back_by(plain: Path, missing: str) -> None:
    """What was never edited cannot be taken back."""
    if missing == "nothing":
        with pytest.raises(EditError, match=r"no run\.ckpt\.undo beside it"):
            undo(plain)
    else:
        with pytest.raises(EditError, match="is no file, and only files are edited"):
            undo(plain.parent)


# --- in place: the header -----------------------------------------------------------------------


def test_names_and_metadata_touch_the_header_alone(state: Path) -> None:
    """The tensors stay where they are; `--undo` brings every byte back."""
    before, inode = state.read_bytes(), state.stat().st_ino
    report = edit_checkpoint(state, ["meta.author=me", "rename:layers=blocks"], in_place=True)
    assert (report.how, report.undo, report.backup) == ("header", f"{state}.undo", None)
    assert report.notices == ()
    after = state.read_bytes()
    length = 8 + int.from_bytes(before[:8], "little")
    assert after[length:] == before[length:]
    assert state.stat().st_ino == inode
    state.with_name("old.safetensors").write_bytes(before)
    old, new = load_file(state.with_name("old.safetensors")), load_file(state)
    for name, tensor in old.items():
        assert torch.equal(tensor, new[name.replace("layers", "blocks")])
    assert undo(state).left == 0
    assert state.read_bytes() == before


def test_hyperparameters_touch_the_header_alone(state: Path) -> None:
    """Groups are text in a state file, so a learning rate takes no copy either."""
    report = edit_checkpoint(state, ["lr=x0.5", "groups.1.weight_decay=0.25"], in_place=True)
    assert report.how == "header"
    found = opened(state).checkpoint
    assert found is not None
    first, second = (group.fields for group in found.optimizers[0].groups)
    old = convert_checkpoint(state.parent.parent / "run.ckpt", lr_ratio=3, dry_run=True)
    assert first["lr"] == old.optimizers[0].groups_after[0]["lr"] * 0.5
    assert second["weight_decay"] == 0.25
    where = {change.where for change in report.changes if change.kind == "group"}
    assert {"groups.0.lr", "groups.1.lr", "groups.1.weight_decay"} <= where


def test_without_backup_no_record_stays(state: Path) -> None:
    """`--no-backup` leaves the file alone in its folder."""
    report = edit_checkpoint(state, ["meta.a=b"], in_place=True, backup=False)
    assert (report.how, report.undo) == ("header", None)
    assert listing(state.parent) == ["state.safetensors"]


def test_a_header_without_room_is_written_anew(tmp_path: Path) -> None:
    """A file of another program has no reserve; the new one has."""
    path = tmp_path / "model.safetensors"
    save_file(network().state_dict(), path, {"format": "pt"})
    report = edit_checkpoint(path, ["meta.author=me"], in_place=True)
    assert report.how == "copy"
    assert [notice.id for notice in report.notices] == ["written-anew"]
    assert "no room" in report.notices[0].text
    assert listing(tmp_path) == ["model.safetensors", "model.safetensors.orig"]
    report = edit_checkpoint(path, ["meta.author=you"], in_place=True)
    assert report.how == "header"
    undo(path)
    assert opened(path).source.document().facts["author"] == "me"


def test_a_second_name_keeps_what_it_has(state: Path) -> None:
    """A snapshot by hard links is not edited with the file."""
    snapshot = state.with_name("snapshot")
    os.link(state, snapshot)
    before = snapshot.read_bytes()
    report = edit_checkpoint(state, ["meta.a=b"], in_place=True)
    assert report.how == "copy"
    assert "second name (hard link)" in report.notices[0].text
    assert snapshot.read_bytes() == before


def test_a_torn_header_is_read_and_then_restored(state: Path) -> None:
    """Commands that only read say so and write nothing; the next edit in place mends it."""
    edit_checkpoint(state, ["meta.author=me"], in_place=True)
    torn = tear(state)
    report = edit_checkpoint(state, ["meta.title=x"], dry_run=True)
    assert [notice.id for notice in report.notices] == ["torn-header"]
    assert state.read_bytes()[: len(torn)] == torn
    report = edit_checkpoint(state, ["meta.title=x"], in_place=True)
    assert report.notices == ()
    facts = opened(state).source.document().facts
    assert facts["title"] == "x"
    assert "author" not in facts


def test_any_call_may_fail(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds the whole edit or none of it."""
    before, number, struck = state.read_bytes(), 0, True
    monkeypatch.setattr(SYSTEM, "fsync", lambda _: None)
    while struck:
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, lambda: OSError(errno.EIO, "I/O error"), number)
            try:
                edit_checkpoint(state, ["meta.a=b"], in_place=True)
                expected = {"b"}
            except LiontoolError:
                expected = {None, "b"} if "pwrite" in faults.names else {None}
            struck = faults.struck
        facts = opened(state).source.document().facts
        assert facts.get("a") in expected, faults.names
        state.write_bytes(before)
        undo_record.place(state).unlink(missing_ok=True)
        number += 1
    assert number > 10


def test_a_disk_that_is_full_changes_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the record can be written."""
    before = state.read_bytes()
    unsupported(monkeypatch, errno.ENOSPC, "write")
    with pytest.raises(PublishError, match=r"state\.safetensors\.undo: needs"):
        edit_checkpoint(state, ["meta.a=b"], in_place=True)
    assert state.read_bytes() == before
    assert listing(state.parent) == ["state.safetensors"]


def test_the_size_of_the_file_does_not_matter(tmp_path: Path) -> None:
    """500 GB, all of it a hole but the header, take as long as a few bytes."""
    small = tmp_path / "small.safetensors"
    save_file({"w": torch.zeros(4)}, small)
    own = Path(edit_checkpoint(small, ["meta.a=b"]).output).read_bytes()
    length = int.from_bytes(own[:8], "little")
    count = 500_000_000_000 // 4
    header = json.loads(own[8 : 8 + length])
    header["w"] |= {"shape": [count], "data_offsets": [0, 4 * count]}
    path = tmp_path / "huge.safetensors"
    path.write_bytes(own[:8] + json.dumps(header).encode().ljust(length))
    os.truncate(path, 8 + length + 4 * count)
    begin = time.perf_counter()
    report = edit_checkpoint(path, ["meta.a=c", "rename:w=weight"], in_place=True)
    took = time.perf_counter() - begin
    assert report.how == "header"
    assert took < 1.0
    assert path.stat().st_blocks * 512 < 1 << 20
    assert list(opened(path).source.document().tree) == ["weight"]
    undo(path)
    assert list(opened(path).source.document().tree) == ["w"]
