"""Tensors and what stands beside them: kept bit for bit, or refused by path."""

from __future__ import annotations

import enum
import json
import math
import random
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from liontool.checkpoint.formats.safetensors_file import DTYPES
from liontool.errors import FormatError, ResumeError, StateTypeError
from liontool.resume.difference import difference
from liontool.resume.encoding import decode_state, encode_state
from liontool.resume.host_copy import HostCopy
from support.encoded_states import part_there_and_back, there_and_back

NUMBERS = torch.arange(24)


def _dtypes() -> list[torch.dtype]:
    """Every dtype of this torch that a plain tensor can have."""
    found = {dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
    names = ("torch.qint", "torch.quint")
    return sorted((d for d in found if not str(d).startswith(names)), key=str)


def _of_dtype(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """A tensor with some bits set, made without arithmetic, which few dtypes have."""
    size = torch.empty((), dtype=dtype).element_size()
    data = torch.arange(math.prod(shape) * size, dtype=torch.int64).remainder(2).to(torch.uint8)
    return data.view(dtype).view(shape)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", _dtypes(), ids=str)
def test_every_dtype_and_small_shape_survives(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Those that safetensors lacks lie as bytes."""
    tensor = _of_dtype(dtype, shape)
    made = part_there_and_back(tensor)
    assert difference(made, tensor) is None
    assert (made.dtype, made.shape) == (dtype, shape)


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_what_is_written_safetensors_can_write() -> None:
    """The file has a word for every dtype that is not turned into bytes, and for bytes."""
    known = {getattr(torch, name) for name in DTYPES.values() if hasattr(torch, name)}
    state = {str(dtype): _of_dtype(dtype, (2,)) for dtype in _dtypes()}
    encoded = encode_state(state)
    assert {tensor.dtype for tensor in encoded.tensors.values()} == known


def test_a_file_of_it_gives_the_state_again() -> None:
    """Through the bytes of a safetensors file, read by the library of that name."""
    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    wide = torch.tensor([1 + 2j], dtype=torch.complex128)
    state = {"model": model.state_dict(), "x": {"a": wide, "b": [torch.tensor(True)]}}
    encoded = encode_state(state)
    body = HostCopy().take(encoded.tensors)
    read = safetensors.torch.load(bytes(body.header) + bytes(body.data))
    assert difference(decode_state(encoded.tree, read.__getitem__, {}), state) is None


_LAYOUTS: dict[str, Tensor] = {
    "channels_last": NUMBERS.view(2, 3, 2, 2).float().to(memory_format=torch.channels_last),
    "transposed": NUMBERS.view(4, 6).t(),
    "permuted": NUMBERS.view(2, 3, 4).permute(2, 0, 1),
    "transposed complex128": NUMBERS.view(4, 6).to(torch.complex128).t(),
    "a slice of rows": NUMBERS.view(4, 6)[1:3],
    "a slice of columns": NUMBERS.view(4, 6)[:, 1:3],
    "expanded": NUMBERS[:3].expand(4, 3),
    "one number expanded": torch.tensor(2.5).expand(100, 100),
    "every other": NUMBERS[::2],
    "size one": NUMBERS.view(24, 1).t(),
    "conjugated": torch.tensor([1 + 2j, 3 - 1j]).conj(),
    "conjugated half": torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    "conjugated complex128": torch.tensor([1 + 2j], dtype=torch.complex128).conj(),
    "an inference tensor": torch.inference_mode()(lambda: torch.ones(3) * 2)(),
    "nan, infinity and minus zero": torch.tensor([math.nan, -math.nan, math.inf, -math.inf, -0.0]),
}


@pytest.mark.parametrize("name", _LAYOUTS)
def test_every_layout_survives(name: str) -> None:
    """Elements and, where there are no gaps, strides; gaps are closed."""
    tensor = _LAYOUTS[name]
    made = part_there_and_back(tensor)
    assert difference(made, tensor) is None
    dense = torch.empty_like(tensor, memory_format=torch.preserve_format)
    if name not in ("expanded", "one number expanded", "a slice of columns", "every other"):
        assert made.stride() == dense.stride() or tensor.numel() == tensor.shape[-1]


def test_strides_come_back() -> None:
    """A model in channels_last goes on in channels_last."""
    made = part_there_and_back(_LAYOUTS["channels_last"])
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert made.stride() == _LAYOUTS["channels_last"].stride()


def test_the_bits_of_a_nan_come_back() -> None:
    """A NaN is not one number but millions."""
    bits = torch.tensor([0x7FC01234, 0x7F800001, -1], dtype=torch.int32)
    made = part_there_and_back(bits.view(torch.float32))
    assert torch.equal(made.view(torch.int32), bits)


def test_tensors_are_not_copied() -> None:
    """What is encoded is where it was: a save copies it once."""
    weight = torch.ones(3)
    (tensor,) = encode_state({"w": weight}).tensors.values()
    assert tensor.data_ptr() == weight.data_ptr()
    assert not tensor.requires_grad


def test_parameters_and_gradients_wanted_come_back() -> None:
    """A learning rate that is itself learned goes on learning."""
    state = {
        "lr": torch.tensor(0.1, requires_grad=True),
        "p": Parameter(torch.ones(2)),
        "fixed": Parameter(torch.ones(2), requires_grad=False),
        "plain": torch.ones(2),
    }
    made = there_and_back(state)
    assert difference(made, state) is None
    assert {name: (type(t), t.requires_grad) for name, t in made.items()} == {
        "lr": (Tensor, True),
        "p": (Parameter, True),
        "fixed": (Parameter, False),
        "plain": (Tensor, False),
    }


# --- names and shared memory --------------------------------------------------------------------


def test_tensors_are_named_by_their_path() -> None:
    """The file of tensors can be read by people."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "list": [(torch.ones(1),)]}
    encoded = encode_state({"model": model.state_dict(), "optimizer": optimizer})
    assert list(encoded.tensors) == [
        "model.0.weight", "model.0.bias", "optimizer.state.0.exp_avg", "optimizer.list.0.0",
    ]  # fmt: skip


def test_names_are_unique_and_writable() -> None:
    """Two paths may spell alike, and one name is the format's own."""
    state = {
        "a.b": torch.tensor(1),
        "a": {"b": torch.tensor(2), 1: torch.tensor(3), "1": torch.tensor(4)},
        "__metadata__": torch.tensor(5),
        "\ud800\n": torch.tensor(6),
        "x" * 5000: torch.tensor(7),
        "": {"": torch.tensor(8)},
        "k": {10**5000: torch.tensor(9)},
    }
    encoded = encode_state(state)
    names = list(encoded.tensors)
    assert names[:6] == ["a.b", "a.b~2", "a.1", "a.1~2", "__metadata__~2", r"\ud800\n"]
    assert all(len(name) < 500 and name.isprintable() and name.encode() for name in names)
    assert difference(there_and_back(state), state) is None


def test_twins_of_a_name_take_no_time_each() -> None:
    """Ten thousand names that are cut alike are told apart one by one."""
    state = {"x" * 1000 + str(i): torch.tensor(i) for i in range(10_000)}
    begin = time.process_time()
    assert len(encode_state(state).tensors) == 10_000
    assert time.process_time() - begin < 2


def test_tied_weights_are_written_once_and_stay_tied() -> None:
    """So does a list that holds a tensor twice."""
    weight = torch.ones(3)
    state = {"head": weight, "embedding": weight.detach(), "again": [weight, weight.view(3)]}
    assert list(encode_state(state).tensors) == ["head"]
    made = there_and_back(state)
    assert made["head"] is made["embedding"] is made["again"][1]


def test_an_array_and_a_tensor_of_one_memory_are_written_once() -> None:
    """They share it again."""
    array = np.arange(3.0)
    state = {"array": array, "tensor": torch.from_numpy(array)}
    assert list(encode_state(state).tensors) == ["array"]
    made = there_and_back(state)
    made["tensor"][0] = 7
    assert made["array"][0] == 7


def test_views_that_differ_are_written_each() -> None:
    """Parts of one memory, or one memory read in two ways, come back with their own values."""
    flat = torch.arange(12.0)
    state = {
        "flat": flat, "half": flat[:6], "rest": flat[6:], "square": flat.view(3, 4),
        "bits": flat.view(torch.int32), "row": flat[:1].expand(12), "turned": flat.view(4, 3).t(),
    }  # fmt: skip
    encoded = encode_state(state)
    assert len(encoded.tensors) == len(state)
    assert difference(there_and_back(state), state) is None


def test_a_view_that_negates_is_not_taken_for_its_base() -> None:
    """torch conjugates and negates when it is read, and until then memory is shared."""
    number = torch.tensor([1 + 2j])
    state = {"z": number, "conj": number.conj(), "y": number.imag, "neg": number.conj().imag}
    assert difference(there_and_back(state), state) is None


def test_a_tensor_and_the_parameter_of_its_memory_are_told_apart() -> None:
    """One wants a gradient and the other does not."""
    weight = torch.ones(3)
    state = {"plain": weight, "parameter": Parameter(weight), "again": weight}
    made = there_and_back(state)
    assert difference(made, state) is None
    assert made["plain"] is made["again"]


def test_bytes_may_lie_anywhere_in_their_file() -> None:
    """Elements that safetensors has no word for need an alignment that it does not give."""
    data = torch.arange(33, dtype=torch.uint8)[1:]
    tree = {"x": {"$tensor": {"name": "x", "dtype": "complex128", "shape": [2, 1]}}}
    made = decode_state(tree, {"x": data}.__getitem__, {})["x"]
    assert bytes(made.view(torch.uint8).flatten().tolist()) == bytes(range(1, 33))


def test_empty_tensors_are_not_taken_for_one() -> None:
    """All of them lie nowhere."""
    state = {"a": torch.empty(0), "b": torch.empty(0), "c": torch.empty(0, 5)}
    made = there_and_back(state)
    assert difference(made, state) is None
    assert made["a"] is not made["b"]


def test_copies_that_are_made_on_the_way_are_not_taken_for_one() -> None:
    """Memory that is given back and used again is not shared memory."""
    state = {str(i): torch.full((4,), i + 1j, dtype=torch.complex64).conj() for i in range(20)}
    assert difference(there_and_back(state), state) is None


# --- generators, numpy and torch's small types --------------------------------------------------


def test_generators_of_random_numbers_go_on() -> None:
    """Python's, both of NumPy's, and torch's; the numbers after it are the same."""
    ours, theirs = random.Random(5), np.random.RandomState(5)
    torchs = torch.Generator().manual_seed(5)
    ours.gauss(0, 1)
    theirs.standard_normal()
    state = {
        "python": ours.getstate(),
        "numpy": theirs.get_state(),
        "numpy dict": theirs.get_state(legacy=False),
        "torch": torchs.get_state(),
    }
    made = there_and_back(state)
    assert difference(made, state) is None
    after = (ours.random(), ours.gauss(0, 1), theirs.standard_normal(3).tolist())
    torch_after = torch.rand(3, generator=torchs)
    ours.setstate(made["python"])
    theirs.set_state(made["numpy"])
    torchs.set_state(made["torch"])
    assert (ours.random(), ours.gauss(0, 1), theirs.standard_normal(3).tolist()) == after
    assert torch.equal(torch.rand(3, generator=torchs), torch_after)


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_new_generators_of_numpy_go_on(name: str) -> None:
    """Their numbers have up to 128 bits, or are arrays."""
    generator = np.random.Generator(getattr(np.random, name)(7))
    generator.integers(0, 9, 5, dtype=np.int8)
    state = generator.bit_generator.state
    made = part_there_and_back(state)
    assert difference(made, state) is None
    after = generator.random(5).tolist()
    generator.bit_generator.state = made
    assert generator.random(5).tolist() == after


_ARRAYS: dict[str, Any] = {
    "float64": np.linspace(0, 1, 6).reshape(2, 3),
    "Fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "no dimensions": np.array(2.5),
    "empty": np.empty((0, 3), np.float32),
    "bool": np.array([True, False]),
    "uint16": np.array([1, 65535], np.uint16),
    "float16": np.array([1, np.nan], np.float16),
    "complex64": np.array([1 + 2j], np.complex64),
    "complex128": np.array([1 + 2j]),
    "big-endian": np.array([1, 2], ">f4"),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "dates": np.array(["2026-01-01", "NaT"], "M8[D]"),
    "durations": np.array([1, 2], "m8[25s]"),
    "backwards": np.arange(5)[::-1],
    "a slice": np.arange(12).reshape(3, 4)[:, 1:3],
    "read-only": np.frombuffer(b"\1\2", np.uint8),
    "empty complex": np.empty((2, 0)).astype(complex),
}


@pytest.mark.parametrize("name", _ARRAYS)
def test_arrays_survive(name: str) -> None:
    """Whatever numpy keeps as plain bytes."""
    made = part_there_and_back(_ARRAYS[name])
    assert difference(made, _ARRAYS[name]) is None
    assert made.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        np.float64(0.1), np.float32("nan"), np.float16(-0.0), np.int8(-3), np.uint64(2**64 - 1),
        np.bool_(True), np.complex64(1 + 2j), np.complex128(1j), np.str_("ab"), np.str_(""),
        np.bytes_(b"ab"), np.datetime64("2026-01-01", "s"), np.timedelta64(3, "D"),
        torch.Size([2, 3]), torch.Size([]), torch.float8_e5m2, torch.int64, torch.device("cpu"),
        torch.device("cuda", 3), torch.device("meta"), len, math.sin, random.random.__class__,
        OrderedDict, torch.nn.functional.gelu, torch.optim.AdamW, test_arrays_survive,
        {np.int64(1): 2, np.str_("x"): 3, torch.float32: 4, torch.Size([1]): 5, "y": 6},
        {np.float64(0.5), torch.int8, (torch.Size([1]), np.int8(1))},
    ],
    ids=lambda value: f"{type(value).__name__}",
)  # fmt: skip
def test_small_types_survive(value: Any) -> None:
    """numpy's scalars, and torch's shapes, dtypes and devices; functions by their names."""
    assert difference(part_there_and_back(value), value) is None


# --- functions and classes ----------------------------------------------------------------------


class _Rule:
    def __init__(self, rule: Any) -> None:
        self.rule = rule


def test_a_function_is_taken_from_the_live_run() -> None:
    """The file has its name, and nothing is imported."""
    tree = encode_state({"s": {"rule": [math.sin]}}).tree
    assert tree == {"s": {"rule": [{"$live": "math.sin"}]}}
    assert (
        decode_state(tree, {}.__getitem__, {"s": {"rule": [math.sin]}})["s"]["rule"][0] is math.sin
    )


@pytest.mark.parametrize(
    ("live", "message"),
    [
        ({"s": {"rule": math.cos}}, r"the checkpoint was made with math\.sin here, and the run "
                                    r"has math\.cos now; build the run with the same one"),
        ({"s": {"rule": 3}}, r"and the run has int now"),
        ({"s": {}}, r"s\.rule: .* and the run has nothing now"),
        ({"s": torch.ones(3)}, r"and the run has nothing now"),
        ({}, r"and the run has nothing now"),
    ],
    ids=str,
)  # fmt: skip
def test_another_function_is_an_error(live: dict[str, Any], message: str) -> None:
    """A schedule with another shape would be another run."""
    with pytest.raises(ResumeError, match=message):
        decode_state({"s": {"rule": {"$live": "math.sin"}}}, {}.__getitem__, live)


# --- what cannot be kept ------------------------------------------------------------------------


class _Tagged(Tensor):
    pass


class _Mode(enum.Enum):
    FAST = 1


def _sparse() -> Tensor:
    return torch.eye(3).to_sparse()


def _nested() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (_sparse(), r"^m\.0\.x: a checkpoint cannot keep a tensor of the layout torch\.sparse_coo; "
                    "save its indices"),
        (_nested(), r"^m\.0\.x: a checkpoint cannot keep .*NestedTensor; save the plain tensors"),
        (torch.ones(2, device="meta"), r"^m\.0\.x: .*on the meta device, .*; give it memory"),
        (torch.ones(2).as_subclass(_Tagged), r"^m\.0\.x: .*_Tagged; save the plain tensors"),
        (torch.nn.UninitializedParameter(), r"^m\.0\.x: .*UninitializedParameter; run one batch"),
        (torch.Generator(), r"^m\.0\.x: .* keep torch\S*Generator; save its get_s"),
        (torch.nn.Linear(1, 1), r"^m\.0\.x: .*torch.nn.modules.linear.Linear; save its state_dict"),
        (_Mode.FAST, r"^m\.0\.x: .*_Mode; save its \.value"),
        (lambda: 1, r"^m\.0\.x: .*<lambda>; give it a name at the top of a module"),
        ([].append, r"^m\.0\.x: .*list\.append; give it a name at the top"),
        (np.array([None]), r"^m\.0\.x: .*numpy's object; save it as numbers"),
        (np.zeros(2, "i4,f4"), r"^m\.0\.x: .*numpy's \[\('f0'.*; save it as numbers"),
        (np.longdouble(1), r"^m\.0\.x: .*numpy's (longdouble|float128); save it as numbers"),
        (np.ma.masked_array([1]), r"^m\.0\.x: .*MaskedArray; "),
        ({torch.ones(2)}, r"^m\.0\.x\.0: .*Tensor as a key or in a set"),
        ({len: 1}, r"^m\.0\.x\.keys: .*len as a key or in a set"),
        (np.random.default_rng(), r"^m\.0\.x: .*Generator; save its bit_generator\.state"),
        (random.Random(), r"^m\.0\.x: .*random\.Random; save its getstate\(\)"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_other_types_are_refused_by_path(value: Any, message: str) -> None:
    """The message has the path, the type and the way out, in one line."""
    with pytest.raises(StateTypeError, match=message) as caught:
        encode_state({"m": [{"x": value}]})
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_tensors_are_refused() -> None:
    """Their scale would be lost."""
    value = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(StateTypeError, match=r"^x: .*a quantised tensor; save its int_repr"):
        encode_state({"x": value})


def test_a_tensor_of_several_processes_is_refused() -> None:
    """The way out is named, whatever torch was built with."""
    kind = type("DTensor", (Tensor,), {})
    with pytest.raises(StateTypeError, match=r"^x: .*DTensor; runs of several processes cannot"):
        encode_state({"x": torch.ones(2).as_subclass(kind)})


# --- strangers' trees ---------------------------------------------------------------------------

_KINDS = ["$tensor", "$ndarray", "$numpy", "$size", "$dtype", "$device", "$live", "$tuple", "$set"]
_FILE = {
    "a": torch.arange(6, dtype=torch.uint8),
    "b": torch.arange(6.0).view(2, 3),
    "c": torch.empty(0, dtype=torch.uint8),
    "d": torch.tensor(1, dtype=torch.bfloat16),
}
_SIZES = st.sampled_from([0, 1, 2, 3, 6, -1, 2**62, 2**63, 2**200, 1.5, True, None])
_FIELDS = {
    "name": st.sampled_from([*_FILE, "e", 1]),
    "stride": st.lists(_SIZES, max_size=3) | st.just([1, 2]) | st.just([3, 1]),
    "shape": st.lists(_SIZES, max_size=3) | st.just([0, 2**62, 2**62]) | st.just([1] * 65),
    "dtype": st.sampled_from(
        ["float16", "complex128", "int8", "uint4", "eval", "<U0", "<M8[ns]", "|u1", "<c16", "O",
         "<f16", "<U999999999", "<M8[99999999999as]", "<i3", "|V8", "i4,i4", "<m8[0s]", 7, None]
    ),
    "device": st.sampled_from(["cpu", "cuda:0", "cuda:999", "meta", "nothing", "", 3, "cpu:1"]),
    "requires_grad": st.sampled_from([True, False, 1, None]),
    "parameter": st.sampled_from([True, False, 0]),
    "more": st.just(1),
}  # fmt: skip
_TAGS = st.fixed_dictionaries({}, optional=_FIELDS)
_PAYLOADS = (
    _TAGS
    | st.lists(_SIZES, max_size=3)
    | _FIELDS["dtype"]
    | _FIELDS["device"]
    | st.tuples(_FIELDS["dtype"] | st.just("str"), st.sampled_from(["", "00", "0g", "00" * 16, 1]))
    | st.just("math.sin")
)
_NODES = st.recursive(
    st.tuples(st.sampled_from(_KINDS), _PAYLOADS).map(
        lambda tag: {tag[0]: list(tag[1]) if isinstance(tag[1], tuple) else tag[1]}
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_NODES, max_size=4))
def test_any_tree_of_leaves_is_decoded_or_refused(nodes: list[Any]) -> None:
    """Nothing but one line comes out, and what is decoded can be encoded."""
    tree = json.loads(json.dumps({"model": nodes}))
    try:
        state = decode_state(tree, _FILE.__getitem__, {"model": [math.sin]}, "state-0.json")
        found = difference(there_and_back(state), state)
    except (FormatError, ResumeError) as error:
        found = str(error)
        assert "\n" not in found and ": " in found  # noqa: PT018 - one line with a path
    else:
        assert found is None


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"$tensor": "a"}, "'\\$tensor' must have a name and known fields"),
        ({"$tensor": {"name": "a", "more": 1}}, "'\\$tensor' must have a name and known fields"),
        ({"$tensor": {"name": "z"}}, "there is no tensor 'z' beside the tree"),
        ({"$tensor": {"name": "b", "stride": [3, 2]}}, r"\[3, 2\] are no strides of \[2, 3\]"),
        ({"$tensor": {"name": "b", "stride": [0, 0]}}, r"\[0, 0\] are no strides of \[2, 3\]"),
        ({"$tensor": {"name": "b", "stride": "no"}}, "a shape or strides must be a list of counts"),
        (
            {"$tensor": {"name": "a", "dtype": "complex128", "shape": [1]}},
            r"\(6,\) of .*uint8 is n",
        ),
        ({"$tensor": {"name": "b", "dtype": "complex128", "shape": [1]}}, r"\(2, 3\) of .*float32"),
        ({"$tensor": {"name": "a", "dtype": "os", "shape": [1]}}, "'dtype' must be the name of a"),
        ({"$tensor": {"name": "a", "device": "moon"}}, "'device' must be the name of a device"),
        ({"$tensor": {"name": "a", "requires_grad": 1}}, "'requires_grad' and 'parameter' must be"),
        (
            {"$tensor": {"name": "a", "requires_grad": True}},
            "a tensor of torch.uint8 can have no gradient",
        ),
        ({"$ndarray": {"name": "d"}}, "numpy has no arrays of torch.bfloat16"),
        ({"$ndarray": {"name": "a", "dtype": "O", "shape": [1]}}, "O is no dtype that liontool wr"),
        (
            {"$ndarray": {"name": "a", "dtype": "<c16", "shape": [1]}},
            "6 bytes are no array of <c16",
        ),
        ({"$numpy": ["<f4", "00"]}, r"'\$numpy' must be \[dtype, hexadecimal digits\]"),
        ({"$numpy": {}}, r"'\$numpy' must be \[dtype, hexadecimal digits\]"),
        ({"$size": [-1]}, "a shape or strides must be a list of counts"),
        ({"$live": 1}, r"'\$live' must be a name"),
        ({"$set": [{"$tensor": {"name": "a"}}]}, r"'\$tensor' can be no key and in no set"),
        ({"$more": 1}, r"holds a value of the unknown kind '\$more'"),
    ],
    ids=str,
)
def test_a_broken_leaf_is_refused_by_path(node: Any, message: str) -> None:
    """The message has the file, the path and what is wrong."""
    with pytest.raises(FormatError, match=rf"^f: m\.0(\.0)?: {message}"):
        decode_state({"m": [node]}, _FILE.__getitem__, {}, "f")


