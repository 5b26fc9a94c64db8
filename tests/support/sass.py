"""Kernels compiled ahead of time, without a GPU, and what their machine code does."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Types of the kernels' arguments; all others are constants.
ARGUMENTS = {
    "records_ptr": "*i64",
    "rows_ptr": "*i64",
    "grads_ptr": "*i64",
    "hypers_ptr": "*fp64",
    "grad_scale_ptr": "*fp32",
    "found_inf_ptr": "*fp32",
    "clip_ptr": "*fp64",
    "counts_ptr": "*i64",
    "sizes_ptr": "*fp32",
    "squares_ptr": "*fp64",
    "chunk_squares_ptr": "*fp64",
    "limit_ptr": "*fp64",
    "tensors": "i32",
}
OPTIONAL = ("grad_scale_ptr", "found_inf_ptr", "clip_ptr")
_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")


@dataclass
class Machine:
    """The machine code of a kernel.

    Attributes:
        registers: Of a thread.
        operations: All, without operands.
        loop: Those of its one loop.
    """

    registers: int
    operations: list[str]
    loop: list[str]

    def has(self, *names: str) -> bool:
        """Whether one of these operations is in the kernel."""
        return any(operation.split(".")[0] in names for operation in self.operations)

    def loaded(self) -> list[int]:
        """Bytes that a thread loads from global memory in a turn of the loop, by access."""
        return [_width(operation) for operation in self.loop if operation.startswith("LDG")]

    def stored(self) -> list[int]:
        """Bytes that a thread stores to global memory in a turn of the loop, by access."""
        return [_width(operation) for operation in self.loop if operation.startswith("STG")]


def disassembler() -> str | None:
    """NVIDIA's cuobjdump: in Triton's wheel, or on the path."""
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(bundled) if bundled.exists() else shutil.which("cuobjdump")


def compiled(kernel: Any, arch: int, constants: dict[str, Any], *, optional: bool = False) -> Any:
    """A kernel for a CUDA architecture, from aligned pointers, with or without optional ones."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types, values = {}, dict(constants)
    for name in kernel.arg_names:
        if name == "marks_ptr":
            types[name] = "*i8" if constants["MARKED"] == 4 else "*i16"
        elif name in ARGUMENTS and (optional or name not in OPTIONAL):
            types[name] = ARGUMENTS[name]
        else:
            types[name] = "constexpr"
            values.setdefault(name, None)
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types[name].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=values, attrs=aligned)
    options = {"num_warps": 4, "enable_fp_fusion": False}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def disassembled(kernel: Any, folder: Path) -> Machine:
    """The machine code of a compiled kernel."""
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    found = _INSTRUCTION.findall(_dump("-sass", file))
    places = [int(place, 16) for place, _, _ in found]
    operations = [operation for _, operation, _ in found]
    loop: list[str] = []
    for place, (_, operation, operands) in zip(places, found, strict=True):
        target = re.search(r"0x([0-9a-f]+)", operands)
        if operation.startswith("BRA") and target and int(target[1], 16) < place:
            start = places.index(int(target[1], 16))
            loop += operations[start : places.index(place)]
    return Machine(resources(kernel, folder)["REG"], operations, loop)


def resources(kernel: Any, folder: Path) -> dict[str, int]:
    """What a thread of a compiled kernel has: REG, and for what is spilled STACK and LOCAL."""
    file = folder / "kernel.cubin"
    file.write_bytes(kernel.asm["cubin"])
    return {
        name: int(value) for name, value in re.findall(r"(\w+):(\d+)", _dump("-res-usage", file))
    }


def _dump(option: str, file: Path) -> str:
    command = [str(disassembler()), option, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _width(operation: str) -> int:
    """Bytes of one access."""
    parts = operation.split(".")
    for part, width in (("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)):
        if part in parts:
            return width
    return 4
