"""What the tests of the optimizers run over."""

from __future__ import annotations

from typing import Any

import pytest

from support.lions import FEWER_CASES, KINDS, configurations


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    """Either optimizer."""
    return request.param


@pytest.fixture(params=FEWER_CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    """Either optimizer with each configuration of it."""
    kind, name = request.param
    return KINDS[kind], configurations(KINDS[kind])[name]
