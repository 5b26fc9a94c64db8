"""Single values of a checkpoint by their path (`groups.0.lr`), and statements about them."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from os import PathLike
from typing import Any

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.model import Optimizer, Scheduler
from liontool.checkpoint.plain_values import json_value, plain
from liontool.inspect.opening import opened
from liontool.inspect.summary import summarise
from liontool.states import recognise

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_STATEMENT = re.compile(r"\s*(.*?)\s*(<=|>=|==|!=|<|>)\s*(.*?)\s*")
_MOST_NAMED = 30
_NUMBERS = ("nan", "inf", "-inf")
_CONSTANTS = {"True": True, "False": False, "None": None}


@dataclass(frozen=True)
class Assertion:
    """A statement about a field, and whether it holds.

    Attributes:
        text: As it was given.
        field: Path of the field: of the first that it does not hold for, if there are several.
        value: What the field is.
        operator: "<", "<=", "==", "!=", ">=" or ">".
        bound: What it is compared with.
        holds: Whether it is true, of every field that the path stands for.
    """

    text: str
    field: str
    value: Any
    operator: str
    bound: Any
    holds: bool

    def __str__(self) -> str:
        known = "is" if self.holds else "is not"
        return f"{self.field} is {_shown(self.value)}, which {known} {self.operator} " + _shown(
            self.bound
        )

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON."""
        found: dict[str, Any] = json_value(asdict(self))
        return found


class FieldReader:
    """The fields of a checkpoint, from headers alone.

    A path is made of names and positions with dots between. It can begin with `groups`, of the only
    optimizer, `optimizers.N`, `scheduler.N` or `schedulers.N` (the schedulers of the only
    optimizer, else those that belong to none), `step`, `epoch`, `framework`, or any field of
    `Summary`. `*` stands for every name or position.

    Args:
        path: A file or a folder that a training framework wrote.
        framework: Its name where it should not be found out; then it must fit.
        optimizers: Take these alone, by their paths in the file, wherever they are.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe.
        AmbiguousError: Several checkpoints fit.
        LayoutError: `framework` was given and does not fit.
    """

    @paused_collector()
    def __init__(
        self,
        path: str | PathLike[str],
        framework: str | None = None,
        optimizers: Sequence[str] = (),
    ) -> None:
        self._path, self._framework, self._optimizers = path, framework, optimizers
        self._look = opened(path, framework, optimizers)

    def value(self, field: str) -> Any:
        """What a field holds: of a path with `*`, a list of what each holds.

        Raises:
            ValueError: There is no such field.
        """
        found = self._found(field)
        return [value for _, value in found] if "*" in field.split(".") else found[0][1]

    def check(self, text: str) -> Assertion:
        """Whether a statement such as `groups.0.lr < 1e-3` holds.

        Raises:
            ValueError: It is no statement, there is no such field, or the two cannot be compared.
        """
        statement = _STATEMENT.fullmatch(text)
        if statement is None or not statement[1] or not statement[3]:
            raise ValueError(
                f"--assert takes FIELD OPERATOR VALUE such as 'groups.0.lr < 1e-3', got '{text}'; "
                f"operators: {' '.join(_OPERATORS)}"
            )
        field, name, bound = statement[1], statement[2], _parsed(statement[3])
        results = [
            Assertion(text, path, value, name, bound, _compared(path, value, name, bound))
            for path, value in self._found(field)
        ]
        return next((result for result in results if not result.holds), results[0])

    def _found(self, field: str) -> list[tuple[str, Any]]:
        parts = tuple(field.split("."))
        root = self._quick if parts[0] in self._quick else self._whole
        found = list(_resolved(root, parts, ""))
        if not found:
            raise ValueError(f"{self._path}: {field} stands for nothing")
        return found

    @cached_property
    def _quick(self) -> dict[str, Any]:
        """What needs no summary."""
        checkpoint = self._look.checkpoint
        if checkpoint is None:
            return {}
        optimizers = [_optimizer(optimizer) for optimizer in checkpoint.optimizers]
        loose = [_scheduler(scheduler) for scheduler in checkpoint.loose_schedulers]
        found: dict[str, Any] = {"framework": checkpoint.framework, "optimizers": optimizers}
        if checkpoint.step is not None:
            found["step"] = checkpoint.step
        if len(optimizers) == 1:
            found["groups"] = optimizers[0]["groups"]
            loose = optimizers[0]["schedulers"] or loose
        found["schedulers"] = found["scheduler"] = loose
        return found

    @cached_property
    def _whole(self) -> dict[str, Any]:
        summary = summarise(self._path, self._framework, self._optimizers)
        return {**summary.to_dict(), **self._quick}


def _optimizer(optimizer: Optimizer) -> dict[str, Any]:
    slots = optimizer.slots
    kind = recognise(
        (group.fields for group in optimizer.groups), (slot.state.keys() for slot in slots.values())
    ).kind
    groups = [
        {
            "parameters": len(group.params),
            **{k: v for k, v in plain(group.fields).items() if k != "param_names"},
        }
        for group in optimizer.groups
    ]
    schedulers = [_scheduler(scheduler) for scheduler in optimizer.schedulers]
    return {"label": optimizer.label, "kind": kind, "groups": groups, "schedulers": schedulers}


def _scheduler(scheduler: Scheduler) -> dict[str, Any]:
    children = [_scheduler(child) for child in scheduler.children]
    return {**plain(scheduler.fields), **({"_schedulers": children} if children else {})}


def _resolved(value: Any, parts: Sequence[str], path: str) -> Iterator[tuple[str, Any]]:
    """Every value that the rest of a path leads to, with its own path."""
    if not parts:
        yield path, value
        return
    items = _items(value)
    if parts[0] == "*":
        for key, item in items.items():
            yield from _resolved(item, parts[1:], _joined(path, key))
        return
    for count in range(len(parts), 0, -1):  # a name may have dots itself
        key = ".".join(parts[:count])
        if key in items:
            yield from _resolved(items[key], parts[count:], _joined(path, key))
            return
    raise ValueError(_unknown(parts[0], path, items))


def _items(value: Any) -> dict[str, Any]:
    """The parts of a value by the words that lead to them."""
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return {str(index): item for index, item in enumerate(value)}
    return {}


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _unknown(key: str, path: str, items: Mapping[str, Any]) -> str:
    where = path or "the checkpoint"
    if not items:
        return f"no field '{_joined(path, key)}': {where} has no fields in it"
    names = list(items)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"no field '{_joined(path, key)}'; {where} has: {', '.join(names[:_MOST_NAMED])}{more}"


def _parsed(text: str) -> Any:
    """A bound: JSON, a number or a constant as Python spells it, or else a word."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    for read in (json.loads, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text.strip("'\"")


def _compared(path: str, value: Any, name: str, bound: Any) -> bool:
    value, bound = json_value(value), json_value(bound)
    if isinstance(value, bool | None) and isinstance(bound, str) and bound not in _NUMBERS:
        raise ValueError(f"{path} is {_shown(value)}, no word: compare it with true, false or null")
    if name in ("==", "!="):
        return _OPERATORS[name](_number(value), _number(bound))
    pair = _number(value), _number(bound)
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in pair)
    if not numbers and not all(isinstance(x, str) for x in pair):
        raise ValueError(
            f"{path} is {_shown(value)}, which has no order beside {_shown(bound)}: use == or !="
        )
    return _OPERATORS[name](*pair)


def _number(value: Any) -> Any:
    """NaN and infinities, which JSON spells as words, as numbers again."""
    return float(value) if value in _NUMBERS else value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(json_value(value))
