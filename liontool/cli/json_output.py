"""One JSON document on stdout, strict: any reader can take it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence, Set
from typing import Any


def write(document: Mapping[str, Any]) -> None:
    """Print `document` as JSON; everything but ASCII is escaped, so no terminal can be fooled."""
    sys.stdout.write(json.dumps(strict(document), indent=2, allow_nan=False) + "\n")


def strict(value: Any) -> Any:
    """`value` in the types of JSON.

    NaN and infinities, which JSON lacks, become "nan", "inf" and "-inf"; other objects their text.
    """
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (str, bytes)):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
