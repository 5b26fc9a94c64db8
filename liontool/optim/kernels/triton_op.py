"""The step of a plan as one operator over lists of tensors, opaque to torch.compile.

Inductor would fuse the arithmetic of a step that it sees into multiply-adds, and round differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liontool.optim.kernels.triton_layout import Entry, Hypers
from liontool.optim.kernels.triton_owner import Owner, plans_of

_NUMBERS = 6  # of a group, as the operator takes them: lr, weight decay, betas, horizon, pow
_FLAGS = 2  # maximize, cautious
_KEPT = 4  # plans of an owner, beside those that a captured graph needs


def step(
    owner: Owner,
    entries: Sequence[Entry],
    grads: Sequence[Tensor],
    hypers: Sequence[Hypers],
    *,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    global_clipnorm: float | None = None,
) -> None:
    """`Plan.step` on tensors of one device, for code that torch.compile traces.

    Args:
        owner: Keeps the plan for the next step.
        entries: As for `Plan`.
        grads: One for each entry.
        hypers: One for each group; a number that is no tensor is compiled in.
        grad_scale: As for `Plan.step`, and so are the others.
        found_inf: See there.
        global_clipnorm: See there.
    """
    lrs = [hyper.lr for hyper in hypers]
    steps = [hyper.step for hyper in hypers]
    triton_step(
        [entry.param for entry in entries],
        list(grads),
        [entry.exp_avg for entry in entries],
        [entry.residual for entry in entries if entry.residual is not None],
        [place for entry in entries for place in _places(entry)],
        [lr for lr in lrs if isinstance(lr, Tensor)],
        [isinstance(lr, Tensor) for lr in lrs],
        [step for step in steps if isinstance(step, Tensor)],
        [-1 if isinstance(step, Tensor) else step for step in steps],
        [number for hyper in hypers for number in _group_numbers(hyper)],
        " ".join(f"{hyper.agreement or ''}:{hyper.rounding}" for hyper in hypers),
        [flag for hyper in hypers for flag in (hyper.maximize, hyper.cautious)],
        [hyper.seed for hyper in hypers],
        grad_scale,
        found_inf,
        global_clipnorm,
        owner.number,
    )


# Graphs that a compiler captures outlive plans; torch 2.9 is the first to leave them to the user.
_NO_GRAPHS = getattr(torch.Tag, "cudagraph_unsafe", None)
_TAGS: dict[str, Any] = {} if _NO_GRAPHS is None else {"tags": _NO_GRAPHS}

# Written out, since older versions of torch do not read all of these types from annotations.
_SCHEMA = (
    "(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, Tensor(c!)[] residuals, "
    "int[] places, Tensor[] lrs, bool[] lr_is_tensor, Tensor[] steps, int[] known_steps, "
    "float[] numbers, str words, bool[] flags, int[] seeds, Tensor? grad_scale, "
    "Tensor? found_inf, float? global_clipnorm, int owner) -> ()"
)


@torch.library.custom_op(
    "liontool::triton_step",
    mutates_args=("params", "exp_avgs", "residuals"),
    schema=_SCHEMA,
    **_TAGS,
)
def triton_step(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    residuals: list[Tensor],
    places: list[int],
    lrs: list[Tensor],
    lr_is_tensor: list[bool],
    steps: list[Tensor],
    known_steps: list[int],
    numbers: list[float],
    words: str,  # agreement:rounding of each group; an operator takes no list of words
    flags: list[bool],
    seeds: list[int],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    global_clipnorm: float | None,
    owner: int,
) -> None:
    """The operator; see `step` for what its lists are made of."""
    entries = _entries(params, exp_avgs, residuals, places)
    lr_tensors, step_tensors = iter(lrs), iter(steps)
    hypers = []
    for group, word in enumerate(words.split()):
        lr, weight_decay, beta1, beta2, horizon, pow = numbers[group * _NUMBERS :][:_NUMBERS]
        agreement, rounding = word.split(":")
        maximize, cautious = flags[group * _FLAGS :][:_FLAGS]
        known = known_steps[group]
        hypers.append(
            Hypers(
                next(lr_tensors) if lr_is_tensor[group] else lr,
                weight_decay,
                (beta1, beta2),
                None if horizon < 0 else horizon,
                next(step_tensors) if known < 0 else known,
                maximize,
                cautious,
                agreement or None,
                pow,
                rounding,
                seeds[group],
            )
        )
    plan = _plan(owner, entries)
    plan.step(
        grads,
        hypers,
        grad_scale=grad_scale,
        found_inf=found_inf,
        global_clipnorm=global_clipnorm,
    )
    # Some compilers step on copies of the weights, which should not live on in a plan.
    plan.adopt([])


@triton_step.register_fake
def _(*arguments: Any) -> None:
    """Nothing is returned, whatever the shapes."""


def _plan(owner: int, entries: list[Entry]) -> Any:
    """The plan for these tensors, which are known by where they are."""
    from liontool.optim.kernels.triton_plan import Plan

    key = tuple(_known_by(entry) for entry in entries)
    plans = plans_of(owner)
    if key not in plans:
        idle = [old for old, plan in plans.items() if not plan.captured]
        if len(idle) >= _KEPT:
            del plans[idle[0]]
        plans[key] = Plan(entries)
    plans[key].adopt(entries)
    return plans[key]


def _known_by(entry: Entry) -> tuple[Any, ...]:
    tensors = [(each.data_ptr(), each.dtype, each.stride()) for each in entry.tensors()]
    return (*tensors, entry.param.shape, *_places(entry))


def _places(entry: Entry) -> list[int]:
    """What of an entry is no tensor."""
    whole = -1 if entry.whole is None else entry.whole
    return [entry.group, entry.ordinal, entry.offset, whole, entry.residual is not None]


def _entries(
    params: list[Tensor], exp_avgs: list[Tensor], residuals: list[Tensor], places: list[int]
) -> list[Entry]:
    rest = iter(residuals)
    rows = [places[start : start + 5] for start in range(0, len(places), 5)]
    return [
        Entry(
            param,
            exp_avg,
            next(rest) if has_residual else None,
            group,
            ordinal,
            offset,
            None if whole < 0 else whole,
        )
        for param, exp_avg, (group, ordinal, offset, whole, has_residual) in zip(
            params, exp_avgs, rows, strict=True
        )
    ]


def _group_numbers(hyper: Hypers) -> list[float]:
    lr = 0.0 if isinstance(hyper.lr, Tensor) else hyper.lr
    horizon = -1.0 if hyper.horizon is None else hyper.horizon
    return [lr, hyper.weight_decay, *hyper.betas, horizon, hyper.pow]
