"""Put the compiled CPU kernel into wheels for Linux.

Without a compiler, elsewhere, and in editable installs the wheel is pure Python: then the first use
of an optimizer compiles the kernel, or does without. An install never fails because of it.
"""

from __future__ import annotations

import platform
import re
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("liontool", "optim", "kernels")
MACHINES = ("x86_64", "aarch64")
OLDEST_GLIBC = (2, 28)  # of the tag manylinux_2_28


class KernelHook(BuildHookInterface):
    """Compiles the kernel into a temporary folder and names the platform of the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built; `version` is "standard" or "editable"."""
        if version == "editable" or not _has_wheels():
            return
        # The module, without the package and so without torch.
        library = runpy.run_path(str(Path(self.root, KERNELS, "cpu_library.py")))
        try:
            self._folder = tempfile.TemporaryDirectory()
            built = Path(self._folder.name, library["PREBUILT"].name)
            library["build_as"](library["SOURCE"], built)
            tag = f"py3-none-{_platform(built)}"
        except (library["NoKernelError"], OSError, ValueError) as error:
            self.app.display_warning(f"the wheel is without the CPU kernel: {error}")
            return
        build_data["force_include"][str(built)] = (KERNELS / built.name).as_posix()
        build_data["pure_python"] = False
        build_data["tag"] = tag

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Called when the wheel is there."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _has_wheels() -> bool:
    """Whether there are wheels with the kernel for this machine."""
    is_glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    return is_glibc and sys.maxsize > 2**32 and platform.machine() in MACHINES


def _platform(built: Path) -> str:
    """The tag of all Linuxes that are new enough, or else of those like this one."""
    here = tuple(map(int, platform.libc_ver()[1].split(".")[:2]))
    wanted = [
        tuple(map(int, pair)) for pair in re.findall(rb"GLIBC_(\d+)\.(\d+)", built.read_bytes())
    ]
    fits = here >= OLDEST_GLIBC >= max(wanted, default=(0, 0))
    return f"{'manylinux_2_28' if fits else 'linux'}_{platform.machine()}"
