"""The runner of torch's own test_optim.py, tried on a file in its style."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).with_name("run_torch_suite.py")

# The imports and decorators of torch's file, and what only torch's own optimizers could pass.
FILE = """
from optim.test_optim import TestDifferentiableOptimizer
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_optimizers import optim_db, optims
from torch.testing._internal.common_utils import TestCase, run_tests

class TestOptimRenewed(TestCase):
    @optims(optim_db)
    def test_fails_for_lion_sf(self, device, dtype, optim_info):
        self.assertEqual(optim_info.optim_cls.__name__, "Lion")

    @optims(optim_db)
    def test_complex_2d(self, device, dtype, optim_info):
        self.assertEqual(optim_info.name, "Lion")

    def test_torchs_own(self, device):
        self.fail("not one of ours")

instantiate_device_type_tests(TestOptimRenewed, globals(), only_for="cpu")

if __name__ == "__main__":
    run_tests()
"""


def test_runs_on_ours_and_on_nothing_else(tmp_path: Path) -> None:
    """Both Lions stand in torch's list; unittest's summary and exit code come out."""
    file = tmp_path / "test_optim.py"
    file.write_text(FILE)
    result = subprocess.run(
        [sys.executable, RUNNER, file, "-v"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CI": "true"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 1, result.stderr
    for test, outcome in (
        ("test_fails_for_lion_sf_Lion_cpu_float32", "ok"),
        ("test_fails_for_lion_sf_LionSF_cpu_float32", "FAIL"),
        ("test_complex_2d_Lion_cpu_float32", "ok"),
        ("test_complex_2d_LionSF_cpu_float32", "skipped"),
    ):
        assert re.search(rf"{test} .*\.\.\. {outcome}", result.stderr)
    assert "Ran 4 tests" in result.stderr
    assert "FAILED (failures=1, skipped=1)" in result.stderr


@pytest.mark.parametrize("given", [[], [""], ["no/such/file.py"], ["."]], ids=str)
def test_no_such_file(given: list[str]) -> None:
    """Without the file one reads what it is and where it is to be had."""
    main = runpy.run_path(str(RUNNER))["main"]
    shown = given[0] if given else ""
    with pytest.raises(SystemExit, match=f"Invalid TEST_OPTIM: '{shown}', must be torch's test/"):
        main(given)
