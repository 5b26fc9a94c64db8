"""One JSON document on stdout, strict: any reader can take it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from liontool.checkpoint.plain_values import json_value


def write(document: Mapping[str, Any]) -> None:
    """Print `document` as JSON; everything but ASCII is escaped, so no terminal can be fooled."""
    sys.stdout.write(json.dumps(json_value(document), indent=2, allow_nan=False) + "\n")
