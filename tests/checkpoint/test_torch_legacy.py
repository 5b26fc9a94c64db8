"""Legacy torch files: one pickle after the other, then storages with their counts."""

from __future__ import annotations

import pickle
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint import formats, values
from liontool.checkpoint.document import Delete, Insert, Place, Replace, Span, TensorRef, tensors
from liontool.checkpoint.formats import torch_legacy, zip_records
from liontool.errors import FormatError, LiontoolError, RefusedError
from support.torch_files import KINDS, assert_same, opcodes, rewritten

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}

# torch writes storages without a dtype of their own so that it cannot read them again.
LOADABLE = [kind for kind in KINDS if kind not in ("dtypes", "storage")]


def saved(value: Any, path: Path, **options: Any) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=False, **options)
    return path


def pickles(path: Path) -> list[list[tuple[str, Any]]]:
    """The opcodes of all five pickles."""
    with path.open("rb") as file:
        return [opcodes(file) for _ in range(5)]


@pytest.mark.filterwarnings("ignore")  # torch deprecates what some of these files hold
@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("kind", LOADABLE)
def test_unedited(tmp_path: Path, kind: str, protocol: int) -> None:
    """Read and written, a file has the same opcodes, and for torch the same objects and aliases."""
    source = saved(KINDS[kind](), tmp_path / "a.pt", pickle_protocol=protocol)
    copy = rewritten(formats.open_document(source), tmp_path / "b.pt")
    assert pickles(copy) == pickles(source)
    first = torch.load(source, weights_only=False)
    assert_same(first, torch.load(copy, weights_only=False))


def test_values(tmp_path: Path) -> None:
    """Every tensor's elements are found, those of views too."""
    value = KINDS["shared"]()
    tree = formats.open_document(saved(value, tmp_path / "a.pt")).tree
    for key in ("base", "view", "matrix", "strided", "zero", "scalar", "parameter"):
        expected = value[key].detach().clone(memory_format=torch.contiguous_format)
        assert values.read(tree[key]) == bytes(expected.untyped_storage()), key
    assert tree["base"].source.storage is tree["view"].source.storage


def test_facts(tmp_path: Path) -> None:
    """What is known of the file, and its size without the tensors."""
    path = saved({"a": torch.ones(1000)}, tmp_path / "a.pt", pickle_protocol=4)
    document = formats.open_document(path, "x/a.pt")
    assert document.facts == {
        "byte order": "little",
        "pickle protocol": "4",
        "saved on a machine of byte order": "little",
    }
    assert (document.name, document.container) == ("x/a.pt", "torch legacy")
    assert document.overhead == path.stat().st_size - 4008


def test_long_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that is longer than the first window is read."""
    monkeypatch.setattr(torch_legacy, "_WINDOW", 16)
    path = saved({"a": ["x" * 5000, torch.ones(3)]}, tmp_path / "a.pt")
    assert len(formats.open_document(path).tree["a"][0]) == 5000


def test_damaged_pickle_is_not_read_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a pickle that is cut off is looked for in more of the file."""
    path = saved([torch.ones(20_000)], tmp_path / "a.pt")
    data = bytearray(path.read_bytes())
    data[data.index(b"torch._utils") - 1] = 0xFF  # the opcode that names a function
    path.write_bytes(data)
    monkeypatch.setattr(torch_legacy, "_WINDOW", 1000)
    read = []

    def read_span(span: Span) -> bytes:
        read.append(span.length)
        return zip_records.read_span(span)

    monkeypatch.setattr(torch_legacy, "read_span", read_span)
    with pytest.raises(FormatError, match="not an opcode"):
        formats.open_document(path)
    assert max(read) == 1000


