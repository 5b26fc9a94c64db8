"""Formats are told by content; what is no checkpoint gets one clear line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import sys
import tarfile
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from liontool.checkpoint import formats
from liontool.checkpoint.document import Place, Replace
from liontool.checkpoint.formats import json_file
from liontool.errors import FormatError, LayoutError, LimitError, LiontoolError, ReadError


def torch_bytes() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    return buffer.getvalue()


def tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return buffer.getvalue()


def npy_bytes() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(2))
    return buffer.getvalue()


STRANGERS = {
    "empty": (lambda: b"", r"is empty \(0 bytes\)"),
    "cut": (lambda: torch_bytes()[:-10], "cut short"),
    "lfs": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "html": (lambda: b"\n<!DOCTYPE html><html>Not found</html>", "is a web page"),
    "html2": (lambda: b"<HTML><body>login</body></HTML>", "is a web page"),
    "gzip": (lambda: gzip.compress(torch_bytes()), "gunzip"),
    "bzip2": (lambda: bz2.compress(torch_bytes()), "bunzip2"),
    "xz": (lambda: lzma.compress(torch_bytes()), "unxz"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd" + bytes(9), "unzstd"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(9), "7z archive"),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
    "npy": (npy_bytes, "NumPy array"),
    "gguf": (lambda: b"GGUF" + bytes(99), "GGUF"),
    "tar": (tar_bytes, r"torch before 0\.1\.10 .* torch\.save it again"),
    "zeros": (lambda: bytes(4096), "begins with zeros"),
    "text": (lambda: b"hello\n", "is no torch file"),
    "binary": (lambda: bytes(range(255, 0, -1)), "is no torch file"),
    "json": (lambda: b'{"a": ', "is not valid JSON"),
    "binary json": (lambda: b'{"a": "\xff"}', "is not valid JSON"),
    "deep json": (lambda: b"[" * 200_000, "nested too deeply"),
    "two pickles": (lambda: pickle.dumps(1) + pickle.dumps(2), "one object"),
    "protocol 9": (lambda: b"\x80\x09K\x01.", "protocol 9; 0 to 5 can be read"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers(tmp_path: Path, kind: str) -> None:
    """Each kind of file that is no checkpoint is named, with the way out, in one line."""
    make, message = STRANGERS[kind]
    path = tmp_path / "adamw.ckpt"
    path.write_bytes(make())
    with pytest.raises(FormatError, match=message) as caught:
        formats.open_document(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_and_folder(tmp_path: Path) -> None:
    """What the system refuses is a ReadError that names the file."""
    with pytest.raises(ReadError, match=r"none\.pt: cannot be read: No such file"):
        formats.open_document(tmp_path / "none.pt")
    with pytest.raises(ReadError, match="cannot be read: Is a directory"):
        formats.open_document(tmp_path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".json"])
def test_names_do_not_matter(tmp_path: Path, suffix: str) -> None:
    """The same bytes are the same format under every name."""
    path = tmp_path / f"file{suffix}"
    path.write_bytes(torch_bytes())
    assert formats.open_document(path).container == "torch zip"
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=False)
    assert formats.open_document(path).container == "torch legacy"
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=False, pickle_protocol=4)
    assert formats.open_document(path).container == "torch legacy"
    save_file({"a": torch.ones(2)}, path)
    assert formats.open_document(path).container == "safetensors"
    path.write_text('\n {"a": 1}')
    assert formats.open_document(path).container == "json"
    path.write_bytes(pickle.dumps([1]))
    assert formats.open_document(path).container == "pickle"


@pytest.mark.parametrize("length", [0x4B50, 0x0280, 0x0580, 0x8B1F, 0x5A42])
def test_safetensors_with_a_confusing_length(tmp_path: Path, length: int) -> None:
    """A header whose length looks like the mark of another format is still a header."""
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + bytes(4))
    assert formats.open_document(path).container == "safetensors"


def test_json(tmp_path: Path) -> None:
    """JSON is read as Python reads it, NaN included, and its size is its overhead."""
    path = tmp_path / "trainer_state.json"
    path.write_text('{"global_step": 12, "log_history": [{"loss": NaN}]}')
    document = formats.open_document(path, "trainer_state.json")
    assert document.tree["global_step"] == 12
    assert document.overhead == path.stat().st_size
    assert document.name == "trainer_state.json"
    assert document.facts == {}


def test_json_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JSON file beyond all measure is refused before it is read."""
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"a": "long enough"}))
    with pytest.raises(LimitError, match="JSON is read up to 10 bytes"):
        formats.open_document(path)


