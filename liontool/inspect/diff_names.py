"""Which names of two models mean the same, in spite of wrappers and of what the user renamed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

_WRAPPERS = frozenset({"module", "_orig_mod", "model", "_forward_module"})
_INSIDE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PROBES = 8
_CANDIDATES = 16


class Renames:
    """What the user says: names of A and what they are called in B.

    Args:
        words: "old=new" each: a whole name or its first parts (`body=net`), a beginning that ends
            with a dot (`model.=`), or patterns with as many `*` on both sides.

    Raises:
        ValueError: A word is none of these.
    """

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._rules = [(word, *_rule(word)) for word in words]
        self._used: set[str] = set()

    def __call__(self, name: str) -> str | None:
        """What `name` is called in B by the first word that fits, None where none does."""
        for word, pattern, form in self._rules:
            found = pattern.fullmatch(name)
            if found is not None:
                self._used.add(word)
                return form.format(*found.groups())
        return None

    def check_used(self) -> None:
        """Raise `ValueError` for a word that fitted no name."""
        for word, _, _ in self._rules:
            if word not in self._used:
                raise ValueError(f"--map {word}: nothing in A is called {word.partition('=')[0]!r}")


def _rule(word: str) -> tuple[re.Pattern[str], str]:
    """A pattern for names of A, and the form of those of B."""
    old, equals, new = word.partition("=")
    if not equals or old.count("*") != new.count("*") or not (old or new):
        raise ValueError(
            f"--map {word}: must be old=new with as many * on both sides, such as "
            "body=net or 'layers.*.w=blocks.*.w'"
        )
    form = new.replace("{", "{{").replace("}", "}}").replace("*", "{}")
    if "*" in old:
        return re.compile("(.*)".join(map(re.escape, old.split("*"))), re.DOTALL), form
    if old.endswith(".") or not old or not new:
        return re.compile(re.escape(old) + "(.*)", re.DOTALL), form + "{}"
    return re.compile(re.escape(old) + r"((?:\..*)?)", re.DOTALL), form + "{}"


@dataclass(frozen=True)
class PairedNames:
    """Names that belong together.

    Attributes:
        pairs: The name in B of each name of A that has one, in the order of A.
        notes: What was left out of names to match them.
    """

    pairs: Mapping[str, str]
    notes: tuple[str, ...] = ()


def paired_names(a: Sequence[str], b: Sequence[str], renames: Renames) -> PairedNames:
    """Match names: as the user says, then exactly, then without what wrappers put before them."""
    targets = {name: renames(name) for name in a}
    in_b = set(b)
    said = {old: new for old, new in targets.items() if new is not None}
    pairs = _unique({old: new for old, new in said.items() if new in in_b})
    taken = set(pairs.values())
    pairs |= {n: n for n in a if n not in said and n in in_b and n not in taken}
    taken |= set(pairs.values())
    rest_a = [name for name in a if name not in said and name not in pairs]
    more, notes = _unwrapped(rest_a, [name for name in b if name not in taken])
    pairs |= more
    return PairedNames({name: pairs[name] for name in a if name in pairs}, notes)


def _unwrapped(a: Sequence[str], b: Sequence[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Pairs of names that differ in a prefix or in the words of wrappers."""
    if not a or not b:
        return {}, ()
    in_a, in_b = set(a), set(b)
    on_a, on_b = _prefix(in_a, b), _prefix(in_b, a)
    with_a = {on_a + name: name for name in b if on_a and on_a + name in in_a}
    with_b = {name: on_b + name for name in a if on_b and on_b + name in in_b}
    bare = _bare_pairs(a, b)
    best = max((with_a, with_b, bare), key=len)
    if not best:
        return {}, ()
    if best is bare:
        return bare, ("names were matched without the words of wrappers, such as module",)
    prefix, side, other = (on_a, "A", "B") if best is with_a else (on_b, "B", "A")
    return best, (f"names of {side} begin with '{prefix}', those of {other} do not",)


def _prefix(longer: Collection[str], shorter: Sequence[str]) -> str:
    """What stands before most of `shorter` in `longer`; "" where no one prefix does."""
    probes = shorter[:: max(len(shorter) // _PROBES, 1)]
    votes: Counter[str] = Counter()
    for probe in probes:
        end = f".{probe}"
        votes.update(name[: -len(probe)] for name in longer if name.endswith(end))
    counted = sorted(
        (sum(prefix + name in longer for name in shorter), prefix)
        for prefix, _ in votes.most_common(_CANDIDATES)
    )
    if not counted or 2 * counted[-1][0] < len(shorter):
        return ""
    if len(counted) > 1 and counted[-2][0] == counted[-1][0]:
        return ""
    return counted[-1][1]


def _bare_pairs(a: Sequence[str], b: Sequence[str]) -> dict[str, str]:
    """Names that are the same once the words of wrappers are gone from both."""
    bare_a, bare_b = _bare(a), _bare(b)
    return {bare_a[name]: bare_b[name] for name in bare_a if name in bare_b}


def _bare(names: Sequence[str]) -> dict[str, str]:
    """Names by what is left of them; nothing where two become one."""
    split = [[part for part in name.split(".") if part not in _INSIDE] for name in names]
    while all(len(parts) > 1 for parts in split) and len({parts[0] for parts in split}) == 1:
        if split[0][0] not in _WRAPPERS:
            break
        split = [parts[1:] for parts in split]
    found = {".".join(parts): name for parts, name in zip(split, names, strict=True)}
    return found if len(found) == len(names) else {}


def _unique(pairs: dict[str, str]) -> dict[str, str]:
    """The pairs with no name of B twice; of several the first."""
    found = {new: old for old, new in reversed(pairs.items())}
    return {old: new for new, old in reversed(found.items())}
