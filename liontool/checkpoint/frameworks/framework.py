"""What a lens is: where a framework keeps its optimizers, and what its loader wants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint import model
from liontool.checkpoint.document import Edit
from liontool.checkpoint.model import Checkpoint
from liontool.checkpoint.source import Source

_INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class Target:
    """The class that a user's script will construct, for the text to paste.

    Attributes:
        import_line: "from liontool.optim import Lion"; a comment may follow.
        constant_lr: Whether it wants a constant learning rate (LionSF).
        argument: A further argument of its constructor, "decoupled_weight_decay=True".
        highest_lrs: With that argument, the lr that each optimizer has to be constructed with;
            without it any will do, since the one in the file wins.
    """

    import_line: str = "from liontool.optim import Lion"
    constant_lr: bool = False
    argument: str = ""
    highest_lrs: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The class: "Lion"."""
        return self.import_line.partition(" import ")[2].split()[0]


def no_warning(path: Path) -> str | None:
    """For frameworks to which every name is as good as the next."""
    return None


def file_output_name(path: Path) -> str:
    """ "adamw.ckpt" gives "adamw.lion.ckpt", beside the source; shards give one file."""
    if path.name.endswith(_INDEX):
        return f"{path.name.removesuffix(_INDEX)}.lion.safetensors"
    ending = ".pth.tar" if path.name.endswith(".pth.tar") else path.suffix
    return f"{path.name.removesuffix(ending)}.lion{ending}"


@dataclass(frozen=True)
class Framework:
    """One framework's layout.

    Attributes:
        name: As `--framework` takes it.
        looks_for: What `find` recognises a checkpoint by, for messages.
        find: The checkpoint in a source, or None where the source is not this framework's.
        resume_code: What to change in the script, ready to paste, for the converted checkpoint, the
            class that loads it, and the path of the output.
        output_name: Default name of the output for the path of the source.
        output_warning: What is wrong with an output's path for this framework, or None.
        plan: The edits that turn one checkpoint into another.
    """

    name: str
    looks_for: str
    find: Callable[[Source], Checkpoint | None]
    resume_code: Callable[[Checkpoint, Target, Path], str]
    output_name: Callable[[Path], str] = file_output_name
    output_warning: Callable[[Path], str | None] = no_warning
    plan: Callable[[Checkpoint, Checkpoint], list[Edit]] = model.plan
