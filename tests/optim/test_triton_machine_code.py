"""What the kernels become on a GPU, compiled ahead of time on any machine."""

from __future__ import annotations

import importlib
import os
import re

import pytest
import torch

from liontool.optim.kernels.triton_layout import interpreted
from support import sass

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(interpreted(), reason="the interpreter compiles nothing")

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
THREADS, BLOCK, CHUNK = 128, 1024, 8192
TILE = {"CHUNK": CHUNK, "BLOCK": BLOCK}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Compiled kernels are shared within this file and with nobody else."""
    before = os.environ.get("TRITON_CACHE_DIR")
    os.environ["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    yield
    if before is None:
        del os.environ["TRITON_CACHE_DIR"]
    else:
        os.environ["TRITON_CACHE_DIR"] = before


def lion(param, grad, exp_avg, rounding="nearest", aligned=True):
    """Lion as a plan would launch it."""
    from liontool.optim.kernels import triton_lion

    kind = kind_of(param, grad, exp_avg, aligned)
    types = kind.types("param", "grad", "exp_avg")
    return triton_lion.lion, {**types, "ROUNDING": rounding, **TILE}


def mark(grad, exp_avg, cautious=False, signed=False):
    """The first pass of LionSF."""
    from liontool.optim.kernels import triton_agreement

    kind = kind_of(grad, grad, exp_avg)
    options = {"CAREFUL": cautious, "SIGNED": signed, "MARKED": kind.marked("grad", "exp_avg")}
    return triton_agreement.mark, {**kind.types("grad", "exp_avg"), **options, **TILE}


def apply_marks(param, rounding="nearest"):
    """The second pass of LionSF."""
    from liontool.optim.kernels import triton_agreement

    kind = kind_of(param, param, param)
    options = {"ROUNDING": rounding, "MARKED": kind.marked("param")}
    return triton_agreement.apply_marks, {**kind.types("param"), **options, **TILE}


def squares(grad):
    """The norm's first pass."""
    from liontool.optim.kernels import triton_norm

    return triton_norm.squares_of_chunks, {**kind_of(grad, grad, grad).types("grad"), **TILE}


def small(module, name, **constants):
    """One of the kernels that look at a few numbers only."""
    return getattr(importlib.import_module(f"liontool.optim.kernels.{module}"), name), constants


def kind_of(param, grad, exp_avg, aligned=True):
    from liontool.optim.kernels.triton_buckets import Kind

    return Kind(param, grad, exp_avg, aligned, "nearest", False, False, False)


def machine(kernel, arch, folder):
    """The machine code of a kernel."""
    need_disassembler()
    function, constants = kernel
    return sass.disassembled(sass.compiled(function, arch, constants), folder)


def need_disassembler():
    if sass.disassembler() is None:
        pytest.skip("no cuobjdump, neither in Triton nor on the path")


def bytes_of_a_parameter(code):
    """What a turn of the loop moves."""
    return (sum(code.loaded()) + sum(code.stored())) * THREADS / BLOCK


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(("dtype", "moved"), [(F32, 20), (BF16, 10)], ids=["fp32", "bf16"])
def test_lion(arch, dtype, moved, tmp_path):
    """Every access is 128 bits wide, nothing is moved twice, no product is fused into a sum."""
    code = machine(lion(dtype, dtype, dtype), arch, tmp_path)
    assert set(code.loaded() + code.stored()) == {16}
    assert bytes_of_a_parameter(code) == moved
    assert code.registers <= 64
    assert not code.has("LDL", "STL")  # spills
    assert not code.has("BAR", "LDS", "STS")
    assert not code.has("FFMA")


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize(("dtype", "moved"), [(F32, 20.5), (BF16, 10.5)], ids=["fp32", "bf16"])
def test_lion_sf(arch, dtype, moved, tmp_path):
    """Both passes together move two bits a parameter more than Lion, and all else at once."""
    first = machine(mark(dtype, dtype), arch, tmp_path)
    second = machine(apply_marks(dtype), arch, tmp_path)
    assert bytes_of_a_parameter(first) + bytes_of_a_parameter(second) == moved
    marks = 1 if dtype == F32 else 2
    assert set(first.loaded()) == {16}
    assert set(first.stored()) == {16, marks}
    assert set(second.loaded()) == {16, marks}
    assert set(second.stored()) == {16}
    for code in (first, second):
        assert code.registers <= 64
        assert not code.has("LDL", "STL", "FFMA")
    assert not second.has("BAR", "LDS", "STS")  # the first sums counts over its warps
    assert not {"BAR", "LDS", "STS"} & {operation.split(".")[0] for operation in first.loop}


