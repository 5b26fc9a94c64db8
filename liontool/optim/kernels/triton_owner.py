"""Who keeps the plans of compiled steps; imports no Triton and registers no operator."""

from __future__ import annotations

import itertools
from typing import Any
from weakref import WeakValueDictionary


class Owner:
    """Keeps the plans that the operator makes, for as long as it lives itself.

    Attributes:
        number: By which the operator finds it.
    """

    def __init__(self) -> None:
        """Begin without plans."""
        self.number = next(_numbers)
        self.plans: dict[Any, Any] = {}
        _owners[self.number] = self


def plans_of(number: int) -> dict[Any, Any]:
    """The plans of an owner; what is put there is kept if the owner still lives."""
    owner = _owners.get(number)
    return {} if owner is None else owner.plans


_numbers = itertools.count()
_owners: WeakValueDictionary[int, Owner] = WeakValueDictionary()
