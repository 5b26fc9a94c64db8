"""Run torch's own test_optim.py, unmodified, on Lion and LionSF.

    make torch-suite TEST_OPTIM=pytorch/test/test_optim.py

torch's wheel has the machinery of these tests but not the file; it is in torch's sources
(https://github.com/pytorch/pytorch, BSD-3), at the tag of the torch that is installed. What follows
the path goes to unittest: `-v`, `-k test_errors`.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from types import ModuleType

TESTS = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> None:
    """Run the file that the first argument names; exits as unittest does.

    Raises:
        SystemExit: With the result, or because there is no such file.
    """
    path = _file(arguments)
    os.environ.pop("CI", None)  # there torch writes reports with a package that few have
    sys.path[:0] = [str(path.parent), str(TESTS)]
    if not (path.parent / "optim").is_dir():
        _stand_in_for_its_neighbours()
    _put_into_the_list()
    chosen = arguments[1:] if "-k" in arguments else ["-k", "Lion", *arguments[1:]]
    sys.argv = [str(path), *chosen]
    runpy.run_path(str(path), run_name="__main__")


def _file(arguments: list[str]) -> Path:
    given = arguments[0] if arguments else ""
    path = Path(given).resolve()
    if not path.is_file():
        sys.exit(
            f"Invalid TEST_OPTIM: {given!r}, must be torch's test/test_optim.py; take it from the "
            "sources of torch at the tag that is installed"
        )
    return path


def _put_into_the_list() -> None:
    """The decorators of torch's file read the list while the file is imported."""
    from torch.testing._internal import common_optimizers

    from support.optimizer_info import infos_for_torchs_file

    common_optimizers.optim_db[:] = infos_for_torchs_file()


def _stand_in_for_its_neighbours() -> None:
    """It imports classes from the folder beside it, which test nothing of ours."""
    for name in ("optim", "optim.test_lrscheduler", "optim.test_optim", "optim.test_swa_utils"):
        module = ModuleType(name)
        module.__path__ = []
        module.__getattr__ = _empty_class  # type: ignore[method-assign]
        sys.modules[name] = module


def _empty_class(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})


if __name__ == "__main__":
    main(sys.argv[1:])
