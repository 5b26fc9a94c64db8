"""Our reader and writer of safetensors against the library, and against hostile files."""

from __future__ import annotations

import json
import os
import random
import string
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from liontool.checkpoint import copying, values
from liontool.checkpoint.document import Computed, TensorRef
from liontool.checkpoint.formats import safetensors_file
from liontool.checkpoint.formats.safetensors_file import RESERVE, SafetensorsDocument
from liontool.errors import (
    FormatError,
    LayoutError,
    LimitError,
    LiontoolError,
    ReadError,
    RefusedError,
    UnsafePathError,
)
from support.stored import loaded, raw_bytes, stored

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
    torch.uint16, torch.uint32, torch.uint64,
]  # fmt: skip

F32: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def example(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator) == 1
    numbers = torch.randn(shape, generator=generator) * 10
    if dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        numbers = numbers.abs()
    return numbers.to(dtype)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Equal bit for bit, with dtype and shape."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.numel() == 0 or raw_bytes(left) == raw_bytes(right)


def save(path: Path, tensors: Mapping[str, TensorRef], metadata: Mapping[str, str]) -> None:
    """Write a file with the code under test."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        copying.write(safetensors_file.pieces(tensors, metadata), fd)
    finally:
        os.close(fd)


def crude(path: Path, header: object, body: bytes = bytes(8), length: int | None = None) -> Path:
    """A file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


# --- against the library ------------------------------------------------------------------------

shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
names = st.text(min_size=1, max_size=20).filter(
    lambda name: name != "__metadata__" and not any("\ud800" <= c <= "\udfff" for c in name)
)
states = st.dictionaries(names, st.tuples(st.sampled_from(DTYPES), shapes), max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
metadatas = st.dictionaries(texts, texts, max_size=4)


@given(states, metadatas)
def test_what_the_library_writes_reads_equal(
    tmp_path_factory: pytest.TempPathFactory,
    state: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    metadata: dict[str, str],
) -> None:
    """Every dtype, shape, name and metadata survives."""
    path = tmp_path_factory.mktemp("st") / "x"
    tensors = {name: example(dtype, shape) for name, (dtype, shape) in state.items()}
    # safetensors 0.8.0 writes a broken header for no tensors with empty metadata.
    save_file(tensors, path, metadata or None)
    document = SafetensorsDocument(path)
    assert set(document.tree) == set(tensors)
    assert all(same(loaded(document.tree[name]), tensors[name]) for name in tensors)
    assert document.facts == metadata
    assert document.overhead + sum(t.nbytes for t in document.tree.values()) == path.stat().st_size


@given(states, metadatas)
def test_what_we_write_loads_equal(
    tmp_path_factory: pytest.TempPathFactory,
    state: dict[str, tuple[torch.dtype, tuple[int, ...]]],
    metadata: dict[str, str],
) -> None:
    """The library finds the same tensors and metadata in our files; so do we."""
    folder = tmp_path_factory.mktemp("st")
    tensors = {name: example(dtype, shape) for name, (dtype, shape) in state.items()}
    refs = {name: stored(folder / str(i), t) for i, (name, t) in enumerate(tensors.items())}
    save(folder / "x", refs, metadata)
    found = load_file(folder / "x")
    assert set(found) == set(tensors)
    assert all(same(found[name], tensors[name]) for name in tensors)
    with safe_open(folder / "x", "pt") as file:
        assert (file.metadata() or {}) == metadata
    document = SafetensorsDocument(folder / "x")
    assert all(same(loaded(document.tree[name]), tensors[name]) for name in tensors)
    assert document.facts == metadata


def test_views_and_computed_tensors_are_written(tmp_path: Path) -> None:
    """What does not lie in order in a file is put in order."""
    base = example(torch.float32, (4, 6))
    tensors = {
        "view": stored(tmp_path / "a", base.t()),
        "big": stored(tmp_path / "b", base, byteorder="big"),
        "made": TensorRef("float32", (4, 6), Computed(lambda: iter([raw_bytes(base)]))),
    }
    save(tmp_path / "x", tensors, {})
    found = load_file(tmp_path / "x")
    assert torch.equal(found["view"], base.t())
    assert torch.equal(found["big"], base)
    assert torch.equal(found["made"], base)


def test_a_copy_is_one_run_of_bytes(tmp_path: Path) -> None:
    """A file of ours copied by us has the same body, in one range."""
    tensors = {f"t{i}": example(dtype, (3, i)) for i, dtype in enumerate(DTYPES)}
    save_file(tensors, tmp_path / "x", {"format": "pt"})
    document = SafetensorsDocument(tmp_path / "x")
    save(tmp_path / "y", document.tree, document.facts)
    again = SafetensorsDocument(tmp_path / "y")
    save(tmp_path / "z", again.tree, again.facts)
    assert (tmp_path / "y").read_bytes() == (tmp_path / "z").read_bytes()
    pieces = safetensors_file.pieces(again.tree, {})[1:]
    runs = list(copying._merged(pieces))
    assert len(runs) == 1


def test_the_header_has_a_reserve_and_tensors_are_aligned(tmp_path: Path) -> None:
    """4096 spaces for later metadata, and every tensor at a multiple of its element size."""
    for extra in range(9):
        tensors = {f"t{i}": example(dtype, (3,)) for i, dtype in enumerate(DTYPES)}
        refs = {name: stored(tmp_path / name, tensor) for name, tensor in tensors.items()}
        save(tmp_path / "x", refs, {"pad": "x" * extra})
        data = (tmp_path / "x").read_bytes()
        length = int.from_bytes(data[:8], "little")
        assert length % 8 == 0
        assert RESERVE <= length - len(data[8 : 8 + length].rstrip(b" ")) < RESERVE + 8
        for ref in SafetensorsDocument(tmp_path / "x").tree.values():
            assert values.span_of(ref).offset % (ref.nbytes // ref.numel) == 0


def test_scanned_tensors_must_be_finite(tmp_path: Path) -> None:
    """Only those that are named are looked at."""
    good = stored(tmp_path / "a", torch.ones(5), label="good")
    bad = stored(tmp_path / "b", torch.tensor([1, float("inf")]), label="bad")
    tensors = {"good": good, "bad": bad}
    fd = os.open(tmp_path / "x", os.O_WRONLY | os.O_CREAT)
    try:
        copying.write(safetensors_file.pieces(tensors, {}, scan={good}), fd)
        with pytest.raises(RefusedError, match="bad: the first moment has 1 non-finite"):
            copying.write(safetensors_file.pieces(tensors, {}, scan={good, bad}), fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("__metadata__", "float32", "cannot be named '__metadata__'"),
        ("a", "complex128", "safetensors has no complex128, a .pt file has"),
        ("a", "qint8", "safetensors has no qint8"),
        ("\ud800", "float32", "is not valid Unicode, as names must be"),
    ],
)
def test_what_the_format_lacks_is_not_written(name: str, dtype: str, message: str) -> None:
    """Better an error than a file that nobody can read."""
    tensor = TensorRef(dtype, (0,), Computed(lambda: iter([])))
    with pytest.raises(LayoutError, match=message):
        safetensors_file.pieces({name: tensor}, {})


def test_a_header_beyond_the_limit_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would not read it either."""
    monkeypatch.setattr(safetensors_file, "MAX_HEADER", 5000)
    with pytest.raises(LimitError, match=r"the header would have .* bytes, at most 5,000"):
        safetensors_file.pieces({}, {"x": "y" * 1000})


# --- hostile files ------------------------------------------------------------------------------

ENTRY = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
HEADERS: dict[str, tuple[object, type[LiontoolError], str]] = {
    "name twice": (f'{{"a":{ENTRY},"a":{ENTRY}}}'.encode(), FormatError, "has 'a' twice"),
    "metadata twice": (
        b'{"__metadata__":{},"__metadata__":{}}', FormatError, "'__metadata__' twice"),
    "key of metadata twice": (
        b'{"__metadata__":{"k":"1","k":"2"}}', FormatError, "has 'k' twice"),
    "field twice": (
        b'{"a":{"dtype":"F32","dtype":"F16","shape":[2],"data_offsets":[0,8]}}',
        FormatError, "has 'dtype' twice"),
    "overlap": (
        {"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, FormatError,
        "'b' overlaps the one before it: begins at 4, expected 8"),
    "gap": ({"a": {**F32, "data_offsets": [4, 12]}}, FormatError, "'a' comes after a gap"),
    "same bytes": ({"a": F32, "b": F32}, FormatError, "overlaps the one before it"),
    "trailing bytes": ({}, FormatError, "12 bytes after the last tensor belong to nothing"),
    "after the end": (
        {"a": {**F32, "data_offsets": [8, 16]}}, FormatError, "'a' ends at 16, after the 12 bytes"),
    "dtype unknown": ({"a": {**F32, "dtype": "F31"}}, FormatError, "'a' has dtype 'F31', known"),
    "dtype no text": ({"a": {**F32, "dtype": 32}}, FormatError, "'a' has dtype '32', known"),
    "dtype a list": ({"a": {**F32, "dtype": []}}, FormatError, "'a' has dtype"),
    "shape negative": ({"a": {**F32, "shape": [-2]}}, FormatError, "sizes from 0 upwards"),
    "shape float": ({"a": {**F32, "shape": [2.0]}}, FormatError, "sizes from 0 upwards"),
    "shape bool": ({"a": {**F32, "shape": [2, True]}}, FormatError, "sizes from 0 upwards"),
    "shape null": ({"a": {**F32, "shape": None}}, FormatError, "sizes from 0 upwards"),
    "shape wrong": ({"a": {**F32, "shape": [3]}}, FormatError, r"8 bytes, but F32 .* needs 12"),
    "shape overflows": (
        {"a": {**F32, "shape": [2**40, 2**40]}}, LimitError, "more elements than any file"),
    "shape overflows with 0": (
        {"a": {**F32, "shape": [0, 2**40, 2**40]}}, LimitError, "more elements than any file"),
    "shape huge": ({"a": {**F32, "shape": [10**400]}}, LimitError, "more elements than any file"),
    "dimensions": ({"a": {**F32, "shape": [1] * 65}}, LimitError, "65 dimensions, at most 64"),
    "offsets reversed": ({"a": {**F32, "data_offsets": [8, 0]}}, FormatError, "begin and an end"),
    "offsets negative": ({"a": {**F32, "data_offsets": [-8, 0]}}, FormatError, "begin and an end"),
    "offsets three": ({"a": {**F32, "data_offsets": [0, 8, 8]}}, FormatError, "begin and an end"),
    "offsets float": ({"a": {**F32, "data_offsets": [0, 8.0]}}, FormatError, "begin and an end"),
    "offsets text": ({"a": {**F32, "data_offsets": "08"}}, FormatError, "begin and an end"),
    "field missing": ({"a": {"dtype": "F32"}}, FormatError, "must have dtype, shape and"),
    "field unknown": ({"a": {**F32, "x": 1}}, FormatError, "must have dtype, shape and"),
    "entry no object": ({"a": 5}, FormatError, "must have dtype, shape and"),
    "metadata number": (
        {"__metadata__": {"k": 1}}, FormatError, "__metadata__ 'k' must be a string"),
    "metadata null": ({"__metadata__": None}, FormatError, "must be an object of strings"),
    "metadata list": ({"__metadata__": []}, FormatError, "must be an object of strings"),
    "metadata half pair": (
        {"__metadata__": {"k": "\ud800"}}, FormatError, "is not valid Unicode"),
    "name half pair": ({"\udc00": F32}, FormatError, "is not valid Unicode"),
    "not UTF-8": (b'{"\xff":1}', FormatError, "the header is not UTF-8 at byte 2"),
    "UTF-16": ("{}".encode("utf-16-le"), FormatError, "is not valid JSON"),
    "leading space": (b" {}", FormatError, "must begin with '{'"),
    "list": (b"[]", FormatError, "must begin with '{'"),
    "empty": (b"", FormatError, "must begin with '{'"),
    "zeros after": (b"{}\0\0", FormatError, "is not valid JSON"),
    "cut off": (b'{"a":', FormatError, "is not valid JSON"),
    "NaN": (b'{"a":NaN}', FormatError, "must have dtype"),
    "long number": (b'{"a":' + b"1" * 5000 + b"}", FormatError, "valid JSON|must have dtype"),
    "deep": (b'{"a":' + b"[" * 100_000, LimitError, "is nested too deeply"),
    "deep objects": (b'{"a":' * 100_000, LimitError, "is nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERS)
def test_a_broken_header_is_refused(tmp_path: Path, case: str) -> None:
    """Each rule of the format has its own message, which names file and tensor."""
    header, kind, message = HEADERS[case]
    path = crude(tmp_path / "x.safetensors", header, bytes(12))
    with pytest.raises(kind, match=rf"x\.safetensors.*{message}"):
        SafetensorsDocument(path)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", FormatError, "has only 0 bytes"),
        (b"1234567", FormatError, "has only 7 bytes"),
        (struct.pack("<Q", 100) + b"{}", FormatError, "is cut off: has 10 bytes.* claims 100"),
        (struct.pack("<Q", 10**8 + 1) + b"{}", LimitError, "claims 100,000,001 bytes, at most"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", LimitError, "the header claims"),
    ],
)
def test_a_wrong_length_is_refused(
    tmp_path: Path, data: bytes, kind: type[LiontoolError], message: str
) -> None:
    """The length is compared with the file before anything of it is read."""
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(kind, match=message):
        SafetensorsDocument(tmp_path / "x")


def test_the_exact_end_of_every_file_is_checked(tmp_path: Path) -> None:
    """A file that lost its last byte is no file."""
    save_file({"a": torch.ones(3)}, tmp_path / "x")
    data = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(data[:-1])
    with pytest.raises(FormatError, match="'a' ends at 12, after the 11 bytes"):
        SafetensorsDocument(tmp_path / "x")


def test_names_of_fields_may_be_names_of_anything(tmp_path: Path) -> None:
    """A tensor may be called shape, and metadata may look like an entry."""
    odd = {"dtype": "F32", "shape": "[2]", "data_offsets": "no"}
    save_file({"shape": torch.ones(2), "dtype": torch.ones(2)}, tmp_path / "x", odd)
    document = SafetensorsDocument(tmp_path / "x")
    assert document.facts == odd
    assert set(document.tree) == {"shape", "dtype"}


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The same bytes with a few changes, most of them in the header."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        if not changed:
            break
        i = chance.randrange(min(len(changed), 400) if chance.random() < 0.8 else len(changed))
        kind = chance.randrange(6)
        if kind == 0:
            changed[i] = chance.randrange(256)
        elif kind == 1:
            changed[i] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del changed[i : i + chance.randint(1, 9)]
        elif kind == 3:
            changed[i:i] = chance.choice([b"0", b"[", b'"', b"{", b"9" * 20, b"-", b"\0", b"\xff"])
        elif kind == 4:
            changed[i:i] = changed[chance.randrange(len(changed)) :][: chance.randint(1, 60)]
        else:
            changed[i] = ord(chance.choice(string.printable))
    return bytes(changed)


def test_mutated_files_give_an_error_or_the_right_answer(tmp_path: Path) -> None:
    """Whatever the library would not read we refuse; what we read it reads alike."""
    tensors = {"a": example(torch.float32, (3, 4)), "bc": example(torch.int64, (5,))}
    save_file({**tensors, "d": example(torch.bfloat16, ())}, tmp_path / "x", {"format": "pt"})
    original = (tmp_path / "x").read_bytes()
    chance = random.Random(0)
    path, read = tmp_path / "y", 0
    messages: list[str] = []
    for _ in range(600):
        path.write_bytes(mutated(original, chance))
        try:
            document = SafetensorsDocument(path)
        except LiontoolError as error:
            messages.append(str(error))
            continue
        read += 1
        expected = load_file(path)
        assert set(expected) == set(document.tree)
        assert all(same(loaded(document.tree[name]), t) for name, t in expected.items())
    assert len(messages) > 200
    assert read > 20
    assert not any("\n" in message for message in messages)


def test_a_header_of_many_names_twice_is_quick(tmp_path: Path) -> None:
    """Two hundred thousand entries and one name twice: found at once."""
    names = [f'"t{i}":0' for i in range(200_000)]
    header = "{" + ",".join([*names, names[-1]]) + "}"
    with pytest.raises(FormatError, match="has 't199999' twice"):
        SafetensorsDocument(crude(tmp_path / "x", header.encode()))


# --- shards -------------------------------------------------------------------------------------


def shards(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    """Two shards and their index, which `change` may spoil."""
    save_file({"a": torch.ones(2)}, folder / "m-1.safetensors", {"format": "pt"})
    save_file({"b": torch.zeros(3), "c": torch.ones(1)}, folder / "m-2.safetensors", {"k": "v"})
    weight_map = {"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-2.safetensors"}
    index: dict[str, Any] = {"metadata": {"total_size": 24}, "weight_map": weight_map}
    change(index)
    path = folder / "m.safetensors.index.json"
    path.write_text(json.dumps(index, indent=2))
    return path


def test_shards_are_one_tree(tmp_path: Path) -> None:
    """The index reads like one file with all tensors and metadata."""
    document = SafetensorsDocument(shards(tmp_path), "m.safetensors.index.json")
    assert document.name == "m.safetensors.index.json"
    assert document.container == "safetensors"
    assert document.facts == {"format": "pt", "k": "v"}
    assert {name: loaded(t).tolist() for name, t in document.tree.items()} == {
        "a": [1, 1], "b": [0, 0, 0], "c": [1],
    }  # fmt: skip


@pytest.mark.parametrize(
    "shard", ["../m-1.safetensors", "/etc/passwd", "x/../../m-1.safetensors", "", "a\0b"]
)
def test_a_shard_that_climbs_out_is_refused(tmp_path: Path, shard: str) -> None:
    """No index makes us open a file outside its folder."""
    path = shards(tmp_path, lambda index: index["weight_map"].update(a=shard))
    with pytest.raises(UnsafePathError, match=r"the shard .* leads out of the folder"):
        SafetensorsDocument(path)


def test_a_linked_shard_that_climbs_out_is_refused(tmp_path: Path) -> None:
    """Not by way of a link either; a link inside the folder is fine."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = shards(folder)
    (folder / "m-1.safetensors").rename(folder / "real")
    (folder / "m-1.safetensors").symlink_to("real")
    assert set(SafetensorsDocument(path).tree) == {"a", "b", "c"}
    (folder / "real").rename(tmp_path / "real")
    (folder / "m-1.safetensors").unlink()
    (folder / "m-1.safetensors").symlink_to("../real")
    with pytest.raises(UnsafePathError, match="is a link that leads out of the folder"):
        SafetensorsDocument(path)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda i: i["weight_map"].update(a="gone"), FormatError, "the shard 'gone' is missing"),
        (lambda i: i["weight_map"].update(d="m-1.safetensors"), FormatError,
         "'d' is not in its shard 'm-1.safetensors'"),
        (lambda i: i["weight_map"].pop("c"), FormatError,
         "'c' is in the shard 'm-2.safetensors', but not in the index"),
        (lambda i: i["weight_map"].update(a="m-2.safetensors"), FormatError,
         "'a' is not in its shard 'm-2.safetensors'"),
        (lambda i: i.pop("weight_map"), FormatError, "must have a weight_map"),
        (lambda i: i.update(weight_map=[]), FormatError, "must have a weight_map"),
        (lambda i: i["weight_map"].update(a=1), FormatError, "must have a weight_map"),
        (lambda i: i["weight_map"].update(a="\ud800"), FormatError, "is not valid Unicode"),
        (lambda i: i["weight_map"].update(a="."), ReadError, "is not a regular file"),
        (lambda i: i["weight_map"].update(a="m.safetensors.index.json"), LimitError, "claims"),
        (lambda i: i["weight_map"].update(a="x" * 300), FormatError, "is missing"),
    ],
)  # fmt: skip
def test_a_broken_index_is_refused(
    tmp_path: Path, change: Callable[[Any], None], kind: type[LiontoolError], message: str
) -> None:
    """Index and shards must agree in full."""
    with pytest.raises(kind, match=message):
        SafetensorsDocument(shards(tmp_path, change))


def test_an_index_beyond_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index is a header as well."""
    path = shards(tmp_path)
    monkeypatch.setattr(safetensors_file, "MAX_HEADER", 100)
    with pytest.raises(LimitError, match="an index has at most 100"):
        SafetensorsDocument(path)
