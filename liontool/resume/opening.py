"""Which checkpoint a run goes on from, and what it says of the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.choosing import Choice, choose, nothing_good
from liontool.checkpoint.run_folder.facts import read_facts
from liontool.checkpoint.run_folder.layout import step_of, tree_name
from liontool.errors import FormatError, LiontoolError, PublishError
from liontool.resume.census import Census
from liontool.resume.flushing import flush_checkpoint, flush_run
from liontool.resume.leftovers import delete_leftovers
from liontool.resume.passes import Passes
from liontool.resume.quarantine import quarantine
from liontool.resume.reading import read_state
from liontool.resume.returning import bring_back

_GENERATORS = {"python": tuple, "numpy": dict, "loader": dict}


def good_choice(folder: Path, say: Callable[[str], None]) -> Choice:
    """The newest good checkpoint, durable, or none where nothing was ever saved.

    Raises:
        ResumeError: There are checkpoints, and none of them is good; or it cannot be flushed.
        PublishError: A checkpoint that lacks its name cannot be renamed.
        ReadError: The system refused to read something.
    """
    choice = choose(folder)
    if returned := bring_back(choice):
        for path, target in returned.items():
            say(f"{path.name} was left by what was killed; it is {target.name} again")
        choice = _chosen_anew(choice)
    if choice.chosen is None and not choice.fresh:
        raise nothing_good(choice)
    if choice.chosen is not None:
        # Whoever wrote it may have been killed before its flush, and a run now says it is saved.
        flush_checkpoint(choice.chosen)
    flush_run(folder, say)
    return choice


def _chosen_anew(before: Choice) -> Choice:
    """What was refused before is damaged, also where nobody looks so far now."""
    found = choose(before.run)
    known = {one.path for one in found.refused}
    rest = [one for one in before.refused if one.path not in known]
    return replace(found, refused=(*found.refused, *rest))


def resume(
    checkpoint: Path,
    census: Census,
    passes: Passes,
    allow: Collection[str],
    overrides: Mapping[str, object],
    say: Callable[[str], None],
) -> tuple[int, list[str]]:
    """Take a checkpoint in; it is looked at as a whole before anything is changed.

    Returns:
        Its step, and reasons why the run does not go on exactly as it would have.

    Raises:
        LiontoolError: It is no checkpoint of this run, or does not fit.
    """
    facts = read_facts(checkpoint)
    census.check(facts, allow=allow, run=checkpoint.parent)
    state, _ = read_state(checkpoint, {**census.live(), **passes.state()})
    _check_position(state, checkpoint)
    census.load(state, overrides=overrides)
    is_same_data = facts.get("data") == census.facts()["data"]
    unknown = passes.load(state, None if is_same_data else say)
    say(f"resumed from step {state['run']['step']:,}: {checkpoint}")
    reasons = [f"the generator {name} is not in both" for name in unknown]
    if not is_same_data:
        reasons.append("the data is not that of the checkpoint")
    return state["run"]["step"], [*reasons, *census.reasons()]


def tidy(choice: Choice, say: Callable[[str], None]) -> None:
    """Move what was refused into quarantine, and delete leftovers.

    Only now that another checkpoint is known to be good and to fit. What does not succeed is only
    said: a save that needs a damaged one's name tries again.
    """
    try:
        moved = quarantine(choice)
    except PublishError as error:
        for refused in choice.refused:
            say(f"{refused.path.name} was refused: {refused.reason}")
        say(str(error))
    else:
        for refused, place in zip(choice.refused, moved, strict=True):
            say(f"{refused.path.name} was refused and moved to {place}: {refused.reason}")
    try:
        delete_leftovers(choice.run)
    except LiontoolError as error:
        say(str(error))


def _check_position(state: Mapping[str, Any], checkpoint: Path) -> None:
    """Look whether a state says where the run stands, before anything is changed.

    Raises:
        FormatError: It does not.
    """
    run, generators = state.get("run"), state.get("generators")
    if not (
        isinstance(run, dict)
        and all(
            type(run.get(name)) is int and run[name] >= 0 for name in ("step", "epoch", "drawn")
        )
        and type(run.get("between")) is bool
        and run["step"] == step_of(checkpoint.name)
    ):
        raise FormatError(f"{checkpoint / tree_name()}: run: does not say where the run stands")
    if not _are_generators(generators) or not (
        run["between"] or _are_generators(state.get("pass_generators"))
    ):
        raise FormatError(f"{checkpoint / tree_name()}: generators: are not what liontool writes")


def _are_generators(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(name), kind) for name, kind in _GENERATORS.items())
        and isinstance(value.get("cuda", []), list)
    )
