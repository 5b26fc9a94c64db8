"""Thousands of files that were good once: each is answered with findings, or in one line.

`make fuzz` takes 2,000 of each container, `make test` a share of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from liontool.checkpoint.system import SYSTEM
from support import hostile_mutants
from support.hostile_containers import put
from support.hostile_runs import Runner, complaint, contents

FILES = int(os.environ.get("LIONTOOL_MUTANTS", "300"))
SHOWN = 10
"""Of so many files one is shown as text: drawing takes longer than looking."""

# The words after `liontool`, with NAME and HONEST for the mutated file and the one it was made of;
# and the exit codes besides 2 that it may end with.
COMMANDS: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (("inspect", "NAME"), (0,)),
    (("inspect", "NAME", "--stats", "--tensors"), (0,)),
    (("verify", "NAME", "--code"), (0, 1)),
    (("verify", "NAME", "--against", "HONEST", "--no-values"), (0, 1)),
    (("diff", "HONEST", "NAME"), (0, 1)),
    (("edit", "NAME", "drop:*.step", "--dry-run"), (0,)),
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Runs the command in this process, which has run it before: nothing is left to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SYSTEM, "fsync", lambda _: None)
        runner = Runner(patch, tmp_path_factory.mktemp("trap"))
        folder = tmp_path_factory.mktemp("warm")
        hostile_mutants.companions(folder)
        for name, data in hostile_mutants.honest_bytes().values():
            put(folder, name, data)
            for words, answers in COMMANDS:
                for options in ([], ["--json"]):
                    run = runner.run(folder, *_words(words, name, name), *options)
                    refused = "index" in name and words[0] == "edit"  # it wants the folder
                    assert run.code in ((2,) if refused else answers), run.err
        yield runner


def _words(words: tuple[str, ...], name: str, honest: str) -> list[str]:
    return [{"NAME": name, "HONEST": honest}.get(word, word) for word in words]


@pytest.mark.parametrize("container", ["torch-zip", "legacy", "safetensors", "index"])
def test_mutants(container: str, tmp_path: Path, runner: Runner) -> None:
    """No traceback, no hang, no code run, nothing written; what inspect refuses, verify faults."""
    name, data = hostile_mutants.honest_bytes()[container]
    honest = put(tmp_path, f"honest-{name}", data)
    hostile_mutants.companions(tmp_path)
    found: list[str] = []
    codes: Counter[str] = Counter()
    for number in range(FILES):
        put(tmp_path, *hostile_mutants.mutant(container, number))
        before = contents(tmp_path)
        options = ["--json"] if number % SHOWN else []
        ends: dict[str, int] = {}
        for words, answers in COMMANDS:
            run = runner.run(tmp_path, *_words(words, name, honest), *options)
            fault = complaint(run, answers)
            if contents(tmp_path) != before:
                fault = fault or "something was written"
            found += [f"{container} {number}, {' '.join(words)}: {fault}"] if fault else []
            codes[f"{words[0]} {run.code}"] += 1
            ends.setdefault(words[0], run.code)
        if ends["inspect"] == 2 and ends["verify"] == 0:
            found.append(f"{container} {number}: inspect refuses it, verify finds nothing")
    assert not found, "\n".join(found[:20])
    assert not runner.marker.exists()
    assert codes["verify 1"] > FILES / 4  # most of them are damaged indeed, and are checkpoints
