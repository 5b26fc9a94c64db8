"""Names of one model on two sides: what wrappers put into them is overlooked.

`torch.compile` names what it wraps `_orig_mod`, `DataParallel` and its like `module`. They stand in
front of every name where the whole model is wrapped, and inside where a part of it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from liontool.errors import ResumeError

_WRAPPERS = ("_orig_mod", "module")
_SHOWN = 5


def bare(name: str) -> str:
    """A name without what wrappers put into it."""
    return _without(name, _WRAPPERS)


def _uncompiled(name: str) -> str:
    return _without(name, _WRAPPERS[:1])


def _without(name: str, words: Collection[str]) -> str:
    return ".".join(part for part in name.split(".") if part not in words)


# From the closest look to the loosest: a model may have a `module` of its own.
_LOOKS: tuple[Callable[[str], str], ...] = (str, _uncompiled, bare)


def matched(live: Collection[str], saved: Collection[str], where: str) -> dict[str, str]:
    """The saved name of each live one.

    Args:
        live: Names of the model, in order.
        saved: Names in the checkpoint.
        where: What has these names, for messages: "model".

    Raises:
        ResumeError: A name is missing, too many, or the same as another without its wrappers.
    """
    for look in _LOOKS:
        mine, theirs = {look(name): name for name in live}, {look(name): name for name in saved}
        is_clear = len(mine) == len(live) and len(theirs) == len(saved)
        if is_clear and mine.keys() == theirs.keys():
            return {name: theirs[look(name)] for name in live}
    _refuse_doubtful(live, f"{where} of this run")
    _refuse_doubtful(saved, f"{where} in the checkpoint")
    raise ResumeError(
        f"{where}: {against(live, saved)}; build it as it was when it was saved, or begin a run "
        "in another folder"
    )


def _refuse_doubtful(names: Iterable[str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(bare(name), name)
        if other != name:
            raise ResumeError(
                f"{where}: '{other}' and '{name}' are one name without 'module.' and "
                "'_orig_mod.', so which is whose cannot be told; wrap and compile the model as "
                "it was when it was saved"
            )


def against(live: Iterable[str], saved: Iterable[str]) -> str:
    """Which names only one side has, in words; "" where both have the same."""
    mine, theirs = {bare(name): name for name in live}, {bare(name): name for name in saved}
    missing = [mine[name] for name in mine if name not in theirs]
    extra = [theirs[name] for name in theirs if name not in mine]
    found = [f"lacks {quoted(missing)}"] if missing else []
    found += [f"has in addition {quoted(extra)}"] if extra else []
    return f"against this run's, the checkpoint's {' and '.join(found)}" if found else ""


def quoted(names: Sequence[str]) -> str:
    """The first names of many."""
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