def test_a_tensor_is_read_in_one_way() -> None:
    """Two descriptions of one name would be two memories, as many as a stranger likes."""
    nodes = [{"$tensor": {"name": "b"}}, {"$tensor": {"name": "b", "stride": [1, 2]}}]
    with pytest.raises(FormatError, match=r"^m\.1: 'b' is read in two ways"):
        decode_state({"m": nodes}, _FILE.__getitem__, {})


@pytest.mark.parametrize("tree", [[], 1, "x", None, {"$dict": [[1, 2]]}, {"$ordered": []}], ids=str)
def test_a_tree_that_is_no_state_is_refused(tree: Any) -> None:
    """A state is an object with text keys."""
    with pytest.raises(FormatError, match=r"^f: holds no state of a run"):
        decode_state(tree, _FILE.__getitem__, {}, "f")


def test_the_tensor_that_was_read_is_left_as_it_is() -> None:
    """A gradient that is wanted is wanted of the state's tensor, not of the file's."""
    file = {"a": torch.ones(2)}
    tree = {"m": {"$tensor": {"name": "a", "requires_grad": True}}}
    assert decode_state(tree, file.__getitem__, {})["m"].requires_grad
    assert not file["a"].requires_grad


def test_a_state_of_a_device_that_is_not_there_stays_where_it_is() -> None:
    """A checkpoint of a GPU opens without one."""
    tree = {"x": {"$tensor": {"name": "b", "device": "mtia:0"}}}
    assert decode_state(tree, _FILE.__getitem__, {})["x"].device.type == "cpu"


