"""Pieces of code to paste, shared by the frameworks: constructing the Lion, loading its state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from liontool.checkpoint.document import Key, Value
from liontool.checkpoint.frameworks.framework import Target
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Checkpoint, Optimizer


def hyperparameters(optimizer: Optimizer, target: Target, index: int = 0) -> dict[str, str]:
    """Arguments of the constructor as source text; on load the file's values win."""
    name, _, value = target.argument.partition("=")
    further = {"lr": _text(target.highest_lrs[index]), name: value} if name else {}
    return {**_options(optimizer), **further}


def _options(optimizer: Optimizer) -> dict[str, str]:
    fields = optimizer.groups[0].fields
    lr = "initial_lr" if "initial_lr" in fields else "lr"
    pair = fields.get("betas")
    betas = [_text(beta) for beta in pair] if isinstance(pair, Sequence) else []
    texts = {
        "lr": _text(fields.get(lr)),
        "betas": f"({', '.join(betas)})" if all(betas) and betas else "",
        "weight_decay": _text(fields.get("weight_decay")),
    }
    return {name: text for name, text in texts.items() if text}


def construct(optimizers: Sequence[Optimizer], target: Target, params: str, index: int = 0) -> str:
    """One statement: `optimizer = Lion(model.parameters(), lr=..., ...)`.

    Args:
        optimizers: All of the script.
        target: The class.
        params: What the only optimizer is given, if it has one group.
        index: Which of the optimizers to construct.
    """
    options = hyperparameters(optimizers[index], target, index)
    arguments = ", ".join(f"{key}={text}" for key, text in options.items())
    count = len(optimizers[index].groups)
    where, note = params, ""
    if count > 1:
        where = f"param_groups{suffix(index)}"
        note = f"  # the same {count} groups in the same order as before"
    elif len(optimizers) > 1:
        where, note = f"params{suffix(index)}", "  # the same parameters as before"
    return f"optimizer{suffix(index)} = {target.name}({where}, {arguments}){note}"


def suffix(index: int) -> str:
    """What tells the names of several optimizers apart: none, "_2", "_3"."""
    return f"_{index + 1}" if index else ""


def state_file(checkpoint: Checkpoint, target: Target, output: Path) -> str:
    """How to load a file that holds nothing but one optimizer's state."""
    lines = [
        "import liontool",
        target.import_line,
        "",
        construct(checkpoint.optimizers[:1], target, "model.parameters()"),
        f"liontool.load_optimizer({str(output)!r}, optimizer, model)",
        "# the weights are not in this file: load them as before",
    ]
    if checkpoint.optimizers[0].schedulers and not target.constant_lr:
        lines += _SCHEDULER_NOTE
    return "\n".join([*lines, *constant_lr_note(target, "use no scheduler")])


_SCHEDULER_NOTE = (
    "# nor is the scheduler loaded: build it anew with every learning rate divided by the ratio,",
    "# or take it from the whole converted checkpoint",
)


def trust_note(objects: Sequence[str]) -> list[str]:
    """What a call that has to say weights_only=False may make, for the line above it."""
    if not objects:
        return []
    names = ", ".join(ascii(name)[1:-1] for name in objects)  # a line break would end the comment
    return [f"# {names} in the file: weights_only=False, for files that you trust"]


def constant_lr_note(target: Target, setting: str) -> list[str]:
    """The closing line for an optimizer that wants no schedule."""
    if not target.constant_lr:
        return []
    return [f"# {target.name} wants a constant learning rate: {setting}"]


def subscripts(path: tuple[Key, ...], objects: Collection[str]) -> str:
    """A path as Python spells it: ["optimizers"][0]; an attribute follows the name of its class."""
    text, inside = "", False
    for key in path:
        if key in objects:
            inside = True
            continue
        text += _attribute(key) if inside and isinstance(key, str) else f"[{key!r}]"
        inside = False
    return text


def _attribute(name: str) -> str:
    return f".{name}" if name.isidentifier() else f".__dict__[{name!r}]"


def _text(value: Value) -> str:
    """Every digit: a run says which hyperparameters are not those that it is constructed with."""
    exact = number(value)
    if exact is None:
        return ""
    short = f"{exact:.6g}"
    return short if float(short) == exact else repr(float(exact))