@pytest.mark.parametrize("arch", [90])
@pytest.mark.parametrize(
    ("dtypes", "moved"),
    [((F32, F32, BF16), 16), ((BF16, BF16, F32), 14), ((F32, BF16, F32), 18)],
    ids=["m16", "m32", "g16"],
)
def test_mixed_dtypes(arch, dtypes, moved, tmp_path):
    """Each thread loads as many elements of each, so that none go through shared memory."""
    code = machine(lion(*dtypes), arch, tmp_path)
    assert set(code.loaded() + code.stored()) == {8, 16}
    assert bytes_of_a_parameter(code) == moved
    assert code.registers <= 64
    assert not code.has("LDL", "STL", "BAR", "LDS", "STS")


OTHERS = {
    "lion fp32 with clip": lambda: lion(F32, F32, F32),
    "split": lambda: lion(BF16, BF16, BF16, "split"),
    "stochastic": lambda: lion(BF16, BF16, BF16, "stochastic"),
    "float16": lambda: lion(F16, F16, F16),
    "unaligned": lambda: lion(F32, F32, F32, aligned=False),
    "all counts": lambda: mark(BF16, F32, cautious=True, signed=True),
    "marks with split": lambda: apply_marks(BF16, "split"),
    "marks with noise": lambda: apply_marks(BF16, "stochastic"),
    "sizes": lambda: small("triton_agreement", "sizes_of", BLOCK=256),
    "marks of float16": lambda: mark(F16, F16),
    "float16 by marks": lambda: apply_marks(F16),
    "squares": lambda: squares(F32),
    "squares of bf16": lambda: squares(BF16),
    "squares of tensors": lambda: small("triton_norm", "squares_of_tensors", BLOCK=1024),
    "clip": lambda: small("triton_norm", "clip_of", BLOCK=1024),
    "hypers": lambda: small("triton_hypers", "read_hypers"),
}


MAIN = {
    "lion fp32": lambda: lion(F32, F32, F32),
    "lion bf16": lambda: lion(BF16, BF16, BF16),
    "mark": lambda: mark(F32, F32),
    "apply": lambda: apply_marks(F32),
}


@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("name", OTHERS)
def test_all_others_compile(name, arch, tmp_path):
    """With GradScaler and clip, for every architecture, within the registers of full speed."""
    function, constants = OTHERS[name]()
    kernel = sass.compiled(function, arch, constants, optional=True)
    need_disassembler()
    found = sass.resources(kernel, tmp_path)
    assert found["REG"] <= 64
    assert found["STACK"] == found["LOCAL"] == 0  # spills


@pytest.mark.parametrize("name", [*MAIN, *OTHERS])
def test_nothing_rounds_otherwise(name):
    """No multiply-add, no approximate division or root, no subnormal that becomes zero."""
    function, constants = {**MAIN, **OTHERS}[name]()
    code = sass.compiled(function, 90, constants, optional=name in OTHERS).asm["ptx"]
    arithmetic = re.findall(r"\b(?:fma|mul|add|sub|div|sqrt|rcp)\.\S*f(?:32|64)\b", code)
    assert {operation.split(".")[1] for operation in arithmetic} == {"rn"}
    assert not any(operation.startswith("fma") for operation in arithmetic)
    assert ".ftz" not in code


@pytest.mark.parametrize("name", MAIN)
def test_blackwell(name, tmp_path):
    """The kernels of every step compile for sm_100 too."""
    function, constants = MAIN[name]()
    kernel = sass.compiled(function, 100, constants)
    need_disassembler()
    found = sass.resources(kernel, tmp_path)
    assert found["REG"] <= 64
    assert found["STACK"] == found["LOCAL"] == 0
