"""`verify` on torch files: every fault of zip, pickle and storages has its finding."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from liontool.errors import FormatError
from liontool.inspect.verify import verify
from support.finding_files import (
    Records,
    changed_bytes,
    changed_records,
    directory_field,
    found,
    pickled,
    records,
    torch_file,
    zipped,
)


def without(end: str) -> Callable[[Records], Records]:
    return lambda entries: [(name, data) for name, data in entries if not name.endswith(end)]


def exchanged(end: str, data: bytes) -> Callable[[Records], Records]:
    return lambda entries: [(n, data if n.endswith(end) else old) for n, old in entries]


def added(name: str, data: bytes = b"x") -> Callable[[Records], Records]:
    return lambda entries: [*entries, (name, data)]


RECORDS: dict[str, tuple[Callable[[Records], Records], str, str]] = {
    "duplicate-record": (added("a/data/0"), "a/data/0", "stands 2 times"),
    "stray-record": (added("b/x"), "b/x", "lies outside of a/"),
    "unsafe-name": (added("a/../x"), "a/../x", "none of a record"),
    "odd-name": (added("a/\x1b[2J"), "a/\x1b[2J", "cannot be seen"),
    "missing-record": (without("data/1"), "a/data/1", "storage is missing"),
    "bad-byteorder": (exchanged("byteorder", b"middle"), "a/byteorder", "says 'middle'"),
    "no-byteorder": (without("byteorder"), "", "no record 'byteorder'"),
    "no-serialization-id": (without("serialization_id"), "", "not written by torch.save"),
    "storage-size": (exchanged("data/1", b"x" * 8), "a/data/1", "has 8 bytes"),
    "unused-storage": (added("a/data/7", b"x" * 8), "", "1 storages of 8 bytes"),
    "bad-pickle": (exchanged("data.pkl", b"\x80\x02}0."), "a/data.pkl", "exactly one object"),
    "trailing-bytes": (exchanged("data.pkl", b"N.xx"), "a/data.pkl", "2 bytes follow"),
}


@pytest.mark.parametrize("id", RECORDS)
def test_records(id: str, tmp_path: Path) -> None:
    """Each fault among the records of a zip has a finding that says where and what."""
    change, where, text = RECORDS[id]
    finding = found(changed_records(tmp_path / "a.pt", change))[id]
    assert finding.where == where
    assert text in finding.text


def test_good_files(tmp_path: Path) -> None:
    """What torch.save writes has nothing wrong, in either container."""
    for legacy in (False, True):
        result = verify(torch_file(tmp_path / "a.pt", legacy=legacy))
        assert [f.id for f in result.findings] == ["no-optimizer"]


def test_no_version(tmp_path: Path) -> None:
    """torch.load takes no file without its version."""
    path = changed_records(tmp_path / "a.pt", without("version"))
    assert found(path)["missing-record"].where == "a/version"
    with pytest.raises(RuntimeError, match="version"):
        torch.load(path)


def test_compressed(tmp_path: Path) -> None:
    """torch.load takes compressed records; nothing can map them."""
    path = tmp_path / "a.pt"
    zipped(path, records(torch_file(path)), zipfile.ZIP_DEFLATED)
    assert "method 8" in found(path)["packed-record"].text
    assert torch.load(path)["b"].tolist() == [1, 1, 1]


def _flipped(data: bytes) -> bytes:
    at = data.index(torch.arange(6.0).numpy().tobytes())
    return data[:at] + b"\1" + data[at + 1 :]


def test_wrong_checksum(tmp_path: Path) -> None:
    """A bit that is not as it was is found by the checksum; torch.load does not look."""
    path = changed_bytes(torch_file(tmp_path / "a.pt"), _flipped)
    assert found(path)["wrong-crc"].where == "a/data/0"
    assert "wrong-crc" not in found(path, values=False)
    torch.load(path)


def test_wrong_checksum_of_what_is_no_float(tmp_path: Path) -> None:
    """Storages that are not read for their values are read for their checksums."""
    path = torch_file(tmp_path / "a.pt", {"a": torch.arange(6), "b": torch.arange(6.0)[1:3]})
    changed_bytes(path, lambda data: data.replace(torch.arange(6).numpy().tobytes(), b"x" * 48))
    changed_bytes(path, _flipped)
    assert [f.where for f in verify(path).findings if f.id == "wrong-crc"] == [
        "a/data/0",
        "a/data/1",
    ]


def test_wrong_checksum_of_a_small_record(tmp_path: Path) -> None:
    """The pickle's own checksum is looked at without reading values."""
    path = torch_file(tmp_path / "a.pt", {"step": 5})
    changed_bytes(path, lambda data: data.replace(b"step", b"stop"))
    assert found(path, values=False)["wrong-crc"].where == "a/data.pkl"


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no-directory": (lambda data: data[: len(data) // 2], "records begin in it, the last is 'a/"),
    "trailing-bytes": (lambda data: data + b"xyz", "3 bytes follow the end"),
    "leading-bytes": (lambda data: b"x" * 7 + data, "7 bytes stand before"),
    "cut-short": (lambda data: data[:-2] + b"\5\0", "5 bytes of the zip file's comment"),
    "bad-directory": (lambda data: data.replace(b"PK\1\2", b"PK\1\3", 1), "0 can be read"),
    "header-differs": (lambda data: b"PK\x03\x05" + data[4:], "no header where"),
    "no-crc": (lambda data: directory_field(data, b"a/data/1", 16, "<I", 0), "1 records have no"),
    "overlap": (lambda data: resized(data, 28), "begins before the end of a/data/0"),
    "unclaimed-bytes": (lambda data: resized(data, 20), "4 bytes stand between a/data/0 and it"),
}


