"""What in the values deserves a second look, in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from liontool.inspect.listing import OTHER
from liontool.inspect.statistics import Statistics, TensorStatistics
from liontool.wording import count

_MOST = 12
_SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq")


def alarms(found: Statistics) -> list[str]:
    """Values that are not finite, and second moments below zero."""
    return [
        *_sentences(_own(found), lambda one: one.is_bad, _special),
        *_sentences(_own(found), _is_negative, lambda _: "negative, which no square can be"),
    ]


def remarks(found: Statistics) -> list[str]:
    """Moments that are all zero: parameters that never had a gradient."""
    zero = [one for one in _own(found) if one.role != OTHER and _is_zero(one)]
    by_kind: dict[str, int] = {}
    for one in zero:
        by_kind[one.kind] = by_kind.get(one.kind, 0) + 1
    return [f"{kind}: {count(number, 'tensor')} all zero" for kind, number in by_kind.items()]


def _own(found: Statistics) -> list[TensorStatistics]:
    return [one for one in found.tensors if one.shares is None and one.kind != "step"]


def _sentences(
    tensors: Sequence[TensorStatistics],
    applies: Callable[[TensorStatistics], bool],
    told: Callable[[TensorStatistics], str],
) -> Iterator[str]:
    bad = [one for one in tensors if applies(one)]
    yield from (f"{one.title}: {told(one)}" for one in bad[:_MOST])
    if len(bad) > _MOST:
        yield f"and {count(len(bad) - _MOST, 'more tensor')}: {told(bad[_MOST])} and others"


def _special(one: TensorStatistics) -> str:
    values = one.values
    return f"{values.nan:,} NaN and {values.infinite:,} infinite among {values.count:,} values"


def _is_negative(one: TensorStatistics) -> bool:
    return one.kind in _SECOND_MOMENTS and one.values.min is not None and one.values.min < 0


def _is_zero(one: TensorStatistics) -> bool:
    return bool(one.values.count) and one.values.zeros == one.values.count
