"""Memory for the copy of a state: its pages are there before they are needed, and stay ours.

Huge pages where the system has them; not copied when workers are forked, which would give the
parent new pages at the next save; and pinned for a GPU, so that it copies at its full speed.
"""

from __future__ import annotations

import mmap
import weakref
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from liontool.errors import ResumeError

_PAGE = 2 << 20
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for all contexts


def host_memory(nbytes: int, *, pinned: bool) -> Tensor:
    """Bytes in host memory, all zero; a few more than asked for.

    Args:
        nbytes: At least so many.
        pinned: Whether a GPU will write to them.

    Raises:
        ResumeError: There is not so much memory.
    """
    size = max(-(-nbytes // _PAGE), 1) * _PAGE
    try:
        mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise ResumeError(
            f"a save needs {size:,} bytes of memory for a copy of the state, and the system "
            f"refuses them: {error.strerror}; give the process more, or make the state smaller"
        ) from error
    for advice in ("MADV_HUGEPAGE", "MADV_DONTFORK"):
        with suppress(OSError, AttributeError):  # only Linux has them, and not every kernel
            mapped.madvise(getattr(mmap, advice))
    memory = torch.frombuffer(mapped, dtype=torch.uint8).zero_()
    if pinned:
        _pin(memory)
    return memory


def _pin(memory: Tensor) -> None:
    """Register the pages with CUDA; without that a copy is only slower."""
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = memory.data_ptr()
    if int(runtime.cudaHostRegister(address, memory.nbytes, _PORTABLE)) == 0:
        weakref.finalize(memory, runtime.cudaHostUnregister, address).atexit = False
