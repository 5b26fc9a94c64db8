"""What can be wrong with a checkpoint: findings with ids that stay, each in the table below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: "error": a resume fails or goes wrong; "warning": it may; "note": good to know.
        meaning: One sentence for the documentation.
    """

    severity: str
    meaning: str


KINDS: Mapping[str, Kind] = {
    # Files of every kind.
    "empty-file": Kind(ERROR, "A file has no bytes, or begins with zeros that nobody wrote over."),
    "cut-short": Kind(ERROR, "A file ends before all that it announces."),
    "trailing-bytes": Kind(ERROR, "Bytes follow the end of what the format describes."),
    "leading-bytes": Kind(ERROR, "Bytes stand before the beginning of a zip file."),
    "unreadable": Kind(ERROR, "The reader refuses a file for a reason with no id of its own."),
    "unsafe-name": Kind(ERROR, "The name of a record, shard or link leads out of its folder."),
    "odd-name": Kind(WARNING, "A name is empty, or holds what cannot be seen or turns text."),
    "path-name": Kind(WARNING, "A tensor's name is an absolute path, or has .. in it."),
    "bad-json": Kind(ERROR, "A header, an index or a JSON file is not the JSON that it must be."),
    "duplicate-key": Kind(ERROR, "A name stands twice, and readers differ in which one they take."),
    "overlap": Kind(ERROR, "Two tensors, or two records, share bytes."),
    # safetensors and their indices.
    "header-size": Kind(ERROR, "The header claims more bytes than the format allows."),
    "header-start": Kind(ERROR, "The header does not begin with { as it must."),
    "bad-metadata": Kind(ERROR, "The metadata is not an object of strings."),
    "bad-entry": Kind(ERROR, "What the header says of a tensor makes no sense."),
    "unknown-field": Kind(ERROR, "A tensor has a field that the format does not know."),
    "hole": Kind(ERROR, "Bytes between two tensors belong to none."),
    "torn-header": Kind(
        ERROR, "An edit of the header in place broke off; the old one is read from its record."
    ),
    "misaligned": Kind(NOTE, "Tensors do not lie at multiples of their element size."),
    "missing-shard": Kind(ERROR, "An index names a file that is not there."),
    "missing-tensor": Kind(ERROR, "An index names a tensor that its shard does not have."),
    "unindexed-tensor": Kind(ERROR, "A shard has a tensor that the index gives to no or another."),
    "unindexed-shard": Kind(
        WARNING, "A file beside an index looks like a shard and is in no index."
    ),
    "index-size": Kind(WARNING, "The total size in an index is not that of its tensors."),
    # Torch files: the zip, and what belongs into it.
    "no-directory": Kind(ERROR, "The directory at the end of a zip file is missing."),
    "bad-directory": Kind(ERROR, "The directory of a zip file is damaged or contradicts itself."),
    "duplicate-record": Kind(ERROR, "Two records have one name, but for its case."),
    "packed-record": Kind(ERROR, "A record is compressed or encrypted, which torch never does."),
    "header-differs": Kind(ERROR, "A record's own header and the directory do not agree."),
    "wrong-crc": Kind(ERROR, "The bytes of a record are not those that its checksum was made of."),
    "no-crc": Kind(NOTE, "Records have no checksum: damage to them cannot be seen."),
    "unclaimed-bytes": Kind(WARNING, "Bytes between the records of a zip file belong to none."),
    "stray-record": Kind(ERROR, "A record lies outside of the folder that all must lie in."),
    "missing-record": Kind(ERROR, "A record is missing that the file cannot be loaded without."),
    "bad-byteorder": Kind(ERROR, "The byte order is neither little nor big."),
    "no-byteorder": Kind(NOTE, "The byte order is not told (before torch 2.1), little is assumed."),
    "no-serialization-id": Kind(NOTE, "There is no .data/serialization_id: no plain torch.save."),
    "bad-pickle": Kind(ERROR, "A pickle is damaged, or more than a file needs."),
    "storage-size": Kind(ERROR, "A storage has another size than the pickle claims."),
    "storage-list": Kind(ERROR, "The list of storages of a legacy file does not fit the pickle."),
    "tensor-bounds": Kind(ERROR, "A tensor reaches behind its storage, or its sizes are none."),
    "unused-storage": Kind(NOTE, "Storages that no tensor uses take room."),
    # Folders, and what was found at all.
    "unfinished": Kind(ERROR, "A folder lacks the file that its framework writes last."),
    "stranger": Kind(NOTE, "A file of a folder is of no kind that liontool knows."),
    "leftover": Kind(NOTE, "A write that was interrupted left a temporary file behind."),
    "no-optimizer": Kind(NOTE, "No optimizer was found."),
    "not-checked": Kind(NOTE, "Something could not be looked at because of other findings."),
    # Runs: a checkpoint against its COMMIT, and the others of the run.
    "damaged": Kind(ERROR, "A file is not as it was committed: missing, new, or of other bytes."),
    "passed-over": Kind(ERROR, "A newer checkpoint of the run is damaged or was never finished."),
    "quarantined": Kind(NOTE, "Damaged checkpoints of the run were put aside by an earlier start."),
    "one-of-run": Kind(NOTE, "Of several checkpoints of a run the newest was looked at."),
    # The optimizer: parameters and their state.
    "state-without-parameter": Kind(ERROR, "State belongs to no group's parameter, and is lost."),
    "parameter-twice": Kind(ERROR, "A parameter stands in two groups, or twice in one."),
    "state-field-missing": Kind(ERROR, "A parameter's state lacks a field that others' have."),
    "state-of-lion": Kind(WARNING, "AdamW's groups stand beside the state of a Lion."),
    "moment-shape": Kind(ERROR, "A moment has another shape than its parameter."),
    "moment-without-weight": Kind(WARNING, "Moments have a shape that no weight is left for."),
    "moment-order": Kind(WARNING, "Moments do not follow the order of the model's weights."),
    "parameter-names": Kind(WARNING, "Names of parameters are too few, twice, or of no weight."),
    "moment-dtype": Kind(WARNING, "A moment has another element type than its parameter."),
    "moment-dtypes-differ": Kind(NOTE, "The moments are of several element types."),
    "parameter-without-state": Kind(NOTE, "Parameters have no state: frozen, or never used."),
    "no-state": Kind(NOTE, "No parameter has state: the optimizer has not made a step."),
    "steps-differ": Kind(NOTE, "Parameters have made different numbers of steps."),
    # Groups: hyperparameters.
    "no-lr": Kind(ERROR, "A group has no learning rate."),
    "group-field-missing": Kind(ERROR, "A group lacks what its optimizer cannot do without."),
    "hyperparameter-range": Kind(ERROR, "A hyperparameter is nothing that an optimizer takes."),
    "group-fields-differ": Kind(WARNING, "A group lacks a field that other groups have."),
    "lion-betas": Kind(WARNING, "A Lion has the betas of an AdamW."),
    # Schedulers against groups.
    "rate-count": Kind(ERROR, "A scheduler has not one learning rate for each group."),
    "scheduler-field": Kind(ERROR, "A scheduler, or a group it drives, lacks what it needs."),
    "missing-initial-lr": Kind(WARNING, "A scheduler drives a group that has no initial_lr."),
    "base-lr-differs": Kind(WARNING, "A scheduler's base_lrs are not the groups' initial_lr."),
    "last-lr-differs": Kind(WARNING, "A scheduler's _last_lr is not the groups' lr."),
    "schedule-over": Kind(WARNING, "A scheduler is at the end of what it can do."),
    "beta1-cycled": Kind(WARNING, "A scheduler goes on setting beta1, of a Lion too."),
    "scheduler-missing": Kind(WARNING, "Groups were driven by a scheduler that is not there."),
    "scheduler-unpaired": Kind(WARNING, "Which optimizer a scheduler drives cannot be told."),
    "lr-outside": Kind(NOTE, "The learning rate is set by code or settings outside the file."),
    # Values.
    "nonfinite": Kind(ERROR, "A weight or a state holds NaN or infinity."),
    "nonfinite-elsewhere": Kind(
        NOTE, "What is neither weight nor state, or a mask, holds NaN or infinity."
    ),
    "negative-second-moment": Kind(ERROR, "An average of squares is negative somewhere."),
    "zero-moment": Kind(WARNING, "A moment is zero throughout after the first step."),
    "step-mismatch": Kind(WARNING, "Parameters have made more steps, or fewer, than the run."),
    # --code: what the pickles name.
    "dangerous-global": Kind(ERROR, "A pickle names something that can run programs or write."),
    "unknown-global": Kind(WARNING, "A pickle names what torch.load(weights_only=True) refuses."),
    # --against: what a conversion must have kept and done.
    "other-source": Kind(ERROR, "The record names another source than the one given."),
    "tensor-changed": Kind(ERROR, "A tensor that must be bit-identical to the source's is not."),
    "tensor-missing": Kind(ERROR, "A tensor of the source that must be there is not."),
    "tensor-added": Kind(ERROR, "A tensor is there that neither source nor rule has."),
    "momentum-differs": Kind(ERROR, "A momentum is not what the rule makes of the source's."),
    "state-kept": Kind(ERROR, "Optimizer state is there that the rule drops."),
    "field-differs": Kind(
        ERROR, "A group's or scheduler's field is not what the rule makes of it."
    ),
    "value-differs": Kind(ERROR, "A value outside of optimizer and scheduler is not the source's."),
    "file-differs": Kind(ERROR, "A file of the folder is gone, new, or not the source's."),
    "no-record": Kind(NOTE, "There is no record of a conversion, so that nothing can be proved."),
    "not-the-same": Kind(WARNING, "Without such a record: tensors differ, are missing or new."),
}
"""Every kind by its id, in the order of the documentation."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or good to know.

    Attributes:
        id: A key of `KINDS`; never changes its meaning.
        where: File, tensor, group or scheduler; "" for the whole checkpoint.
        text: What it is and what to do, one sentence.
    """

    id: str
    where: str
    text: str

    @property
    def severity(self) -> str:
        """That of its kind."""
        return KINDS[self.id].severity
