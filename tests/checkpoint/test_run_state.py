"""The state of a run as one document of two files."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from liontool.checkpoint import formats
from liontool.checkpoint.document import Delete, Insert, Opaque, Place, Rename, Replace, TensorRef
from liontool.checkpoint.source import open_source
from liontool.checkpoint.values import from_scalars, read
from liontool.errors import FormatError, LayoutError, LimitError, UnsafePathError
from liontool.resume.encoding import decode_state, encode_state
from liontool.resume.host_copy import HostCopy
from liontool.resume.snapshot import Snapshot
from liontool.resume.writing import write_checkpoint
from support.run_folders import changed_json

NAME = "state-0.json"
TIED = torch.arange(6.0).reshape(2, 3)


def state():
    """Everything that is not plain JSON."""
    return {
        "model": {"a.weight": TIED, "b.weight": TIED, "c": torch.ones(2, dtype=torch.bfloat16)},
        "optimizer": {
            "state": {0: {"exp_avg": torch.full((2, 3), 0.5), "step": torch.tensor(3.0)}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": [0]}],
        },
        "extras": {
            "complex": torch.tensor([1 + 2j, 3], dtype=torch.complex128),
            "dtype": torch.float16,
            "device": torch.device("cpu"),
            "size": torch.Size([2, 3]),
            "int keys": {1: "one", (2, 3): {"deep": float("-inf")}},
            "tensor lr": torch.tensor(0.25, dtype=torch.float64),
            "function": torch.nn.functional.relu,
        },
    }


def checkpoint(run, made=None):
    encoded = encode_state(state() if made is None else made)
    body = HostCopy().take(encoded.tensors)
    run.mkdir(exist_ok=True)
    return write_checkpoint(run, Snapshot(3, 0, None, body, encoded.tree, {"classes": {}}))


@pytest.fixture
def document(tmp_path):
    """The document of such a state."""
    return open_source(checkpoint(tmp_path / "run")).document(NAME)


def written(document, edits, folder, scan=()):
    """The files of a document with edits, as bytes by name."""
    from liontool.checkpoint import copying

    found = {}
    for name, pieces in formats.rewrite_files(document, edits, scan=scan).items():
        path = folder / name
        with path.open("wb") as file:
            copying.write(pieces, file.fileno())
        found[name] = path.read_bytes()
    return found


def loaded(folder):
    """The live state in two files."""
    tensors = load_file(folder / "state-0.safetensors")
    tree = json.loads((folder / NAME).read_text())["tree"]
    return decode_state(tree, tensors.__getitem__, state())


def test_values_are_those_of_the_state(document):
    """Keys, tuples and infinities come back, and what is no plain value by its name."""
    extras = document.tree["extras"]
    assert document.tree["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.99)
    assert extras["int keys"] == {1: "one", (2, 3): {"deep": float("-inf")}}
    assert [extras[name].name for name in ("dtype", "device")] == ["torch.float16", "torch.device"]
    assert isinstance(extras["function"], Opaque)
    assert extras["size"] == (2, 3)


def test_tensors_are_those_of_the_file(document):
    """Also of a dtype that safetensors lacks; what shares memory is one tensor."""
    model, extras = document.tree["model"], document.tree["extras"]
    assert model["a.weight"] is model["b.weight"]
    assert read(model["a.weight"]) == TIED.numpy().tobytes()
    assert extras["complex"].dtype == "complex128"
    assert read(extras["complex"]) == state()["extras"]["complex"].numpy().tobytes()


def test_the_file_of_tensors_is_the_same_document(tmp_path):
    """Whichever of the two is asked for."""
    source = open_source(checkpoint(tmp_path / "run"))
    assert source.document("state-0.safetensors") is source.document(NAME)


def test_without_edits_both_files_are_as_they_were(document, tmp_path):
    """Byte for byte."""
    found = written(document, [], tmp_path)
    assert found == {name: (document.path.parent / name).read_bytes() for name in found}


def test_an_edit_changes_what_it_names_and_nothing_else(document, tmp_path):
    """The tensors are not even written anew."""
    place = Place(NAME, ("optimizer", "param_groups", 0, "lr"))
    found = written(document, [Replace(place, 0.03)], tmp_path)
    before = {name: (document.path.parent / name).read_bytes() for name in found}
    assert found["state-0.safetensors"] == before["state-0.safetensors"]
    assert found[NAME] == before[NAME].replace(b'"lr":0.1', b'"lr":0.03')


def test_a_tensor_that_nothing_names_any_more_goes(document, tmp_path):
    """The others stay, bit for bit."""
    slot = Place(NAME, ("optimizer", "state", 0))
    written(document, [Delete(slot / "exp_avg")], tmp_path)
    tensors = load_file(tmp_path / "state-0.safetensors")
    old = load_file(document.path.parent / "state-0.safetensors")
    assert old.keys() - tensors.keys() == {"optimizer.state.0.exp_avg"}
    assert all(torch.equal(tensors[name], old[name]) for name in tensors)


def test_one_of_two_names_of_a_tensor_may_go(document, tmp_path):
    """The tensor is still there under the other."""
    written(document, [Delete(Place(NAME, ("model", "a.weight")))], tmp_path)
    model = loaded(tmp_path)["model"]
    assert list(model) == ["b.weight", "c"]
    assert torch.equal(model["b.weight"], TIED)


def test_new_tensors_and_values_are_added(document, tmp_path):
    """In place of others, and beside them."""
    extras = Place(NAME, ("extras",))
    edits = [
        Replace(extras / "tensor lr", from_scalars("float64", [0.5])),
        Insert(extras / "new", from_scalars("float32", [1, 2, 3], (3,))),
        Insert(extras / "text", ("a", {1: float("nan")})),
        Rename(extras / "size", "shape"),
    ]
    written(document, edits, tmp_path)
    found = loaded(tmp_path)["extras"]
    assert torch.equal(found["tensor lr"], torch.tensor(0.5, dtype=torch.float64))
    assert found["new"].tolist() == [1, 2, 3]
    assert found["text"][0] == "a"
    assert found["text"][1][1] != found["text"][1][1]
    assert found["shape"] == torch.Size([2, 3])
    assert "size" not in found


def test_values_that_were_read_are_written_as_they_were(document, tmp_path):
    """In a list that is written anew as well."""
    extras = document.tree["extras"]
    values = [extras["dtype"], extras["complex"], extras["device"]]
    written(document, [Insert(Place(NAME, ("extras", "all")), values)], tmp_path)
    found = loaded(tmp_path)["extras"]["all"]
    assert found[0] is torch.float16
    assert found[2] == torch.device("cpu")
    assert torch.equal(found[1], state()["extras"]["complex"])


def test_the_device_of_a_tensor_stays_that_of_the_one_before(tmp_path):
    """A learning rate on a GPU does not come back on the CPU."""
    folder = checkpoint(tmp_path / "run")

    def on_cuda(found):
        found["tree"]["extras"]["tensor lr"]["$tensor"]["device"] = "cuda:0"

    document = open_source(changed_json(folder, NAME, on_cuda)).document(NAME)
    place = Place(NAME, ("extras", "tensor lr"))
    written(document, [Replace(place, from_scalars("float64", [0.5]))], tmp_path)
    tree = json.loads((tmp_path / NAME).read_text())["tree"]
    assert tree["extras"]["tensor lr"]["$tensor"]["device"] == "cuda:0"


def test_numpy_scalars_are_shown_as_numbers(tmp_path):
    """Of those of which Python has the like."""
    import numpy as np

    made = {"a": np.float32(0.5), "b": np.int64(-3), "c": np.str_("x"), "d": np.complex64(1j)}
    tree = open_source(checkpoint(tmp_path / "run", made)).document(NAME).tree
    assert [tree["a"], tree["b"], tree["c"]] == [0.5, -3, "x"]
    assert isinstance(tree["d"], Opaque)


def _set(*path):
    """A change that puts the last of `path` where the others lead."""
    *keys, last, value = path

    def change(tree):
        for key in keys:
            tree = tree[key]
        tree[last] = value

    return change


WEIGHT = ("tree", "model", "a.weight", "$tensor")
HOSTILE = {
    "no such tensor": (_set(*WEIGHT, "name", "nowhere"), FormatError, "not in state-0.safetensors"),
    "a tensor without a name": (_set(*WEIGHT, "name", None), FormatError, "the name under which"),
    "two ways to read one": (_set(*WEIGHT, "stride", [1, 2]), FormatError, "read in two ways"),
    "another shape": (_set("tree", "model", "c", "$tensor", "shape", [7]), FormatError, "not fit"),
    "a negative shape": (
        _set("tree", "model", "c", "$tensor", "shape", [-2]), FormatError, "a list of sizes"
    ),
    "an endless shape": (
        _set("tree", "model", "c", "$tensor", "shape", [1 << 40] * 4), FormatError, "sizes"
    ),
    "a way up": (_set("tensors", "../state-0.safetensors"), UnsafePathError, "must lie beside"),
    "an absolute path": (_set("tensors", "/etc/passwd"), UnsafePathError, "must lie beside"),
    "another rank's": (_set("tensors", "state-1.safetensors"), UnsafePathError, "must lie beside"),
    "no name": (_set("tensors", None), UnsafePathError, "must lie beside"),
    "an unknown kind": (_set("tree", "x", {"$code": "os.system"}), FormatError, "unknown kind"),
    "no tree": (_set("tree", [1]), FormatError, "must be an object"),
    "something more": (_set("pickle", 1), FormatError, "and nothing else"),
    "a newer layout": (_set("liontool.state", 2), LayoutError, "newer than this liontool"),
    "a function by number": (
        _set("tree", "extras", "function", {"$live": 3}), FormatError, "called by a name"
    ),
    "no numpy scalar": (
        _set("tree", "extras", "n", {"$numpy": ["<f8", "zz"]}), FormatError, "NumPy scalar"
    ),
    "not a number": (_set("tree", "x", float("nan")), FormatError, "NaN is no number"),
    "too deep": (
        _set("tree", "x", json.loads("[" * 200 + "]" * 200)), LimitError, "nested deeper"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_contents_are_refused(case, tmp_path):
    """In a line that says what is wrong, though COMMIT vouches for every byte."""
    change, kind, words = HOSTILE[case]
    folder = changed_json(checkpoint(tmp_path / "run"), NAME, change)
    with pytest.raises(kind, match=words) as caught:
        open_source(folder).document(NAME)
    assert "\n" not in str(caught.value)


def test_one_file_of_the_two_is_not_given_alone(tmp_path):
    """The message names the folder."""
    folder = checkpoint(tmp_path / "run")
    with pytest.raises(LayoutError, match=f"give the whole: {folder}"):
        open_source(folder / NAME).document()


def test_json_of_that_name_that_is_no_state_leaves_the_tensors_alone(tmp_path):
    """Two files of a folder of somebody else are two documents."""
    folder = checkpoint(tmp_path / "run")
    (folder / NAME).write_text('{"epochs": 3}')
    source = open_source(folder)
    assert source.document("state-0.safetensors").container == "safetensors"
    assert isinstance(source.document("state-0.safetensors").tree["model.c"], TensorRef)
