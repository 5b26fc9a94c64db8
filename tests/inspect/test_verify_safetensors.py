"""`verify` on safetensors files and indices: every fault has its finding, and all are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liontool.inspect.verify import verify
from support.finding_files import entry, found, index, safetensors, shard

GOOD = {"w": entry(0, 8)}

# The header, or what makes the file, by the id that must be found; and what the text says.
_ENTRY = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
FILES: dict[str, tuple[Any, str, str]] = {
    "duplicate-key": (f'{{"w": {_ENTRY}, "w": {_ENTRY}}}', "header", "'w' stands 2 times"),
    "bad-json": ('{"w": ', "header", "is not valid JSON"),
    "header-start": (f' {{"w":{_ENTRY}}}', "header", "must begin with '{'"),
    "bad-metadata": ({"__metadata__": {"a": 1}, **GOOD}, "__metadata__", "'a' must be a string"),
    "bad-entry": ({"w": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, "w", "needs 12"),
    "unknown-field": ({"w": entry(0, 8, extra=1)}, "w", "has extra"),
    "hole": ({"v": entry(0, 4), "w": entry(6, 8, "BF16")}, "w", "2 bytes after the end of v"),
    "overlap": ({"v": entry(0, 4), "w": entry(2, 8, "BF16")}, "w", "before the end of v"),
    "misaligned": ({"v": entry(0, 2, "BF16"), "w": entry(2, 6)}, "", "'w' does not lie"),
    "trailing-bytes": ({"w": entry(0, 4)}, "", "4 bytes after the last tensor"),
    "cut-short": ({"w": entry(0, 12)}, "", "4 bytes are missing; 1 tensors are not whole"),
    "odd-name": ({"w\x1b[2J\u202e": entry(0, 8)}, "w\x1b[2J\u202e", "cannot be seen"),
    "path-name": ({"../../w": entry(0, 8)}, "../../w", "beware"),
}


@pytest.mark.parametrize("id", FILES)
def test_header(id: str, tmp_path: Path) -> None:
    """Each fault of a header has a finding that says where and what."""
    header, where, text = FILES[id]
    body = 6 if id == "misaligned" else 8
    finding = found(safetensors(tmp_path / "a.safetensors", header, body))[id]
    assert finding.where == where
    assert text in finding.text


def test_good_file(tmp_path: Path) -> None:
    """An honest file has nothing wrong."""
    header = {"__metadata__": {"format": "pt"}, **GOOD}
    result = verify(safetensors(tmp_path / "a.safetensors", header))
    assert [f.id for f in result.findings] == ["no-optimizer"]
    assert result.passed(strict=True)


def test_all_faults_of_a_file_are_found(tmp_path: Path) -> None:
    """The walk goes on after a fault."""
    first = '{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}'
    second = '{"dtype":"F32","shape":[1],"data_offsets":[8,12]}'
    header = f'{{"__metadata__": null, "../w": {first}, "v": {{}}, "v": {second}, "x": {{}}}}'
    ids = set(found(safetensors(tmp_path / "a.safetensors", header, 20)))
    expected = {"bad-metadata", "path-name", "unknown-field", "duplicate-key", "bad-entry", "hole"}
    assert ids == expected | {"trailing-bytes", "not-checked"}


@pytest.mark.parametrize(
    ("data", "id", "text"),
    [
        (b"\x05\0\0", "cut-short", "only 3 bytes"),
        ((10**9).to_bytes(8, "little") + b'{"a"', "header-size", "claims 1,000,000,000 bytes"),
        ((99).to_bytes(8, "little") + b'{"a"', "cut-short", "claims 99 bytes, and 4 follow"),
        (b"", "empty-file", "no bytes"),
        (bytes(99), "empty-file", "never written"),
    ],
)
def test_files_that_are_hardly_there(data: bytes, id: str, text: str, tmp_path: Path) -> None:
    """Files that end before their header does, or were never written, are damaged files."""
    (tmp_path / "a.safetensors").write_bytes(data)
    assert text in found(tmp_path / "a.safetensors")[id].text


def _extra(folder: Path) -> Path:
    shard(folder, 2, "c")
    return index(folder, {"a": shard(folder, 1, "a")})


def _nowhere(folder: Path) -> Path:
    return index(folder, {"a": shard(folder, 1, "a"), "b": "m-00002-of-00002.safetensors"})


INDICES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing-shard": (_nowhere, "the shard is missing"),
    "unindexed-shard": (_extra, "left from an earlier save"),
    "missing-tensor": (lambda f: index(f, dict.fromkeys("ab", shard(f, 1, "a"))), "not in its"),
    "unindexed-tensor": (lambda f: index(f, {"a": shard(f, 1, "a", "b")}), "says nothing of it"),
    "index-size": (
        lambda f: index(f, {"a": shard(f, 1, "a")}, metadata={"total_size": 5}),
        "says 5 bytes in all, and the shards have 4",
    ),
    "unsafe-name": (lambda f: index(f, {"a": "../m.safetensors"}), "leads out of the folder"),
    "bad-json": (lambda f: index(f, ["x"]), "has no weight_map"),
}


@pytest.mark.parametrize("id", INDICES)
def test_index(id: str, tmp_path: Path) -> None:
    """An index and its shards must agree."""
    make, text = INDICES[id]
    assert text in found(make(tmp_path))[id].text


def test_faults_of_shards(tmp_path: Path) -> None:
    """The shards of an index are walked too, and told apart."""
    name = shard(tmp_path, 1, "a")
    path = index(tmp_path, {"a": name})
    with (tmp_path / name).open("ab") as file:
        file.write(b"more")
    finding = found(path)["trailing-bytes"]
    assert finding.where == name


def test_shard_in_two_places(tmp_path: Path) -> None:
    """A tensor that two shards have is one of them's only."""
    path = index(tmp_path, {"a": shard(tmp_path, 1, "a"), "b": shard(tmp_path, 2, "a", "b")})
    assert "the index says m-00001" in found(path)["unindexed-tensor"].text
