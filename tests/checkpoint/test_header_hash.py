"""The hash that tells checkpoints apart without their tensors."""

from __future__ import annotations

import hashlib

import pytest

from liontool.checkpoint.document import Span, Storage, Stored, TensorRef
from liontool.checkpoint.formats import open_document
from liontool.checkpoint.header_hash import header_sha256
from liontool.errors import ReadError
from support.fake_source import FakeDocument


def _tensor(path, offset, length):
    return TensorRef("uint8", (length,), Stored(Storage(Span(path, offset, length)), (1,)))


@pytest.fixture
def document(tmp_path):
    """Bytes 0 to 99 of a file, with tensors in some places, in any order."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    tree = {
        "b": _tensor(path, 60, 20),
        "a": [_tensor(path, 10, 30), _tensor(path, 10, 30), _tensor(path, 20, 25)],
        "elsewhere": _tensor(tmp_path / "shard", 0, 90),
    }
    return FakeDocument(tree, path=path)


def _expected(*chunks):
    return hashlib.sha256(b"".join(chunks)).hexdigest()


def test_everything_but_tensors(document):
    """Bytes that belong to a tensor of the file are left out, all others are in."""
    data = document.path.read_bytes()
    assert header_sha256([document]) == _expected(data[:10], data[45:60], data[80:])


def test_several_documents(document):
    """Documents are added up in their order."""
    data = document.path.read_bytes()
    parts = data[:10], data[45:60], data[80:]
    assert header_sha256([document, document]) == _expected(*parts, *parts)
    assert header_sha256([]) == _expected()


def test_no_tensors(document):
    """A file without tensors is hashed as a whole."""
    document.tree = {}
    assert header_sha256([document]) == _expected(document.path.read_bytes())


def test_longer_than_a_block(document):
    """Headers may be of any length."""
    data = bytes(3 << 20) + b"end"
    document.path.write_bytes(data)
    document.tree = _tensor(document.path, len(data) - 3, 2)
    assert header_sha256([document]) == _expected(data[:-3], data[-1:])


def test_torch_file(tmp_path):
    """Bytes of a weight do not matter, those of a hyperparameter do."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "x.pt"
    torch.save({"w": torch.ones(100), "lr": "slow"}, path)
    first = header_sha256([open_document(path)])
    offset = open_document(path).tree["w"].source.storage.span.offset
    data = bytearray(path.read_bytes())
    data[offset : offset + 400] = bytes(400)
    path.write_bytes(data)
    assert header_sha256([open_document(path)]) == first
    torch.save({"w": torch.ones(100), "lr": "fast"}, path)
    assert header_sha256([open_document(path)]) != first


def test_file_that_is_gone(document):
    """A file that was there at the first look and is not now is an error of reading."""
    document.path.unlink()
    with pytest.raises(ReadError, match="cannot be read: No such file"):
        header_sha256([document])
