"""Commands that start fast."""

from __future__ import annotations

from functools import partial
from typing import Any

from typer.core import TyperCommand, TyperGroup


class PlainCommand(TyperCommand):
    """A command all of whose parameters are flags or words, taken as they come.

    Typer would have pydantic check that words are strings, and importing that takes longer than
    inspecting a checkpoint. What words mean is checked by `options` and by the library.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(parameter) for parameter in super().get_params(ctx)]


class PlainGroup(TyperGroup):
    """The same for the program itself."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_plain(parameter) for parameter in super().get_params(ctx)]


def _plain(parameter: Any) -> Any:
    parameter.process_value = partial(_as_it_comes, parameter)
    return parameter


def _as_it_comes(parameter: Any, context: Any, value: Any) -> Any:
    if (parameter.required and value is None) or (parameter.callback and value):
        return type(parameter).process_value(parameter, context, value)
    return value
