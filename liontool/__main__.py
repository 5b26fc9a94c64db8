"""`python -m liontool` is the command `liontool`."""

from __future__ import annotations

import sys

from liontool.cli import main

if __name__ == "__main__":
    sys.exit(main())
