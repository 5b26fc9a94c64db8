"""Names of tensors and parameters that are not what they seem, wherever the file keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool.inspect.findings import Finding
from liontool.inspect.listing import Item
from liontool.inspect.opening import Opened
from liontool.inspect.places import odd_name, short


def check_names(
    opened: Opened, items: Sequence[Item], known: Sequence[Finding]
) -> Iterator[Finding]:
    """Look at the names in pickles and groups; those in headers are looked at there.

    Args:
        opened: The checkpoint.
        items: Its tensors.
        known: What was found already.
    """
    said = [finding.where for finding in known if finding.id == "odd-name"]
    for name, where in dict(_names(opened, items)).items():
        if not any(place.endswith(short(name)) for place in said if name):
            yield from odd_name(short(where), name)


def _names(opened: Opened, items: Sequence[Item]) -> Iterator[tuple[str, str]]:
    """Every name once, with where it stands."""
    for item in items:
        yield item.parameter if item.parameter is not None else item.name, item.label
    for optimizer in opened.checkpoint.optimizers if opened.checkpoint else ():
        for index, group in enumerate(optimizer.groups):
            for name in group.names:
                yield name, f"{optimizer.label}: group {index}: {name}"
