"""A new COMMIT for a checkpoint of a run that was converted or edited."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from liontool.checkpoint.document import Span
from liontool.checkpoint.reading import BLOCK, ranges
from liontool.checkpoint.run_folder.commit import Commit, File
from liontool.checkpoint.run_folder.hashing import new_hash
from liontool.checkpoint.run_folder.layout import COMMIT


@dataclass(frozen=True)
class CommitSeal:
    """Writes COMMIT when all other files are there: step, epoch and metric stay as they were.

    Attributes:
        before: The COMMIT of the source.
        folder: Where the checkpoint lies in what is written: "step-0000001200/", or "".
    """

    before: Commit
    folder: str = ""

    @property
    def name(self) -> str:
        """The file that is made."""
        return self.folder + COMMIT

    def made(self, root: Path, names: Sequence[str]) -> bytes:
        """The content of COMMIT.

        Args:
            root: The folder that was written.
            names: Its files, relative to it.
        """
        own = (name for name in names if name.startswith(self.folder))
        files = {name.removeprefix(self.folder): _file(root / name) for name in own}
        return replace(self.before, time=time.time(), files=files).encoded()


def _file(path: Path) -> File:
    size, made = path.stat().st_size, new_hash()
    for block in ranges(Span(path, 0, size), BLOCK):
        made.update(block)
    return File(size, made.hexdigest())
