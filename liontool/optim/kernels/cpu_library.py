"""The CPU kernel's shared object: found in the package, or built once from `cpu.c`.

Wheels for Linux bring it along. Elsewhere the first use compiles it into the user's cache; where
that fails, `why_none` says so and nothing is raised.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("cpu.c")
PREBUILT = Path(__file__).with_name("libliontool.so")
FLAGS = ("-O2", "-std=gnu11", "-ffp-contract=off", "-fPIC", "-shared")
LIBRARIES = ("-lm",)
SWITCH = "LIONTOOL_NO_COMPILE"
SECONDS = 120  # that a compiler may take

INSTRUCTION_SETS = ("plain", "avx2", "avx512")
"""As `cpu.c` numbers them, the plainest first."""


class NoKernelError(Exception):
    """There is no kernel, for the reason that it names. Stays in this package."""


def library() -> ctypes.CDLL:
    """The kernel.

    Raises:
        NoKernelError: There is none here.
    """
    found = _found()
    if isinstance(found, str):
        raise NoKernelError(found)
    return found


def why_none() -> str | None:
    """Why there is no kernel, or None if there is one."""
    found = _found()
    return found if isinstance(found, str) else None


def instruction_sets() -> list[str]:
    """Those that the kernel and this machine have, the plainest first.

    Raises:
        NoKernelError: There is no kernel here.
    """
    kernel = library()
    return [name for i, name in enumerate(INSTRUCTION_SETS) if kernel.liontool_has_set(i)]


def build(source: Path, more_flags: tuple[str, ...] = ()) -> Path:
    """Compile a C file into the user's cache, unless that was done before.

    Processes that do so at once do not disturb each other: each renames a file of its own.

    Raises:
        NoKernelError: It cannot be compiled, or there is no place for it.
    """
    words = [*_compiler(), *FLAGS, *more_flags]
    folder = _cache()
    output = folder / f"{source.stem}-{_fingerprint(source, words)}.so"
    if not output.exists():
        with tempfile.TemporaryDirectory(dir=folder) as private:
            built = Path(private) / output.name
            _compile(words, source, built)
            built.replace(output)
    return output


def build_as(source: Path, output: Path) -> None:
    """Compile a C file to a shared object, for a wheel.

    Raises:
        NoKernelError: It cannot be compiled, or what comes of it is no kernel.
    """
    _compile([*_compiler(), *FLAGS], source, output)
    _opened(output)


@functools.cache
def _found() -> ctypes.CDLL | str:
    try:
        return _opened(PREBUILT if PREBUILT.exists() else build(SOURCE))
    except NoKernelError as error:
        return str(error)
    except OSError as error:  # a cache that cannot be written
        return f"no kernel: {error}"


def _compiler() -> list[str]:
    if os.environ.get(SWITCH, "0") not in ("", "0"):
        raise NoKernelError(f"no kernel: this installation has none built, and {SWITCH} is set")
    if os.name != "posix":
        raise NoKernelError(f"no kernel: none is built on {platform.system()}")
    wanted = os.environ.get("CC", "")
    try:
        words = shlex.split(wanted) or ["cc"]
    except ValueError as error:
        raise NoKernelError(f"no kernel: CC={wanted} is no command: {error}") from None
    path = shutil.which(words[0])
    if path is None:
        raise NoKernelError(
            f"no kernel: no C compiler, `{words[0]}` is not found; install one or set CC"
        )
    return [path, *words[1:]]


def _compile(words: list[str], source: Path, output: Path) -> None:
    try:
        done = subprocess.run(
            [*words, str(source), "-o", str(output), *LIBRARIES],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoKernelError(f"no kernel: {words[0]} took more than {SECONDS} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NoKernelError(f"no kernel: {words[0]} failed: {said[0]}")
    if not output.exists():
        raise NoKernelError(f"no kernel: {words[0]} made no file")
    _load(output)  # what cannot be loaded has no place in a cache or a wheel


def _cache() -> Path:
    """A folder that nobody else can write to: what lies in it will be executed."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(root) / "liontool"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoKernelError(f"no kernel: others may write to {folder}; chmod 700 it")
    return folder


def _fingerprint(source: Path, words: list[str]) -> str:
    """Changes with everything that the result of compiling depends on."""
    path = Path(words[0]).resolve()
    age = path.stat()
    parts = (words, path, age.st_size, age.st_mtime_ns, platform.libc_ver())
    machine = (platform.system(), platform.machine())
    digest = hashlib.sha256(source.read_bytes() + repr((parts, machine)).encode())
    return digest.hexdigest()[:20]


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return _declared(_load(path))
    except AttributeError as error:  # a library, but another one
        raise NoKernelError(f"no kernel: {error}") from None


def _load(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoKernelError(f"no kernel: {error}") from None


def _declared(kernel: ctypes.CDLL) -> ctypes.CDLL:
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    kernel.liontool_has_set.argtypes = [ctypes.c_int]
    kernel.liontool_has_set.restype = ctypes.c_int
    kernel.liontool_step.argtypes = [
        *(pointer, integer, pointer),  # tensors, gradients
        *(pointer, integer, pointer, integer),  # items, groups
        *(pointer, pointer),  # cells, codes
        *(ctypes.c_int, ctypes.c_uint, pointer),  # instruction set, threads, GOMP_parallel
    ]
    kernel.liontool_step.restype = None
    kernel.liontool_fetch.argtypes = [pointer, integer]
    kernel.liontool_fetch.restype = None
    return kernel
