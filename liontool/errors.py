"""Every error that liontool raises on purpose, and nothing else.

    LiontoolError                      what, where, what is allowed, the way out: one line
    ├── ReadError                      a source cannot be read
    │   ├── FormatError                the bytes break the rules of their own format
    │   │   ├── LimitError             the file claims more than any honest file needs
    │   │   └── TruncatedError         the bytes end too early
    │   ├── UnsafePathError            a name or a link leads out of its folder
    │   ├── UnfinishedError            the checkpoint lacks its mark of completion
    │   ├── DamagedError               the bytes are not those that were committed
    │   └── SourceChangedError         the source was written to while it was read
    ├── LayoutError                    the bytes are fine, what they mean is not clear
    │   ├── AmbiguousError             more than one answer; the message lists them
    │   ├── MissingOptimizerError      no optimizer where the framework keeps it
    │   └── UnknownOptimizerError      not AdamW; the message names the keys that differ
    ├── EditError                      an edit does not fit the checkpoint that it is for
    ├── RefusedError                   would falsify a run; `--allow ID` overrides, if `id` is set
    ├── PublishError                   the result cannot be made to appear
    │   ├── OutputExistsError          never overwritten without `--force`
    │   └── NoSpaceError               found out before the first byte
    ├── ResumeError                    a run cannot be saved or gone on with
    │   ├── LockedError                another process has it
    │   └── StateTypeError             a state holds what no checkpoint can keep; names its path
    └── LoadError                      a checkpoint and a live optimizer do not fit each other

Wrong argument values stay `ValueError`. The command line prints the message and exits with 2.
"""

from __future__ import annotations


class LiontoolError(Exception):
    """Root of all errors raised on purpose. The message is one line and names the way out."""


class ReadError(LiontoolError):
    """A source cannot be read."""


class FormatError(ReadError):
    """The bytes of a file break the rules of its format."""


class LimitError(FormatError):
    """A file claims a size, count or depth beyond every honest file."""


class TruncatedError(FormatError):
    """The bytes end where the format says that more must follow."""


class UnsafePathError(ReadError):
    """A name or a symbolic link leads out of the folder it belongs to."""


class UnfinishedError(ReadError):
    """A checkpoint folder lacks the file that its framework writes last."""


class DamagedError(ReadError):
    """A checkpoint of a run whose bytes are not those that its COMMIT lists."""


class SourceChangedError(ReadError):
    """A source changed between the first look and the moment of publishing."""


class LayoutError(LiontoolError):
    """A file was read, and nothing in it is laid out like what was asked for."""


class AmbiguousError(LayoutError):
    """Several checkpoints or optimizers fit; the message lists them with the command for each."""


class MissingOptimizerError(LayoutError):
    """A checkpoint has no optimizer where its framework keeps it.

    Args:
        message: What was found instead.
        checkpoint: The rest of it, for an optimizer that the user can point to.
    """

    def __init__(self, message: str, checkpoint: object) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


class UnknownOptimizerError(LayoutError):
    """State that is not AdamW's; the message names the keys that differ.

    Args:
        message: What was found and where.
        id: The word for `--allow`, or None where nothing can allow it.
    """

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


class EditError(LiontoolError):
    """An edit cannot be made in this checkpoint; the message names the word."""


class RefusedError(LiontoolError):
    """A change that would falsify a run.

    Args:
        message: What was found and where.
        id: The word for `--allow`, or None where nothing can allow it.
    """

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(f"{message}; to go on all the same: --allow {id}" if id else message)
        self.id = id


class PublishError(LiontoolError):
    """A result could not be written; nothing was left behind."""


class OutputExistsError(PublishError):
    """The output is there already."""


class NoSpaceError(PublishError):
    """The file system has too little room for the output."""


class LoadError(LiontoolError):
    """A checkpoint does not fit the optimizer or the model that it is loaded into."""


class ResumeError(LiontoolError):
    """A run cannot be saved or gone on with; the message says what to change."""


class LockedError(ResumeError):
    """Another process trains in the same folder; the message names it."""


class StateTypeError(ResumeError):
    """State that no checkpoint can keep; the message names its path and type."""
