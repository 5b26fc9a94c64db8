"""kill -9, again and again: a run that is restarted until it is done is the one that never died."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.choosing import checkpoints, choose
from liontool.checkpoint.run_folder.layout import QUARANTINE, is_leftover, step_name
from liontool.errors import LiontoolError
from liontool.resume.returning import foreseen
from support import crash_server as server
from support.crash_part import Part
from support.crash_trainer import Plan, Trainer, warm_up

MOST_TRIES = 300
AIMS = ("a save", "a phase", "a moment")
CALLS_OF_A_SAVE = 40
"""From the hidden folder to the end of what is removed afterwards."""

NTH = {"call": 60, "step": 12, "validation": 4, "left": 12}
"""Up to the how manyth time a phase is waited for."""


@dataclass
class Story:
    """One run, from its first start to its end.

    Attributes:
        plan: What is trained.
        reference: What each step of the run that nobody killed left, and what it left in the end.
        good: The newest step that was said to be durable and has not been damaged.
        damaged: The checkpoints in which we flipped bits and that have not been moved yet, with
            how many of their name were in quarantine then.
        groups: The process groups whose main process alone was killed.
    """

    plan: Plan
    reference: dict[str, str]
    good: int | None = None
    damaged: dict[Path, int] = field(default_factory=dict)
    groups: list[int] = field(default_factory=list)


def training(
    plan: Plan, *, calls: bool = False, aim: server.Aim | None = None
) -> Callable[[server.Tell], None]:
    """What a trainer does from its first line to its last.

    Args:
        plan: What it trains.
        calls: Whether to say the name of each call through SYSTEM before it is made.
        aim: The call that takes long.
    """

    def train(tell: server.Tell) -> None:
        if calls:
            server.tell_calls(tell, aim)
        Trainer(plan, tell).train()

    return train


def saved(step: int) -> Callable[[str], bool]:
    """Whether a line says that a step, or a later one, is durable."""

    def is_it(line: str) -> bool:
        word, _, number = line.partition(" ")
        return word == "saved" and number != "None" and int(number) >= step

    return is_it


def uninterrupted(plan: Plan, errors: Path) -> dict[str, str]:
    """What each step of a run leaves that nobody kills."""
    child = server.Child(training(plan), errors)
    code = child.end()
    child.close()
    assert code == 0, f"the run that nobody killed ended with {code}: {child.complaints()}"
    shutil.rmtree(plan.folder)
    left = left_by(child.lines)
    assert {"done", *map(str, range(1, plan.steps + 1))} == set(left), sorted(left)
    return left


def left_by(lines: list[str]) -> dict[str, str]:
    """The hash after each step, and the one at the end, of what a trainer said."""
    words = [line.split() for line in lines]
    left = [(word[1], word[2]) for word in words if word[0] == "left"]
    return dict(left + [("done", word[1]) for word in words if word[0] == "done"])


def kills(part: Part, folder: Path, plans: list[Plan], count: int) -> None:
    """Kill trainers until it was done so often; then let the last run come to its end.

    Args:
        part: Where to count.
        folder: An empty folder, best in memory.
        plans: What to train, in turn; the folder in them is not used.
        count: How many kills.
    """
    warm_up()
    server.check_single()
    server.adopt_orphans()
    chance = random.Random(part.seed)
    errors = folder / "errors"
    plans = [replace(plan, folder=folder / f"plan-{n}" / "run") for n, plan in enumerate(plans)]
    references = [uninterrupted(plan, errors) for plan in plans]
    groups: list[int] = []
    while part.counts["kills"] < count:
        turn = part.counts["runs"] % len(plans)
        story = Story(plans[turn], references[turn])
        tell_story(part, story, chance, errors, count)
        groups += story.groups
        part.counts["runs"] += 1
        shutil.rmtree(story.plan.folder)
    for group in server.outlived(groups):
        part.problem(f"workers of {group} lived on after their trainer was killed")


def tell_story(part: Part, story: Story, chance: random.Random, errors: Path, count: int) -> None:
    """Start a run and kill it, until it comes to its end."""
    for _ in range(MOST_TRIES):
        expected = _expected(part, story)
        aim = _aim(part, chance) if part.counts["kills"] < count else None
        call = server.Aim(chance.randrange(1, 4), chance.randrange(CALLS_OF_A_SAVE))
        work = training(story.plan, calls=True, aim=call if aim == "a save" else None)
        child = server.Child(work, errors)
        _listen_and_kill(part, story, child, aim, chance)
        child.close()
        _judge(part, story, child, expected)
        if child.code == 0:
            return
        if child.code == -9 and part.counts["kills"] % 3 == 0:
            _damage(part, story, chance)
    part.problem(f"{story.plan}: not done after {MOST_TRIES} tries")


def _aim(part: Part, chance: random.Random) -> str:
    """Half of the kills and more are aimed at a save."""
    if 2 * part.counts["aimed at a save"] <= part.counts["kills"]:
        return "a save"
    return chance.choice(AIMS)


def _listen_and_kill(
    part: Part, story: Story, child: server.Child, aim: str | None, chance: random.Random
) -> None:
    """Kill it when it is where we aim at, or let it come to its end if that is before."""
    if not _reached(story.plan, child, aim, chance):
        try:
            child.end()
        except server.Hanging as error:
            part.problem(f"{story.plan}: {error}: {child.complaints()}")
        return
    group = not story.plan.workers or chance.random() < 0.6
    child.kill(group=group)
    if child.code != -9:
        return
    if not group:
        story.groups.append(child.pid)
    hidden = any(is_leftover(path.name) for path in _names(story.plan.folder))
    part.counts["kills"] += 1
    part.counts[f"aimed at {aim}"] += 1
    part.counts[f"with {story.plan.workers} workers"] += 1
    part.counts["of the main process alone"] += not group
    part.counts["left an unfinished save or removal"] += hidden


def _reached(plan: Plan, child: server.Child, aim: str | None, chance: random.Random) -> bool:
    """Wait until a process is where we aim at; whether it lives then."""
    if aim == "a save":
        child.listen(lambda line: line == "aimed")
        child.listen(seconds=chance.random() * server.SLOW)
    elif aim == "a phase":
        phase = chance.choice(("constructor", "call", "resumed", "step", "validation", "left"))
        child.listen(_nth(chance.randrange(1, NTH.get(phase, 2)), phase))
        child.listen(seconds=chance.random() * 0.002)
    elif aim == "a moment":
        child.listen(_nth(1, "constructor"))
        child.listen(seconds=chance.random() * (0.5 if plan.workers else 0.25))
    return aim is not None and child.code is None


def _names(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _nth(number: int, beginning: str) -> Callable[[str], bool]:
    """Whether a line is the one of that number with such a beginning."""
    seen = [0]

    def is_it(line: str) -> bool:
        seen[0] += line.startswith(beginning)
        return seen[0] >= number

    return is_it


def _expected(part: Part, story: Story) -> int | None:
    """The step that the next start must go on from."""
    choice = foreseen(choose(story.plan.folder))
    step = None if choice.commit is None else choice.commit.step
    if story.good is not None and (step is None or step < story.good):
        part.problem(f"{story.plan}: {story.good} was reported, {step} is left: {choice}")
    if choice.chosen in story.damaged:
        part.problem(f"{story.plan}: a damaged checkpoint was chosen: {choice}")
    return step


def _judge(part: Part, story: Story, child: server.Child, expected: int | None) -> None:
    """Compare everything that a start said with what it should have said."""
    if child.code not in (0, -9):
        part.problem(f"{story.plan}: ended with {child.code}: {child.complaints()}")
    for line in child.lines:
        words = line.split()
        if words[0] == "resumed":
            _judge_start(part, story, words, expected, child.lines)
        elif words[0] == "saved" and words[1] != "None":
            story.good = max(int(words[1]), story.good or 0)
    _judge_damaged(part, story, child.lines)
    for step, what in left_by(child.lines).items():
        part.counts["states compared"] += 1
        if what != story.reference[step]:
            part.counts["differences"] += 1
            part.problem(f"{story.plan}: step {step} differs, {expected=}")


def _judge_start(
    part: Part, story: Story, words: list[str], expected: int | None, lines: list[str]
) -> None:
    part.counts["starts"] += 1
    part.counts["starts from a checkpoint"] += words[1] != "None"
    if words[1] != str(expected):
        part.problem(f"{story.plan}: went on from {words[1]} instead of {expected}")
    if words[2] != "exact":
        part.problem(f"{story.plan}: is {words[2]}, not exact: {lines}")


def _judge_damaged(part: Part, story: Story, lines: list[str]) -> None:
    """A damaged checkpoint is moved away by the first start that looks at it, which says so."""
    start = next((line.split() for line in lines if line.startswith("resumed")), None)
    for path, before in list(story.damaged.items()):
        moved = _quarantined(story, path) > before
        said = any(line.startswith("say ") and path.name in line for line in lines)
        if moved:
            part.counts["damaged checkpoints refused, named and moved away"] += 1
            del story.damaged[path]
        elif start is not None and start[1] != "None" and path.name < step_name(int(start[1])):
            part.counts["damaged checkpoints older than a whole one without a name"] += 1
            del story.damaged[path]
            continue
        if start is not None and not (moved and said):
            part.problem(f"{story.plan}: {path.name} is damaged; {moved=}, {said=}: {lines[:99]}")


def _quarantined(story: Story, path: Path) -> int:
    """How many checkpoints of this name lie in quarantine."""
    folder = story.plan.folder / QUARANTINE
    return sum(kept.name.startswith(path.name) for kept in _names(folder))


def _damage(part: Part, story: Story, chance: random.Random) -> None:
    """Flip a few bits in the newest good checkpoint, if there is another one."""
    good = [path for path in checkpoints(story.plan.folder) if _is_good(path)]
    if len(good) < 2:
        return
    victim = chance.choice(sorted(good[0].iterdir()))
    data = bytearray(victim.read_bytes())
    for bit in chance.sample(range(len(data) * 8), chance.choice((1, 1, 2, 16))):
        data[bit // 8] ^= 1 << bit % 8
    victim.write_bytes(data)
    part.counts["checkpoints damaged"] += 1
    story.damaged[good[0]] = _quarantined(story, good[0])
    story.good = check(good[1]).step


def _is_good(path: Path) -> bool:
    try:
        check(path)
    except LiontoolError:
        return False
    return True
