"""A run that was stopped and goes on is, bit for bit, the run that never was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from liontool.checkpoint.system import SYSTEM
from liontool.resume.difference import difference
from support.exact_loaders import IN_PROCESS, WITH_WORKERS
from support.exact_runs import Killed, Script, Seen, ask_to_stop, at, kill, start

pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler:UserWarning"),
]


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about power failures, and disks are slow."""
    monkeypatch.setattr(SYSTEM, "fsync", lambda fd: None)


def never_stopped(folder: Path, script: Script) -> tuple[Seen, dict[str, Any]]:
    seen = Seen()
    return seen, start(folder, script, seen)


def stopped(folder: Path, script: Script, seen: Seen, on: Any, seed: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        start(folder, script, seen, seed, on)
    assert ended.value.code == 75


def same(script: Script, one: tuple[Seen, Any], other: tuple[Seen, Any]) -> None:
    assert one[0].batches == other[0].batches
    assert one[0].after == other[0].after
    assert difference(one[1], other[1]) is None
    first, last = script.loaders[0], script.loaders[-1]
    if getattr(first, "generator", None) is not None:
        assert first.generator.get_state().equal(last.generator.get_state())


def script_for(kind: str, loaders: dict[str, Any] = IN_PROCESS, **options: Any) -> Script:
    goal = {"steps": 6} if kind == "no loader" else {"epochs": 2}
    return Script(loaders[kind], goal=goal, **options)


def every_boundary(tmp_path: Path, script: Script, every: int = 1) -> None:
    whole = never_stopped(tmp_path / "whole", script)
    steps = whole[1]["counts"][0]
    assert steps >= 4
    for step in range(every, steps + ("epochs" in script.goal), every):
        seen, folder = Seen(), tmp_path / f"stopped-{step}"
        stopped(folder, script, seen, at("step", step, ask_to_stop))
        same(script, whole, (seen, start(folder, script, seen, seed=step)))


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_every_boundary(kind: str, tmp_path: Path) -> None:
    """Stopped at any step of two passes, each sampler, data set and generator goes on exactly."""
    every_boundary(tmp_path, script_for(kind))


@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_every_boundary_with_workers(kind: str, tmp_path: Path) -> None:
    """The same with two loader workers; 3 is the end of the first pass."""
    every = 1 if kind == "seeded samples" else 3
    every_boundary(tmp_path, script_for(kind, WITH_WORKERS), every)


def goes_on(folder: Path, script: Script, ends: list[Any]) -> tuple[Seen, dict[str, Any]]:
    """Start again and again: each of `ends` ends one start."""
    seen = Seen()
    for seed, on in enumerate(ends):
        with pytest.raises((SystemExit, Killed)):
            start(folder, script, seen, seed, on)
    return seen, start(folder, script, seen, seed=99)


@pytest.mark.parametrize("place", ["batch", "step", "after"])
@pytest.mark.parametrize("loaders", [IN_PROCESS, WITH_WORKERS], ids=["0", "2"])
def test_killed_anywhere(loaders: dict[str, Any], place: str, tmp_path: Path) -> None:
    """Killed in an accumulation, after a step and between passes, with a save at each step."""
    script = script_for("seeded samples", loaders, save_every=1)
    whole = never_stopped(tmp_path / "whole", script)
    steps = {"batch": (0, 1, 3, 5), "step": (1, 3, 4, 6), "after": (3, 6)}[place]
    for step in steps:
        same(script, whole, goes_on(tmp_path / f"{step}", script, [at(place, step, kill)]))


@pytest.mark.parametrize("kind", ["shuffle", "shuffle, own generator", "weighted", "stream"])
def test_two_stops_in_one_pass(kind: str, tmp_path: Path) -> None:
    """A second restart in the same pass goes on as exactly as the first."""
    script = script_for(kind)
    whole = never_stopped(tmp_path / "whole", script)
    ends = [at("step", 1, ask_to_stop), at("step", 2, ask_to_stop), at("step", 4, ask_to_stop)]
    same(script, whole, goes_on(tmp_path / "run", script, ends))


def test_two_stops_in_one_pass_with_workers(tmp_path: Path) -> None:
    """The same with workers, and then a kill."""
    script = script_for("seeded samples", WITH_WORKERS, save_every=1)
    whole = never_stopped(tmp_path / "whole", script)
    ends = [at("step", 1, ask_to_stop), at("step", 2, ask_to_stop), at("batch", 3, kill)]
    same(script, whole, goes_on(tmp_path / "run", script, ends))


@pytest.mark.parametrize("kind", IN_PROCESS)
def test_stopped_between_passes(kind: str, tmp_path: Path) -> None:
    """What the code after the `for` did is not done again if it was saved, with any loader."""
    script = script_for(kind)
    if "epochs" in script.goal:
        whole = never_stopped(tmp_path / "whole", script)
        step = whole[0].after[0][1][-1]
        end = at("after", step, ask_to_stop)
        same(script, whole, goes_on(tmp_path / "run", script, [end]))


@pytest.mark.parametrize("kind", WITH_WORKERS)
def test_stopped_between_passes_with_workers(kind: str, tmp_path: Path) -> None:
    """The same with two loader workers."""
    script = script_for(kind, WITH_WORKERS)
    whole = never_stopped(tmp_path / "whole", script)
    end = at("after", whole[0].after[0][1][-1], ask_to_stop)
    same(script, whole, goes_on(tmp_path / "run", script, [end]))


def test_break(tmp_path: Path) -> None:
    """A `for` that is left in the middle of a pass goes on there, after a stop as well."""
    script = script_for("shuffle", break_every=4)
    every_boundary(tmp_path, script)


def test_no_loader(tmp_path: Path) -> None:
    """Without a loader the batches are 0, 1, 2 and so on, over all starts."""
    script = script_for("no loader", accumulate=1)
    seen, _ = goes_on(tmp_path / "run", script, [at("step", 4, ask_to_stop)])
    assert [one[1][0] for one in seen.batches if one[1][0] != "validated"] == [0, 1, 2, 3, 4, 5]


def test_more_steps(tmp_path: Path) -> None:
    """A finished run that is given more steps goes on as one that had them from the start."""
    short, long = (script_for("shuffle", accumulate=1) for _ in range(2))
    short.goal, long.goal = {"steps": 5}, {"steps": 9}
    whole = never_stopped(tmp_path / "whole", long)
    seen = Seen()
    start(tmp_path / "run", short, seen)
    seen.after.clear()  # it came too early: after the restart the pass ends a second time
    same(long, whole, (seen, start(tmp_path / "run", long, seen, seed=1)))


def test_more_epochs(tmp_path: Path) -> None:
    """The same with epochs."""
    short, long = script_for("shuffle", accumulate=1), script_for("shuffle", accumulate=1)
    short.goal, long.goal = {"epochs": 1}, {"epochs": 2}
    whole = never_stopped(tmp_path / "whole", long)
    seen = Seen()
    start(tmp_path / "run", short, seen)
    same(long, whole, (seen, start(tmp_path / "run", long, seen, seed=1)))