@pytest.mark.gpu
def test_tensors_come_back_to_their_device() -> None:
    """But for those that a module or an optimizer copies from: they would take its memory twice."""
    there = {"device": torch.device("cuda", torch.cuda.current_device())}
    state = {
        "model": {"weight": torch.ones(2, **there)},
        "optimizer": {
            "state": {0: {"exp_avg": torch.ones(2, **there)}},
            "param_groups": [{"lr": torch.tensor(0.1, **there)}],
        },
        "extras": {"metric": {"total": torch.ones((), **there), "count": torch.ones(())}},
    }
    made = there_and_back(state)
    assert difference(made, state) is None
    assert made["model"]["weight"].is_cpu
    assert made["optimizer"]["state"][0]["exp_avg"].is_cpu
    assert made["optimizer"]["param_groups"][0]["lr"].device == there["device"]
    metric = made["extras"]["metric"]
    assert (metric["total"].device, metric["count"].device.type) == (there["device"], "cpu")


def test_a_tree_is_written_as_it_always_was() -> None:
    """Checkpoints of this version open with the next one."""
    state = {
        "model": torch.nn.LayerNorm(2).state_dict(),
        "x": {
            "lr": torch.tensor(0.5, requires_grad=True),
            "turned": torch.ones(2, 3).t(),
            "wide": torch.ones(1, dtype=torch.complex128),
            "array": np.ones((2, 2), order="F"),
            "words": np.array(["a"]),
            "small": [np.float32(1), torch.Size([2]), torch.int8, torch.device("cpu"), math.sin],
        },
    }
    expected = """
        {"model": {"$state_dict": [[["weight", {"$tensor": {"name": "model.weight"}}],
                                    ["bias", {"$tensor": {"name": "model.bias"}}]],
                                   {"$ordered": [["", {"version": 1}]]}]},
         "x": {"lr": {"$tensor": {"name": "x.lr", "requires_grad": true}},
               "turned": {"$tensor": {"name": "x.turned", "stride": [1, 3]}},
               "wide": {"$tensor": {"name": "x.wide", "dtype": "complex128", "shape": [1]}},
               "array": {"$ndarray": {"name": "x.array", "stride": [1, 2]}},
               "words": {"$ndarray": {"name": "x.words", "dtype": "<U1", "shape": [1]}},
               "small": [{"$numpy": ["<f4", "0000803f"]}, {"$size": [2]}, {"$dtype": "int8"},
                         {"$device": "cpu"}, {"$live": "math.sin"}]}}
    """
    assert json.dumps(encode_state(state).tree) == json.dumps(json.loads(expected))


# --- time ---------------------------------------------------------------------------------------


def test_twenty_thousand_tensors_are_encoded_in_less_than_a_second() -> None:
    """A save holds the training up for as long as this takes."""
    state = {
        "optimizer": {
            "state": {
                i: {"step": torch.tensor(1.0), "exp_avg": torch.ones(3)} for i in range(10_000)
            }
        }
    }
    begin = time.process_time()
    encoded = encode_state(state)
    assert time.process_time() - begin < 1
    assert len(encoded.tensors) == 20_000
