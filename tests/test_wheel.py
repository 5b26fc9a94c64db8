"""Wheels: with the CPU kernel where it can be compiled, and without it everywhere else."""

from __future__ import annotations

import os
import platform
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[1]
LIBRARY = "liontool/optim/kernels/libliontool.so"
# What pip calls, in a process of its own.
BUILD = "import sys; from hatchling.build import {0}; print({0}(sys.argv[1]))"

has_wheels = pytest.mark.skipif(
    not (sys.platform == "linux" and platform.libc_ver()[0] == "glibc" and shutil.which("cc")),
    reason="wheels with the kernel are for Linux with glibc, and need a C compiler",
)


def built(folder: Path, kind: str = "build_wheel", **environment: str) -> Path:
    """The result of a hook of the build backend."""
    result = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind), str(folder)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return folder / result.stdout.splitlines()[-1]


def names(wheel: Path) -> list[str]:
    """The files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@has_wheels
def test_wheel_with_kernel(tmp_path: Path) -> None:
    """The wheel says which Linux it is for, and needs no compiler there."""
    wheel = built(tmp_path, CC="cc")
    tag = wheel.stem.split("-", 2)[2]
    assert tag == f"py3-none-manylinux_2_28_{platform.machine()}"
    assert LIBRARY in names(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
        assert b"Root-Is-Purelib: false" in archive.read(
            next(name for name in archive.namelist() if name.endswith("/WHEEL"))
        )
    asked = "from liontool.optim.kernels import cpu_library as c; print(c.library()._name)"
    result = subprocess.run(
        [sys.executable, "-c", asked],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "LIONTOOL_NO_COMPILE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == str(tmp_path / LIBRARY)


@pytest.mark.parametrize(
    "environment",
    [
        {"CC": "false"},
        {"CC": "true"},
        {"CC": 'cc "'},
        {"CC": "no-such-compiler"},
        {"LIONTOOL_NO_COMPILE": "1"},
        {"CC": "sh -c 'echo no library > $8' sh"},
    ],
    ids=["fails", "makes-nothing", "quote", "missing", "switched-off", "no-library"],
)
def test_wheel_without_kernel(tmp_path: Path, environment: dict[str, str]) -> None:
    """A compiler that is not there or fails costs the kernel, not the install."""
    wheel = built(tmp_path, **environment)
    assert wheel.stem.endswith("-py3-none-any")
    assert LIBRARY not in names(wheel)
    assert {"liontool/optim/kernels/cpu.c", "liontool/page/style.css"} <= set(names(wheel))


def test_editable_wheel_is_pure(tmp_path: Path) -> None:
    """An editable install compiles nothing: the source may change."""
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["KernelHook"]
    data: dict[str, object] = {"force_include": {}}
    hook(str(ROOT), {}, None, None, str(tmp_path), "wheel").initialize("editable", data)
    assert data == {"force_include": {}}


@pytest.mark.parametrize(
    ("here", "wanted", "expected"),
    [
        ("2.28", b"GLIBC_2.2.5 GLIBC_2.14", "manylinux_2_28"),
        ("2.41", b"GLIBC_2.28", "manylinux_2_28"),
        ("2.41", b"GLIBC_2.29", "linux"),
        ("2.17", b"GLIBC_2.14", "linux"),
    ],
)
def test_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str, wanted: bytes, expected: str
) -> None:
    """A wheel is for all Linuxes with glibc 2.28 if it can be, and pip here accepts it anyway."""
    library = tmp_path / "library.so"
    library.write_bytes(b"\0" + wanted + b"\0")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", here))
    found = runpy.run_path(str(ROOT / "hatch_build.py"))["_platform"](library)
    assert found == f"{expected}_{platform.machine()}"


def test_sdist_can_build_wheels(tmp_path: Path) -> None:
    """The source distribution has the hook and the source of the kernel."""
    with tarfile.open(built(tmp_path, "build_sdist")) as archive:
        files = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"hatch_build.py", "liontool/optim/kernels/cpu.c"} <= files


def test_nothing_is_left_in_the_sources() -> None:
    """Building writes nothing beside the sources."""
    assert not (ROOT / LIBRARY).exists()