def test_shard_index(tmp_path: Path) -> None:
    """The index of safetensors shards opens all of them; that of other shards is plain JSON."""
    save_file({"a": torch.ones(2)}, tmp_path / "x-1.safetensors")
    save_file({"b": torch.ones(2)}, tmp_path / "x-2.safetensors")
    index = tmp_path / "x.safetensors.index.json"
    names = {"a": "x-1.safetensors", "b": "x-2.safetensors"}
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    document = formats.open_document(index)
    assert document.container == "safetensors"
    assert set(document.tree) == {"a", "b"}
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "x-1.bin"}}))
    assert formats.open_document(index).container == "json"


def test_pickle(tmp_path: Path) -> None:
    """A bare pickle is read as plain values."""
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps({"a": [1, (2.5, "x")]}))
    document = formats.open_document(path)
    assert document.tree["a"][1][0] == 2.5
    assert document.facts == {"pickle protocol": "4"}


def test_unpacked_data_pkl(tmp_path: Path) -> None:
    """A pickle that refers to tensors outside of it says what to give instead."""
    import zipfile

    with zipfile.ZipFile(io.BytesIO(torch_bytes())) as file:
        (tmp_path / "data.pkl").write_bytes(file.read("archive/data.pkl"))
    document = formats.open_document(tmp_path / "data.pkl")
    with pytest.raises(FormatError, match=r"outside of it; .*give the packed file"):
        document.tree["a"]


def test_read_only(tmp_path: Path) -> None:
    """Bare pickles are not written."""
    path = tmp_path / "a"
    path.write_bytes(pickle.dumps({"a": 1}))
    document = formats.open_document(path)
    edits = [Replace(Place("", ("a",)), 2)]
    with pytest.raises(LayoutError, match="files of kind 'pickle' are only read"):
        formats.rewrite(document, edits, scan=[], provenance=None)


def test_nothing_in_a_pickle_is_called(tmp_path: Path) -> None:
    """A pickle that would run a command is shown, not obeyed."""
    mark = tmp_path / "mark"
    for container in ("zip", "legacy", "bare"):
        path = tmp_path / f"{container}.pt"
        evil = _Evil(str(mark))
        if container == "bare":
            path.write_bytes(pickle.dumps(evil))
        else:
            torch.save(evil, path, _use_new_zipfile_serialization=container == "zip")
        assert formats.open_document(path).tree.name in ("posix.system", "os.system")
    assert not mark.exists()


class _Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> object:
        import os

        return os.system, (f"touch '{self.path}'",)


def test_no_torch_and_no_numpy(tmp_path: Path) -> None:
    """Opening a file and laying it out again loads neither torch nor numpy."""
    path = tmp_path / "a.pt"
    path.write_bytes(torch_bytes())
    code = (
        "import sys; from pathlib import Path; from liontool.checkpoint import formats, document;"
        "d = formats.open_document(Path(sys.argv[1])); list(document.tensors(d.tree));"
        "formats.rewrite(d, [], scan=[], provenance={});"
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert run([sys.executable, "-c", code, str(path)], check=False).returncode == 0


def test_random_bytes(tmp_path: Path) -> None:
    """Random bytes behind every known mark are refused with an error of ours."""
    import random

    numbers = random.Random(11)
    path = tmp_path / "a"
    marks = [
        b"",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x80\x02",
        b"\x80\x04\x95",
        b"{",
        b"[",
        bytes(8) + b"{",
    ]
    marks += [
        torch_bytes()[:64],
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        b"L1195470371460388013333",
    ]
    for _ in range(400):
        path.write_bytes(numbers.choice(marks) + numbers.randbytes(numbers.randrange(300)))
        try:
            tree = formats.open_document(path).tree
        except LiontoolError as error:
            assert "\n" not in str(error), "one line"  # noqa: PT017
        else:
            assert tree is None or repr(tree)
