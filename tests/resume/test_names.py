"""Names are the same ones whatever a model is wrapped in."""

from __future__ import annotations

import pytest

from liontool.errors import ResumeError
from liontool.resume.names import against, bare, matched, quoted


@pytest.mark.parametrize(
    "name", ["a.b", "module.a.b", "module.module.a.b", "_orig_mod.module.a.b", "a._orig_mod.b"]
)
def test_wrappers_are_taken_off(name: str) -> None:
    """Wherever they stand."""
    assert bare(name) == "a.b"


def test_a_part_of_a_name_is_no_wrapper() -> None:
    """Only whole words are."""
    assert bare("submodule.module_list.0") == "submodule.module_list.0"


def test_names_that_fit_exactly_come_first() -> None:
    """A model may have a part that is called `module`."""
    names = ["module.weight", "weight"]
    assert matched(names, names[::-1], "model") == {name: name for name in names}


def test_a_compiled_model_with_a_part_called_module() -> None:
    """What compiling put into names is taken off before what wrapping did."""
    names = ["module.weight", "weight"]
    compiled = [f"_orig_mod.{name}" for name in names]
    assert matched(names, compiled, "model") == dict(zip(names, compiled, strict=True))


@pytest.mark.parametrize("swap", [False, True])
def test_doubtful_names(swap: bool) -> None:
    """Two names that wrappers alone tell apart cannot be given to one."""
    sides = [["module.weight", "weight"], ["other.module.weight"]]
    live, saved = sides[::-1] if swap else sides
    where = "in the checkpoint" if swap else "of this run"
    match = f"^model {where}: 'module.weight' and 'weight' are one name without 'module.' and"
    with pytest.raises(ResumeError, match=match):
        matched(live, saved, "model")


def test_missing_and_additional_names() -> None:
    """Both are named, and what to do."""
    match = (
        "^model: against this run's, the checkpoint's lacks 'a' and has in addition 'module.c'; "
        "build it as it was when it was saved, or begin a run in another folder$"
    )
    with pytest.raises(ResumeError, match=match):
        matched(["a", "b"], ["module.b", "module.c"], "model")


def test_the_same_names_leave_nothing_to_say() -> None:
    """In any order."""
    assert against(["a", "module.b"], ["b", "a"]) == ""


def test_many_names_are_cut_short() -> None:
    """A message stays one line."""
    assert quoted(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
