"""Lightning's `.ckpt`, as ModelCheckpoint and `trainer.save_checkpoint` write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from liontool.checkpoint.frameworks import pickled_objects, resume_text, torch_layout
from liontool.checkpoint.frameworks.framework import Framework, Target
from liontool.checkpoint.frameworks.pairing import pair
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Checkpoint
from liontool.checkpoint.source import Source
from liontool.errors import MissingOptimizerError

_VERSION = "pytorch-lightning_version"
_OPTIMIZERS, _SCHEDULERS = "optimizer_states", "lr_schedulers"


def find(source: Source) -> Checkpoint | None:
    """The optimizers and schedulers of a `.ckpt`; None where the file is something else.

    Raises:
        LayoutError: An optimizer or a scheduler is a pickled object.
        MissingOptimizerError: The file was saved with the weights only.
    """
    tree = None if source.is_folder else source.document().tree
    if not isinstance(tree, Mapping) or _VERSION not in tree:
        return None
    document = source.document()
    # Lightning's own lists only: other dicts that look alike are the user's.
    pickled_objects.refuse(document)
    found = torch_layout.search(document, [(_OPTIMIZERS,), (_SCHEDULERS,)])
    optimizers, loose = pair(found.optimizers, found.schedulers)
    checkpoint = Checkpoint(
        "lightning",
        optimizers,
        loose,
        step=torch_layout.count(tree.get("global_step")),
        epoch=number(tree.get("epoch")),
        facts={"lightning version": tree[_VERSION], **torch_layout.object_facts(document)},
    )
    if not optimizers:
        why = "is empty" if _OPTIMIZERS in tree else "is missing"
        raise MissingOptimizerError(
            f"{document.path}: '{_OPTIMIZERS}' {why}, so it holds weights but no optimizer; was it "
            "saved with save_weights_only=True? Take a full checkpoint, or say where the optimizer "
            "is: --optimizer PATH.IN.TREE",
            checkpoint,
        )
    return checkpoint


def resume_code(checkpoint: Checkpoint, target: Target, output: Path) -> str:
    """`configure_optimizers` with the Lion, and the call of `fit`."""
    objects = checkpoint.facts.get("objects", ())
    lines = [target.import_line, "", "# in your LightningModule"]
    lines += ["def configure_optimizers(self):"]
    optimizers = checkpoint.optimizers
    for index in range(len(optimizers)):
        lines += ["    " + resume_text.construct(optimizers, target, "self.parameters()", index)]
    them = "it" if len(optimizers) == 1 else "them"
    how = (
        "alone, without a scheduler" if target.constant_lr else "with the same schedulers as before"
    )
    lines += [f"    ...  # return {them} {how}"]
    options = ", weights_only=False" if objects else ""
    lines += ["", *resume_text.trust_note(objects)]
    lines += [f"trainer.fit(model, ckpt_path={str(output)!r}{options})"]
    note = resume_text.constant_lr_note(target, "configure_optimizers returns no scheduler")
    return "\n".join([*lines, *note])


FRAMEWORK = Framework(
    name="lightning",
    looks_for=f"a file with '{_VERSION}' and '{_OPTIMIZERS}'",
    find=find,
    resume_code=resume_code,
)