def test_edits(tmp_path: Path) -> None:
    """Storages that nobody uses go, those that something else uses stay, new ones come."""
    value = KINDS["adamw"]()
    document = formats.open_document(saved(value, tmp_path / "a.pt"))
    new = values.from_scalars("float32", [1.0, 2.0], (2,))
    edits = [Delete(Place("", ("state", i, "exp_avg_sq"))) for i in value["state"]]
    edits.append(Replace(Place("", ("state", 0, "step")), new))
    edits.append(Insert(Place("", ("again",)), document.tree["state"][1]["exp_avg"]))
    moments = [document.tree["state"][i]["exp_avg"] for i in value["state"]]
    copy = rewritten(document, tmp_path / "b.pt", edits, scan=[*moments, new], provenance={"a": 1})
    for state in value["state"].values():
        del state["exp_avg_sq"]
    value["state"][0]["step"] = torch.tensor([1.0, 2.0])
    value["again"] = value["state"][1]["exp_avg"]
    assert_same(value, torch.load(copy, weights_only=True))
    assert formats.open_document(copy).container == "torch legacy"


def test_nonfinite(tmp_path: Path) -> None:
    """NaN is found in what is to be scanned."""
    value = [torch.ones(3), torch.tensor([torch.nan])]
    document = formats.open_document(saved(value, tmp_path / "a.pt"))
    rewritten(document, tmp_path / "b.pt", scan=[document.tree[0]])
    with pytest.raises(RefusedError, match=r"^1: .*non-finite"):
        rewritten(document, tmp_path / "b.pt", scan=[document.tree[1]])


class Stand:
    """A storage, for a file that old torch would have written."""

    def __init__(self, key: str, numel: int, view: Any = None) -> None:
        self.id = ("storage", torch.FloatStorage, key, "cpu", numel, view)


class Old:
    """A tensor in it."""

    def __init__(self, storage: Stand, numel: int) -> None:
        self.storage, self.numel = storage, numel

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor, (self.storage, 0, (self.numel,), (1,))


class OldPickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.id if isinstance(value, Stand) else None


def old_file(
    path: Path, value: Any, storages: dict[str, list[float]], *, version: int = 1001, **system: Any
) -> Path:
    """A file as torch before 0.4 wrote it."""
    with path.open("wb") as file:
        for part in (MAGIC, version, {**SYSTEM, **system}):
            pickle.dump(part, file, protocol=2)
        OldPickler(file, protocol=2).dump(value)
        pickle.dump(list(storages), file, protocol=2)
        for numbers in storages.values():
            file.write(struct.pack(f"<q{len(numbers)}f", len(numbers), *numbers))
    return path


def views_file(path: Path) -> Path:
    value = {
        "root": Old(Stand("7", 6), 6),
        "view": Old(Stand("7", 6, ("8", 2, 3)), 3),
        "same": Old(Stand("7", 6, ("8", 2, 3)), 2),
    }
    return old_file(path, value, {"7": [0, 1, 2, 3, 4, 5]})


def test_view_metadata(tmp_path: Path) -> None:
    """Views of storages, as old torch had them, show the right part, also without their root."""
    document = formats.open_document(views_file(tmp_path / "a.pt"))
    view = document.tree["view"]
    assert struct.unpack("<3f", values.read(view)) == (2, 3, 4)
    assert document.tree["same"].source.storage is view.source.storage
    copy = rewritten(document, tmp_path / "b.pt", [Delete(Place("", ("root",)))], scan=[view])
    loaded = torch.load(copy, weights_only=False)
    assert loaded["view"].tolist() == [2, 3, 4]
    assert loaded["same"].untyped_storage()._cdata == loaded["view"].untyped_storage()._cdata


def test_view_is_scanned(tmp_path: Path) -> None:
    """NaN in a view of a storage is found."""
    value = {"view": Old(Stand("7", 2, ("8", 1, 1)), 1)}
    document = formats.open_document(old_file(tmp_path / "a.pt", value, {"7": [0, float("nan")]}))
    with pytest.raises(RefusedError, match=r"^view: .*non-finite"):
        rewritten(document, tmp_path / "b.pt", scan=[document.tree["view"]])


