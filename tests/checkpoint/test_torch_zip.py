"""Torch zip files: read, written again the same, edited; and what torch says to the result."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from liontool.checkpoint import formats, values
from liontool.checkpoint.document import (
    Delete,
    Insert,
    Place,
    Replace,
    TensorRef,
    tensors,
)
from liontool.errors import FormatError, LiontoolError, RefusedError
from support.torch_files import (
    FILE_DTYPES,
    KINDS,
    assert_same,
    opcodes,
    pickle_of,
    rewritten,
    write,
)


def computed(*numbers: float, dtype: str = "float32", label: str = "") -> TensorRef:
    """A tensor that is in no file."""
    return replace(values.from_scalars(dtype, numbers, (len(numbers),)), label=label)


def saved(value: Any, path: Path, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.fixture
def offsets_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch compares the offsets that it computes with those in the file."""
    monkeypatch.setenv("TORCH_SERIALIZATION_DEBUG", "1")


def assert_clean(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None


@pytest.mark.usefixtures("offsets_checked")
@pytest.mark.filterwarnings("ignore")  # torch deprecates what some of these files hold
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_unedited(tmp_path: Path, kind: str, protocol: int) -> None:
    """Read and written, a file has the same opcodes, and for torch the same objects and aliases."""
    source = saved(KINDS[kind](), tmp_path / "a.pt", pickle_protocol=protocol)
    copy = rewritten(formats.open_document(source), tmp_path / "b.pt")
    assert opcodes(pickle_of(copy)) == opcodes(pickle_of(source))
    first = torch.load(source, weights_only=False)
    assert_same(first, torch.load(copy, weights_only=False))
    assert_same(first, torch.load(copy, weights_only=False, mmap=True))
    assert_clean(copy)
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(copy) as b:
        assert a.namelist() == b.namelist()


def test_values_of_every_dtype(tmp_path: Path) -> None:
    """Every tensor's bytes, strides and dtype are found."""
    value = KINDS["dtypes"]()
    tree = formats.open_document(saved(value, tmp_path / "a.pt")).tree
    for name in FILE_DTYPES:
        ref, tensor = tree[name], value[name]
        assert (ref.dtype, ref.shape, ref.source.stride) == (
            name,
            tuple(tensor.shape),
            tensor.stride(),
        )
        expected = bytes(tensor.clone(memory_format=torch.contiguous_format).untyped_storage())
        assert values.read(ref) == expected


def test_shared_storages_are_shared(tmp_path: Path) -> None:
    """Tensors that share memory share a Storage; the same tensor is the same TensorRef."""
    tree = formats.open_document(saved(KINDS["shared"](), tmp_path / "a.pt")).tree
    storages = {
        tree[key].source.storage for key in ("base", "view", "matrix", "strided", "parameter")
    }
    assert len(storages) == 1
    assert tree["same"][2] is tree["base"]
    assert tree["same"][0] is tree["same"][1]


def test_facts(tmp_path: Path) -> None:
    """Byte order, versions and protocol are told; overhead is all but the tensors."""
    path = saved({"a": torch.ones(1000)}, tmp_path / "a.pt")
    document = formats.open_document(path, "optimizer.pt")
    assert document.facts == {
        "byte order": "little",
        "pickle protocol": "2",
        "archive version": "3",
        "format version": "1",
    }
    assert (document.name, document.container, document.path) == ("optimizer.pt", "torch zip", path)
    assert document.overhead == path.stat().st_size - 4000


def edited(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same zip file with records changed, by Python's own writer."""
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    change(records)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for name, data in records.items():
            file.writestr(name, data)
    return path


def test_older_files(tmp_path: Path) -> None:
    """Files without byteorder and other new records, in a folder 'archive', are read, written."""

    def grow_old(records: dict[str, bytes]) -> None:
        for name in (
            "byteorder",
            ".format_version",
            ".storage_alignment",
            ".data/serialization_id",
        ):
            del records["a/" + name]
        for name in list(records):
            records["archive/" + name.removeprefix("a/")] = records.pop(name)

    value = KINDS["adamw"]()
    source = edited(saved(value, tmp_path / "a.pt"), grow_old)
    document = formats.open_document(source)
    assert document.facts["byte order"] == "little"
    copy = rewritten(document, tmp_path / "b.pt")
    assert_same(value, torch.load(copy, weights_only=True, mmap=True))
    with zipfile.ZipFile(copy) as file:
        assert file.namelist()[0] == "archive/data.pkl"


def big_endian(path: Path, value: dict[str, torch.Tensor]) -> Path:
    """The file as a big-endian machine would have saved it; the storages must be in order."""
    torch.save(value, path)
    widths = [t.element_size() // (2 if t.is_complex() else 1) for t in value.values()]

    def turn(records: dict[str, bytes]) -> None:
        name = path.stem
        records[f"{name}/byteorder"] = b"big"
        for key, width in enumerate(widths):
            data = np.frombuffer(records[f"{name}/data/{key}"], f"u{width}")
            records[f"{name}/data/{key}"] = data.byteswap().tobytes()

    return edited(path, turn)


def test_big_endian(tmp_path: Path) -> None:
    """Values of a big-endian file read right; torch reads them again, new tensors included."""
    value = {
        name: torch.arange(1, 7).to(getattr(torch, name))
        for name in ("float32", "bfloat16", "int64", "complex64", "float64", "uint8")
    }
    document = formats.open_document(big_endian(tmp_path / "a.pt", value))
    assert document.facts["byte order"] == "big"
    for name, tensor in value.items():
        assert values.read(document.tree[name]) == bytes(tensor.untyped_storage())
    new = computed(1.5, -2.5)
    half = computed(0.5, dtype="bfloat16")
    edits = [
        Replace(Place("", ("float32",)), new),
        Insert(Place("", ("half",)), half),
        Insert(Place("", ("again",)), document.tree["int64"]),
    ]
    copy = rewritten(document, tmp_path / "b.pt", edits, scan=[new, document.tree["bfloat16"]])
    loaded = torch.load(copy, weights_only=True)
    expected = {
        **value,
        "float32": torch.tensor([1.5, -2.5]),
        "half": torch.tensor([0.5]).bfloat16(),
    }
    assert_same({**expected, "again": expected["int64"]}, loaded)
    assert_clean(copy)


def test_big_endian_scan(tmp_path: Path) -> None:
    """NaN is found in new and old tensors of a big-endian file."""
    value = {"a": torch.tensor([1.0, torch.nan]), "b": torch.tensor([1.0])}
    document = formats.open_document(big_endian(tmp_path / "a.pt", value))
    with pytest.raises(RefusedError, match=r"^a: .*non-finite"):
        rewritten(document, tmp_path / "b.pt", scan=[document.tree["a"]])
    bad = computed(float("inf"), label="new")
    with pytest.raises(RefusedError, match=r"^new: .*non-finite"):
        rewritten(document, tmp_path / "c.pt", [Replace(Place("", ("b",)), bad)], scan=[bad])


@pytest.mark.usefixtures("offsets_checked")
def test_second_moments_dropped(tmp_path: Path) -> None:
    """What no tensor uses any more is gone, what stays is the same for torch in every mode."""
    value = KINDS["adamw"]()
    document = formats.open_document(saved(value, tmp_path / "a.pt"))
    edits = [
        Delete(Place("", ("state", i, key)))
        for i in value["state"]
        for key in ("exp_avg_sq", "step")
    ]
    edits += [Replace(Place("", ("param_groups", 0, "lr")), 1e-4)]
    moments = [document.tree["state"][i]["exp_avg"] for i in value["state"]]
    copy = rewritten(document, tmp_path / "b.pt", edits, scan=moments, provenance={"ratio": 3})
    for state in value["state"].values():
        del state["exp_avg_sq"], state["step"]
    value["param_groups"][0]["lr"] = 1e-4
    assert_same(value, torch.load(copy, weights_only=True))
    assert_same(value, torch.load(copy, weights_only=True, mmap=True))
    meta = torch.load(copy, weights_only=True, map_location="meta")
    assert meta["state"][0]["exp_avg"].shape == value["state"][0]["exp_avg"].shape
    assert_clean(copy)
    with zipfile.ZipFile(copy) as file:
        assert sum("/data/" in name for name in file.namelist()) == len(value["state"])


def test_provenance(tmp_path: Path) -> None:
    """The record is in the zip, is a fact of the file, and a later one takes its place."""
    source = saved({"a": 1}, tmp_path / "a.pt")
    first = rewritten(formats.open_document(source), tmp_path / "b.pt", provenance={"n": 1})
    second = rewritten(formats.open_document(first), tmp_path / "c.pt", provenance={"n": 2})
    third = rewritten(formats.open_document(second), tmp_path / "d.pt")
    for path, number in ((first, 1), (second, 2), (third, 2)):
        assert json.loads(formats.open_document(path).facts["provenance"]) == {"n": number}
        with zipfile.ZipFile(path) as file:
            assert json.loads(file.read("a/liontool.json")) == {"n": number}
    assert torch.load(third) == {"a": 1}


def test_storage_used_elsewhere_stays(tmp_path: Path) -> None:
    """A tensor whose storage another tensor looks into can be dropped alone."""
    base = torch.arange(10.0)
    document = formats.open_document(
        saved({"a": base, "b": base[2:4], "c": [base]}, tmp_path / "a.pt")
    )
    edits = [Delete(Place("", ("a",)))]
    copy = rewritten(document, tmp_path / "b.pt", edits)
    assert_same({"b": base[2:4], "c": [base]}, torch.load(copy))
    last = rewritten(document, tmp_path / "c.pt", [*edits, Delete(Place("", ("c", 0)))])
    assert_same({"b": base[2:4], "c": []}, torch.load(last))


@pytest.mark.usefixtures("offsets_checked")
def test_tensor_replaced(tmp_path: Path) -> None:
    """A computed tensor takes a tensor's place; aliases of the old one stay as they were."""
    old = torch.arange(4.0)
    document = formats.open_document(
        saved({"a": old, "b": old, "z": torch.ones(2)}, tmp_path / "a.pt")
    )
    new = computed(7.0, 8.0, 9.0)
    copy = rewritten(
        document, tmp_path / "b.pt", [Replace(Place("", ("a",)), new)], scan=[new], provenance={}
    )
    loaded = torch.load(copy, weights_only=True, mmap=True)
    assert_same({"a": torch.tensor([7.0, 8.0, 9.0]), "b": old, "z": torch.ones(2)}, loaded)
    assert_clean(copy)


def test_same_new_tensor_twice(tmp_path: Path) -> None:
    """One new tensor in two places is stored once and is one tensor again."""
    document = formats.open_document(saved({"a": 1, "b": 2}, tmp_path / "a.pt"))
    new = computed(1.0)
    edits = [Replace(Place("", (key,)), new) for key in "ab"]
    copy = rewritten(document, tmp_path / "b.pt", edits)
    tensor = torch.ones(1)
    assert_same({"a": tensor, "b": tensor}, torch.load(copy))


def test_tensor_of_another_file(tmp_path: Path) -> None:
    """A tensor of another file is copied in, also one that does not lie in order."""
    other = torch.arange(12.0).reshape(3, 4)
    tree = formats.open_document(saved([other, other.t(), other[1]], tmp_path / "o.pt")).tree
    document = formats.open_document(saved({"a": torch.ones(1)}, tmp_path / "a.pt"))
    edits = [Insert(Place("", (str(i),)), tree[i]) for i in range(3)]
    copy = rewritten(document, tmp_path / "b.pt", edits)
    loaded = torch.load(copy)
    for i, expected in enumerate((other, other.t(), other[1])):
        assert torch.equal(loaded[str(i)], expected)
    assert_clean(copy)


@pytest.mark.parametrize("scanned", [False, True])
def test_nonfinite(tmp_path: Path, scanned: bool) -> None:
    """Only tensors to be scanned are looked at."""
    value = {"good": torch.ones(9), "bad": torch.tensor([1.0, -torch.inf, torch.nan])}
    document = formats.open_document(saved(value, tmp_path / "a.pt"))
    scan = [document.tree["bad" if scanned else "good"]]
    if scanned:
        with pytest.raises(RefusedError, match=r"^bad: .* 2 non-finite .*--allow nonfinite"):
            rewritten(document, tmp_path / "b.pt", scan=scan)
    else:
        assert_same(value, torch.load(rewritten(document, tmp_path / "b.pt", scan=scan)))


def test_crcs_are_computed_where_torch_left_them_out(tmp_path: Path) -> None:
    """A file that was saved without CRCs gets the right ones."""
    torch.serialization.set_crc32_options(False)
    try:
        source = saved({"a": torch.arange(100.0), "z": torch.zeros(0)}, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(source) as file:
        assert {entry.CRC for entry in file.infolist()} == {0}
    copy = rewritten(formats.open_document(source), tmp_path / "b.pt")
    assert_clean(copy)
    assert torch.load(copy)["a"][99] == 99


def test_crc_is_reused(tmp_path: Path) -> None:
    """A storage with a CRC is copied unseen: a wrong CRC comes out as it was."""
    source = saved({"a": torch.arange(100.0)}, tmp_path / "a.pt")
    raw = bytearray(source.read_bytes())
    raw[raw.index(struct.pack("<f", 99.0))] ^= 1
    source.write_bytes(raw)
    copy = rewritten(formats.open_document(source), tmp_path / "b.pt")
    with zipfile.ZipFile(copy) as file:
        assert file.testzip() == "a/data/0"


def test_storage_alignment_is_kept(tmp_path: Path) -> None:
    """A file with pages of its own for the storages keeps them."""
    from torch.utils.serialization import config

    config.save.storage_alignment = 4096
    try:
        source = saved({"a": torch.arange(4.0), "b": torch.ones(3)}, tmp_path / "a.pt")
    finally:
        config.save.storage_alignment = 64
    copy = rewritten(formats.open_document(source), tmp_path / "b.pt", provenance={})
    tree = formats.open_document(copy).tree
    assert [tree[key].source.storage.span.offset % 4096 for key in "ab"] == [0, 0]


def test_created(tmp_path: Path) -> None:
    """A new file loads with weights_only and mmap, as if torch had saved it."""
    source = formats.open_document(saved({"a": torch.arange(6.0).reshape(2, 3)}, tmp_path / "a.pt"))
    tensor = source.tree["a"]
    value = {
        "state": {
            0: {"exp_avg": tensor, "again": tensor, "new": computed(1.0, 2.0, dtype="bfloat16")}
        },
        "param_groups": [
            {"lr": 0.1, "betas": (0.9, 0.99), "none": None, "flag": True, "params": [0]}
        ],
    }
    pieces = formats.create_torch(value, scan=[tensor], provenance={"made": "now"})
    path = write(pieces, tmp_path / "b.pt")
    exp_avg = torch.arange(6.0).reshape(2, 3)
    expected = {
        "state": {
            0: {"exp_avg": exp_avg, "again": exp_avg, "new": torch.tensor([1.0, 2.0]).bfloat16()}
        },
        "param_groups": value["param_groups"],
    }
    for mmap in (False, True):
        assert_same(expected, torch.load(path, weights_only=True, mmap=mmap))
    assert torch.load(path, map_location="meta")["state"][0]["exp_avg"].shape == (2, 3)
    assert_clean(path)
    assert json.loads(formats.open_document(path).facts["provenance"]) == {"made": "now"}


def test_created_with_every_dtype(tmp_path: Path) -> None:
    """Tensors of every dtype can go into a new file, also empty ones and those of no dimension."""
    value = {**KINDS["dtypes"](), "empty": torch.zeros(3, 0), "scalar": torch.tensor(2.5)}
    tree = formats.open_document(saved(value, tmp_path / "a.pt")).tree
    path = write(
        formats.create_torch(dict(tree), scan=list(tree.values()), provenance=None),
        tmp_path / "b.pt",
    )
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert_same({name: tensor.contiguous() for name, tensor in value.items()}, loaded)
    assert_clean(path)


def test_unknown_records(tmp_path: Path) -> None:
    """Records that torch does not know, folders too, are carried along."""
    extra = {"a/": b"", "a/extra/notes": b"mine"}
    source = edited(
        saved([torch.ones(2)], tmp_path / "a.pt"), lambda records: records.update(extra)
    )
    copy = rewritten(formats.open_document(source), tmp_path / "b.pt")
    with zipfile.ZipFile(copy) as file:
        assert {name: file.read(name) for name in extra} == extra
        assert file.testzip() is None
    assert torch.load(copy)[0].tolist() == [1, 1]


def test_records_elsewhere(tmp_path: Path) -> None:
    """Records outside the archive's folder, with which torch loads nothing, are refused."""
    source = with_record(saved([1], tmp_path / "a.pt"), "__MACOSX/x", b"")
    with pytest.raises(FormatError, match=r"'__MACOSX/x' lies outside of its folder 'a/'"):
        formats.open_document(source)


def test_created_without_tensors(tmp_path: Path) -> None:
    """A new file may hold no tensor and no provenance."""
    path = write(formats.create_torch({"a": [1]}, scan=[], provenance=None), tmp_path / "a.pt")
    assert torch.load(path) == {"a": [1]}


def test_keras(tmp_path: Path) -> None:
    """A file of Keras is refused for what it is: to unpack it would not help."""
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            file.writestr(name, b"")
    with pytest.raises(FormatError, match="is a Keras file, which this version does not read"):
        formats.open_document(path)


def test_torchscript(tmp_path: Path) -> None:
    """A TorchScript archive is refused with advice."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            file.writestr("a/" + name, b"")
    with pytest.raises(FormatError, match=r"TorchScript archive .*torch\.save"):
        formats.open_document(path)


def test_package(tmp_path: Path) -> None:
    """A torch.package archive is refused."""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/.data/extern_modules", b"")
    with pytest.raises(FormatError, match=r"torch\.package"):
        formats.open_document(path)


def test_other_zip(tmp_path: Path) -> None:
    """A zip file of something else is refused."""
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    with pytest.raises(FormatError, match=r"none of torch\.save: it has no data\.pkl"):
        formats.open_document(tmp_path / "a.npz")


def with_record(path: Path, name: str, data: bytes | None) -> Path:
    def change(records: dict[str, bytes]) -> None:
        if data is None:
            del records[name]
        else:
            records[name] = data

    return edited(path, change)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a/byteorder", b"middle", r"byte order is 'middle'"),
        ("a/byteorder", b"\xff", r"byte order is None"),
        ("a/data/0", None, r"needs storage '0', which is not in the file"),
        ("a/data/0", b"1234", r"data/0 has 4 bytes; the pickle claims 10 elements"),
        ("a/data.pkl", b"", r"data\.pkl"),
        ("a/data.pkl", b"\x80\x02N.N.", r"3? ?bytes follow the pickle in data\.pkl"),
        ("a/data.pkl", b"\x80\x02X\x05\x00\x00\x00helloQ.x", r"bytes follow"),
    ],
)
def test_damaged_records(tmp_path: Path, name: str, data: bytes | None, message: str) -> None:
    """Each contradiction between pickle and records is named."""
    path = with_record(saved({"a": torch.arange(10.0)}, tmp_path / "a.pt"), name, data)
    with pytest.raises(FormatError, match=message):
        next(tensors(formats.open_document(path).tree))


def test_damaged_pickle(tmp_path: Path) -> None:
    """A pickle whose CRC is wrong is not believed."""
    path = saved({"abcdef": 1}, tmp_path / "a.pt")
    path.write_bytes(path.read_bytes().replace(b"abcdef", b"abcdeg"))
    with pytest.raises(FormatError, match=r"data\.pkl is damaged"):
        formats.open_document(path)


def test_persistent_id_of_no_storage(tmp_path: Path) -> None:
    """A tensor on something else than a storage is refused."""
    pid = b"(X\x01\x00\x00\x00xctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + pid + b"K\x00K\x01\x85K\x01\x85tR."
    path = with_record(
        saved([torch.ones(1)], tmp_path / "a.pt"), "a/data.pkl", b"\x80\x02" + tensor
    )
    with pytest.raises(FormatError, match="refers to something that is no storage"):
        list(tensors(formats.open_document(path).tree))


def test_mutations(tmp_path: Path) -> None:
    """Files with random bytes changed are refused, or all they hold is read, and written again."""
    value = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}},
        "lr": [0.1, "x"],
    }
    buffer = io.BytesIO()
    torch.save(value, buffer)
    raw = buffer.getvalue()
    with zipfile.ZipFile(buffer) as file:
        pickle = file.read("archive/data.pkl")
    at = raw.index(pickle)
    numbers = random.Random(3)
    path, outcomes = tmp_path / "a.pt", {"read": 0, "refused": 0}
    for round_ in range(600):
        data = bytearray(raw)
        hit = range(at, at + len(pickle)) if round_ % 2 else range(len(raw))
        for _ in range(numbers.randint(1, 3)):
            data[numbers.choice(hit)] = numbers.choice(
                [0, 1, 46, 0x7F, 0xFF, numbers.randrange(256)]
            )
        if round_ % 2:  # the pickle is what is tested, not its CRC
            crc = struct.pack("<I", zlib.crc32(data[at : at + len(pickle)]))
            data = bytearray(bytes(data).replace(struct.pack("<I", zlib.crc32(pickle)), crc))
        path.write_bytes(data)
        outcomes[_outcome(path, tmp_path / "b.pt")] += 1
    assert min(outcomes.values()) > 50


def _outcome(path: Path, copy: Path) -> str:
    try:
        document = formats.open_document(path)
        for _, tensor in tensors(document.tree):
            assert len(values.read(tensor)) == tensor.nbytes
        rewritten(document, copy)
        list(tensors(formats.open_document(copy).tree))
    except LiontoolError as error:
        assert "\n" not in str(error), "one line"  # noqa: PT017
        return "refused"
    return "read"


def test_source_is_untouched(tmp_path: Path) -> None:
    """Edits change the copy; source and document stay what they were."""
    path = saved({"a": 1}, tmp_path / "a.pt")
    before = path.read_bytes()
    document = formats.open_document(path)
    rewritten(document, tmp_path / "b.pt", [Replace(Place("", ("a",)), 2)])
    assert path.read_bytes() == before
    assert document.tree["a"] == 1
