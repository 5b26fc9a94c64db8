"""How single fields and statements about them are shown: bare values, and one line if untrue."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from liontool.checkpoint.plain_values import json_value
from liontool.escape import safe
from liontool.inspect.fields import Assertion, FieldReader

SCHEMA = 1


def show(
    reader: FieldReader, fields: Sequence[str], statements: Sequence[str], *, as_json: bool
) -> bool:
    """Print the fields, one a line, and what does not hold on stderr; return whether all holds."""
    values = {field: reader.value(field) for field in fields}
    checked = [reader.check(text) for text in statements]
    if as_json:
        from liontool.cli import json_output

        found = [assertion.to_dict() for assertion in checked]
        json_output.write({"schema": SCHEMA, "fields": values, "assertions": found})
    else:
        for value in values.values():
            sys.stdout.write(f"{_bare(value)}\n")
    for assertion in checked:
        _complain(assertion)
    return all(assertion.holds for assertion in checked)


def _bare(value: object) -> str:
    found = json_value(value)
    return safe(found) if isinstance(found, str) else json.dumps(found)


def _complain(assertion: Assertion) -> None:
    if not assertion.holds:
        print(f"liontool: {safe(assertion)}", file=sys.stderr)