def test_big_endian_machine(tmp_path: Path) -> None:
    """A file from a big-endian machine has little-endian data all the same."""
    path = old_file(tmp_path / "a.pt", Old(Stand("1", 1), 1), {"1": [2.5]}, little_endian=False)
    document = formats.open_document(path)
    assert values.scalar(document.tree) == 2.5
    assert document.facts["saved on a machine of byte order"] == "big"
    assert torch.load(path, weights_only=False).tolist() == [2.5]


@pytest.mark.parametrize(
    ("value", "storages", "message"),
    [
        (Old(Stand("1", 1), 1), {"2": [1.0]}, "storage '2' is listed twice, or never used"),
        (Old(Stand("1", 1), 1), {}, "needs storage '1', which is not in the file"),
        (Old(Stand("1", 9), 9), {"1": [1.0]}, "storage 1 has 4 bytes; the pickle claims 9"),
        (Old(Stand("1", 1), 9), {"1": [1.0]}, "reaches to element 9 of a storage that has 1"),
        (Old(Stand("1", 1, ("2", 1, 1)), 1), {"1": [1.0]}, "view that reaches behind its end"),
        (Old(Stand("1", 1, ("2", -1, 1)), 1), {"1": [1.0]}, "view that makes no sense"),
    ],
)
def test_contradictions(
    tmp_path: Path, value: Any, storages: dict[str, list[float]], message: str
) -> None:
    """Each contradiction between pickle and storages is named."""
    path = old_file(tmp_path / "a.pt", value, storages)
    with pytest.raises(FormatError, match=message):
        list(tensors(formats.open_document(path).tree))


def test_other_version(tmp_path: Path) -> None:
    """A version that nobody knows is refused."""
    path = old_file(tmp_path / "a.pt", 1, {}, version=1002)
    with pytest.raises(FormatError, match="legacy torch file of version 1002; 1001 can be read"):
        formats.open_document(path)


def test_cut_at_every_length(tmp_path: Path) -> None:
    """A file that was cut anywhere is refused."""
    raw = saved([torch.arange(5.0), torch.ones(2)], tmp_path / "a.pt").read_bytes()
    path = tmp_path / "b.pt"
    for length in range(1, len(raw), 3):
        path.write_bytes(raw[:length])
        with pytest.raises(FormatError):
            formats.open_document(path)
    path.write_bytes(raw[:-1])
    with pytest.raises(FormatError, match="ends before its storages do; the file is cut short"):
        formats.open_document(path)


def test_several_objects(tmp_path: Path) -> None:
    """Two torch.save in one file are refused: the second would be lost."""
    path = saved(torch.ones(2), tmp_path / "a.pt")
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(FormatError, match=r"only files with one torch\.save in them"):
        formats.open_document(path)


def test_mutations(tmp_path: Path) -> None:
    """Files with random bytes changed are refused, or all they hold is read, and written again."""
    value = {
        "state": {0: {"exp_avg": torch.ones(2, 3), "step": torch.tensor(3.0)}},
        "lr": [0.1, "x"],
    }
    sources = [
        saved(value, tmp_path / "a.pt").read_bytes(),
        views_file(tmp_path / "a.pt").read_bytes(),
    ]
    numbers = random.Random(5)
    path, outcomes = tmp_path / "b.pt", {"read": 0, "refused": 0}
    for round_ in range(500):
        data = bytearray(sources[round_ % 2])
        for _ in range(numbers.randint(1, 3)):
            at = numbers.randrange(16, len(data))
            data[at] = numbers.choice([0, 1, 46, 0x7F, 0xFF, numbers.randrange(256)])
        path.write_bytes(data)
        try:
            document = formats.open_document(path)
            found: list[TensorRef] = [tensor for _, tensor in tensors(document.tree)]
            assert all(len(values.read(tensor)) == tensor.nbytes for tensor in found)
            list(tensors(formats.open_document(rewritten(document, tmp_path / "c.pt")).tree))
            outcomes["read"] += 1
        except LiontoolError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error), "one line"  # noqa: PT017
    assert min(outcomes.values()) > 50
