"""A process of its own that loads converted files with torch: whatever they do, tests go on.

Reads one JSON line `[source, output]` after the other; answers each with a line, "" where all is
well: what torch could load before can be loaded afterwards, with the same first moments.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PATIENCE = 30


class Loader:
    """The process, from outside."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def complaint(self, source: Path, output: Path) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(source), str(output)]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return str(json.loads(answer)) if answer else "torch did not survive"

    def close(self) -> None:
        self._process.communicate()


def main() -> None:
    for line in sys.stdin:
        signal.alarm(PATIENCE)
        source, output = map(Path, json.loads(line))
        print(json.dumps(_compared(source, output)), flush=True)
        signal.alarm(0)


def _compared(source: Path, output: Path) -> str:
    if source.is_dir():
        names = [name for name in ("optimizer.pt", "scheduler.pt") if (source / name).exists()]
        return "".join(_compared(source / name, output / name) for name in names)
    try:
        before = _loaded(source)
    except Exception:
        return ""
    try:
        after = _loaded(output)
    except Exception as error:
        return f"torch cannot load it any more: {error!r:.300}"
    return _moments_compared(dict(_moments(before)), dict(_moments(after)))


def _loaded(path: Path) -> Any:
    import safetensors.torch
    import torch

    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    return torch.load(path, weights_only=True, map_location="cpu")


def _moments(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """First moments in the state of optimizers, by their paths.

    Each container is entered once, however often it is met. Groups are left out: what a hostile
    file has under Adam's own keys there goes with them.
    """
    import torch

    seen: set[int] = set()
    todo: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, torch.Tensor) and path[-1:] and path[-1].endswith("exp_avg"):
            yield path, value
        if id(value) in seen or path[-1:] == ("param_groups",):
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            todo += [((*path, str(key)), item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            todo += [((*path, str(i)), item) for i, item in enumerate(value)]


def _moments_compared(
    before: Mapping[tuple[str, ...], Any], after: Mapping[tuple[str, ...], Any]
) -> str:
    import torch

    for path, tensor in before.items():
        if path not in after:
            return f"{path} is gone"
        if tensor.is_sparse or tensor.dtype != after[path].dtype:
            return f"{path} has another dtype"
        if not torch.equal(tensor.nan_to_num(), after[path].nan_to_num()):
            return f"{path} is not the same"
    return ""


if __name__ == "__main__":
    main()