def resized(data: bytes, size: int) -> bytes:
    """The directory gives the record of 24 bytes another size."""
    data = directory_field(data, b"a/data/0", 20, "<I", size)
    return directory_field(data, b"a/data/0", 24, "<I", size)


@pytest.mark.parametrize("id", BYTES)
def test_bytes(id: str, tmp_path: Path) -> None:
    """Each fault of the zip around the records has a finding."""
    change, text = BYTES[id]
    path = torch_file(tmp_path / "a.pt")
    if id in ("overlap", "unclaimed-bytes"):
        zipped(path, records(path))  # Python's zip has nothing between the records
    assert text in found(changed_bytes(path, change))[id].text


LEGACY: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut-short": (lambda data: data[:-4], "1 of 2 storages are not whole"),
    "trailing-bytes": (lambda data: data + b"xyz", "3 bytes follow the storages"),
}


@pytest.mark.parametrize("id", LEGACY)
def test_legacy(id: str, tmp_path: Path) -> None:
    """Each fault of a legacy file has a finding."""
    change, text = LEGACY[id]
    path = changed_bytes(torch_file(tmp_path / "a.pt", legacy=True), change)
    assert text in found(path)[id].text


def test_legacy_list_of_storages(tmp_path: Path) -> None:
    """Keys that stand twice, or that nobody uses, are found."""
    from support.hostile_containers import legacy
    from support.hostile_trees import Storages

    storages = Storages((None,))
    tree = {"a": storages.tensor(3)}
    for keys, text in (
        (["0", "0"], "listed twice"),
        (["0", "9"], "used by no tensor"),
        (5, "is none"),
    ):
        (tmp_path / "a.pt").write_bytes(legacy(tree, storages, keys))
        assert text in found(tmp_path / "a.pt")["storage-list"].text


def test_tensor_bounds(tmp_path: Path) -> None:
    """A tensor that reaches behind its storage is found, whatever the storage is."""
    from support.hostile_containers import torch_zip
    from support.hostile_trees import Storages, Tensor

    storages = Storages()
    storages.tensor(6)
    tree = {"a": Tensor(size=(3, 3)), "b": Tensor(offset=-1)}
    (tmp_path / "a.pt").write_bytes(torch_zip(tree, storages))
    texts = [f.text for f in verify(tmp_path / "a.pt").findings if f.id == "tensor-bounds"]
    assert len(texts) == 2
    assert "reaches to element 9 of a storage that has 6 (archive/data/0)" in texts[0]


def test_bare_pickle(tmp_path: Path) -> None:
    """A pickle that is cut, damaged or not alone is a damaged file."""
    data = pickle.dumps({"a": 1}, 2)
    for faulty, id in ((data[:-1], "cut-short"), (data[:-1] + b"\xff.", "bad-pickle"),
                       (data + b"x", "trailing-bytes")):  # fmt: skip
        (tmp_path / "a.pkl").write_bytes(faulty)
        assert id in found(tmp_path / "a.pkl")


def test_reader_refuses(tmp_path: Path) -> None:
    """What the reader refuses, and no walker sees, is a finding too."""
    deep = b"]" * 300 + b"a" * 299 + b"."
    (tmp_path / "a.pt").write_bytes(pickled(b"}U\x01a(" + deep[:-1] + b"ts."))
    assert "deeper" in found(tmp_path / "a.pt")["bad-pickle"].text
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pt")
    assert "no-optimizer" in found(tmp_path / "b.pt")


@pytest.mark.parametrize("data", [b"Lorem ipsum", b"hello", b"\xff" * 99, b"GGUF"])
def test_no_checkpoint_at_all(data: bytes, tmp_path: Path) -> None:
    """What is no checkpoint is an error, not a finding."""
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.pt: "):
        verify(tmp_path / "a.pt")


def test_other_zips_are_no_checkpoints(tmp_path: Path) -> None:
    """A zip of something else is an error, and so is a program of TorchScript."""
    zipped(tmp_path / "a.zip", [("word/document.xml", b"x")])
    with pytest.raises(FormatError, match=r"none of torch\.save"):
        verify(tmp_path / "a.zip")
    zipped(tmp_path / "b.pt", [("b/data.pkl", b"N."), ("b/constants.pkl", b"N.")])
    with pytest.raises(FormatError, match="TorchScript"):
        verify(tmp_path / "b.pt")
