"""How findings say where something is, and names that are not what they seem."""

from __future__ import annotations

from collections.abc import Iterator

from liontool.inspect.findings import Finding

_LONGEST = 160


def at(file: str, part: str = "") -> str:
    """A place: the file, where there are several, and what is in it."""
    return ": ".join(word for word in (short(file), short(part)) if word)


def short(name: str) -> str:
    """A name, cut where it is longer than anyone wants to read."""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


def without_path(error: Exception | str, path: object) -> str:
    """The message of an error less the path that it begins with: the page says it already."""
    text = str(error).removeprefix(f"{path}: ")
    return text.removeprefix(f"{path}/").removeprefix(f"{path}")


def odd_name(where: str, name: str) -> Iterator[Finding]:
    """A finding for an empty name, or one with control, escape or bidirectional characters."""
    if not name:
        yield Finding("odd-name", where, "its name is empty; rename it")
    if not name.isprintable():
        text = "its name holds characters that cannot be seen or that turn text; rename it"
        yield Finding("odd-name", where, text)


def leads_out(name: str) -> bool:
    """Whether a name, taken for a path, is absolute or climbs out of its folder."""
    return name.startswith("/") or ".." in name.split("/")
