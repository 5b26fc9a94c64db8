"""Pieces of code to paste, shared by the frameworks: constructing the Lion, loading its state."""

from __future__ import annotations

from pathlib import Path

from liontool.checkpoint.frameworks.framework import Target
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Checkpoint, Optimizer, ParamGroup


def hyperparameters(optimizer: Optimizer) -> dict[str, str]:
    """Arguments of the constructor as source text; on load the file's values win."""
    fields = optimizer.groups[0].fields
    numbers = {
        "lr": _number_text(optimizer.groups[0], "initial_lr")
        or _number_text(optimizer.groups[0], "lr"),
        "betas": f"({', '.join(repr(beta) for beta in fields['betas'])})"
        if "betas" in fields
        else "",
        "weight_decay": _number_text(optimizer.groups[0], "weight_decay"),
    }
    return {name: text for name, text in numbers.items() if text}


def construct(optimizer: Optimizer, target: Target, params: str, name: str = "optimizer") -> str:
    """One statement: `optimizer = Lion(model.parameters(), lr=..., ...)`."""
    arguments = ", ".join(f"{key}={text}" for key, text in hyperparameters(optimizer).items())
    count = len(optimizer.groups)
    where = params if count == 1 else "param_groups"
    note = "" if count == 1 else f"  # the same {count} groups in the same order as before"
    return f"{name} = {target.name}({where}, {arguments}){note}"


def state_file(checkpoint: Checkpoint, target: Target, output: Path) -> str:
    """How to load a file that holds nothing but one optimizer's state."""
    lines = [
        "import liontool",
        target.import_line,
        "",
        construct(checkpoint.optimizers[0], target, "model.parameters()"),
        f"liontool.load_optimizer({str(output)!r}, optimizer, model)",
        "# the weights are not in this file: load them as before",
    ]
    return "\n".join([*lines, *constant_lr_note(target, "use no scheduler")])


def constant_lr_note(target: Target, setting: str) -> list[str]:
    """The closing line for an optimizer that wants no schedule."""
    return (
        [f"# {target.name} wants a constant learning rate: {setting}"] if target.constant_lr else []
    )


def _number_text(group: ParamGroup, name: str) -> str:
    value = number(group.fields.get(name))
    return "" if value is None else repr(value)
