"""Everything that can be found wrong with a checkpoint, in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.plain_values import json_value
from liontool.checkpoint.source import Source, open_source
from liontool.errors import AmbiguousError, LiontoolError, ReadError, UnfinishedError
from liontool.inspect.checksums import Advance, Checksums
from liontool.inspect.code import PickleCode, code_findings
from liontool.inspect.consistency import consistency
from liontool.inspect.findings import ERROR, NOTE, WARNING, Finding
from liontool.inspect.listing import Item, listed
from liontool.inspect.name_checks import check_names
from liontool.inspect.opening import Opened, opened_source, shown_path
from liontool.inspect.places import without_path
from liontool.inspect.proof import Proof, prove
from liontool.inspect.run_checks import commit_findings, committed_bytes
from liontool.inspect.structure import Structure, structure
from liontool.inspect.values import bytes_to_read, check_steps, check_values
from liontool.inspect.weight_checks import check_weights

SCHEMA = 1
"""Version of `Verification.to_dict`."""

MOST = 1000
"""Findings of one kind; what is beyond is counted in the last one."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        path: The checkpoint.
        framework: Whose it is, where an optimizer was found.
        files: How many files were looked at.
        tensors: How many tensors; None where they could not be listed.
        bytes_read: Bytes of tensors that were read.
        findings: Everything that was found, structure first.
        proof: The comparison with another checkpoint, if one was asked for.
        code: What the pickles name, if it was asked for.
    """

    path: str
    framework: str | None
    files: int
    tensors: int | None
    bytes_read: int
    findings: tuple[Finding, ...]
    proof: Proof | None = None
    code: tuple[PickleCode, ...] | None = None

    def count(self, severity: str) -> int:
        """How many findings have this severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def passed(self, *, strict: bool = False) -> bool:
        """Whether there are no errors, and with `strict` no warnings either."""
        return not self.count(ERROR) and not (strict and self.count(WARNING))

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON."""
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "path": self.path,
            "framework": self.framework,
            "files": self.files,
            "tensors": self.tensors,
            "bytes_read": self.bytes_read,
            "errors": self.count(ERROR),
            "warnings": self.count(WARNING),
            "notes": self.count(NOTE),
            "findings": [
                {"id": f.id, "severity": f.severity, "where": f.where, "text": f.text}
                for f in self.findings
            ],
            "proof": None if self.proof is None else self.proof.to_dict(),
            "code": None if self.code is None else [one.to_dict() for one in self.code],
        }
        return {key: json_value(value) for key, value in found.items()}


@paused_collector()
def verify(
    path: str | PathLike[str],
    *,
    against: str | PathLike[str] | None = None,
    code: bool = False,
    values: bool = True,
    framework: str | None = None,
    optimizers: Sequence[str] = (),
    progress: Progress | None = None,
) -> Verification:
    """Look for everything that is wrong with a checkpoint; nothing in it is executed.

    Args:
        path: A file, or the folder that a framework wrote.
        against: Another checkpoint to compare with: the source of a conversion, or a copy.
        code: Also list what the pickles name.
        values: Read all tensors, for values that no run has, and for checksums. Without it only
            headers are read.
        framework: Who wrote it; None to find out.
        optimizers: Take these alone, by their paths in the file, wherever they are.
        progress: Called with the bytes read so far and the bytes in all.

    Raises:
        ReadError: There is nothing at `path`, or no checkpoint at all.
        LayoutError: `framework` does not fit, or several checkpoints lie there.
    """
    source = open_source(path)
    if source.is_folder:  # of several checkpoints in it none is walked
        _opened(source, framework, optimizers)
    found = structure(source)
    opened, refusal = _opened(source, framework, optimizers)
    items, fault = _listed(opened)
    counter = _Counter(progress)
    counter.total = committed_bytes(source) if values else 0
    found.findings[:0] = commit_findings(source, counter.advance if values else None)
    findings = [*found.findings, *_refused(refusal or fault, source, found)]
    if opened is not None and fault is None:
        findings += check_names(opened, items, findings)
        findings += _consistency(opened)
        findings += check_weights(opened, items)
    if values:
        checksums = Checksums(found.checks)
        counter.total = counter.done + max(bytes_to_read(items), checksums.total)
        findings += check_values(items, checksums, counter.advance)
        findings += checksums.rest(counter.advance)
    proof = None
    if against is not None:
        proof = _proof(opened, path, against, framework, counter.advance)
        findings += proof.findings
    pickles = None
    if code:
        from liontool.inspect.code import code as code_of

        pickles = code_of(source)
        findings += code_findings(pickles)
    source.check_unchanged()
    checkpoint = None if opened is None else opened.checkpoint
    return Verification(
        path=shown_path(path, source),
        framework=None if checkpoint is None else checkpoint.framework,
        files=found.files,
        tensors=None if opened is None else len(items),
        bytes_read=counter.done,
        findings=tuple(_capped(findings)),
        proof=proof,
        code=pickles,
    )


def _opened(
    source: Source, framework: str | None, optimizers: Sequence[str]
) -> tuple[Opened | None, ReadError | None]:
    """The checkpoint as the strict readers see it, or why they refuse it."""
    try:
        return opened_source(source, framework, optimizers), None
    except ReadError as error:
        return None, error


def _listed(opened: Opened | None) -> tuple[tuple[Item, ...], ReadError | None]:
    """The tensors; a file beside the optimizer's may turn out to be damaged only here."""
    try:
        return (() if opened is None else listed(opened)), None
    except ReadError as error:
        return (), error


def _refused(error: ReadError | None, source: Source, found: Structure) -> Iterator[Finding]:
    """What to say of a refusal: the walkers may have said it better."""
    if error is None:
        return
    if isinstance(error, UnfinishedError):
        yield Finding("unfinished", "", without_path(error, source.path))
    elif all(finding.severity != ERROR for finding in found.findings):
        yield Finding("unreadable", "", without_path(error, source.path))
    else:
        text = "tensors, groups and schedulers were not looked at: the file cannot be read"
        yield Finding("not-checked", "", text)


def _consistency(opened: Opened) -> Iterator[Finding]:
    if opened.no_optimizer is not None:
        text = without_path(opened.no_optimizer, opened.source.path)
        yield Finding("no-optimizer", "", text.partition("; if it is there")[0])
    yield from consistency(opened)
    yield from check_steps(opened)


def _proof(
    opened: Opened | None,
    path: str | PathLike[str],
    against: str | PathLike[str],
    framework: str | None,
    advance: Advance,
) -> Proof:
    """The comparison with another checkpoint, which must be readable."""
    if opened is None:
        raise ReadError(f"{path}: is damaged, so that it cannot be compared; leave --against out")
    try:
        other = opened_source(open_source(against), framework)
    except AmbiguousError:
        raise
    except LiontoolError:
        other = opened_source(open_source(against), None)
    return prove(opened, other, advance)


class _Counter:
    """Bytes that were read, and who wants to know of them."""

    def __init__(self, progress: Progress | None) -> None:
        self.done = 0
        self.total = 0
        self._progress = progress

    def advance(self, count: int) -> None:
        self.done += count
        if self._progress is not None:
            self._progress(self.done, max(self.done, self.total))


def _capped(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The first of each kind; the last one of a kind that has too many says how many."""
    totals: dict[str, int] = {}
    for finding in findings:
        totals[finding.id] = totals.get(finding.id, 0) + 1
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.id] = counts.get(finding.id, 0) + 1
        if counts[finding.id] < MOST or totals[finding.id] == MOST == counts[finding.id]:
            yield finding
        elif counts[finding.id] == MOST:
            more = totals[finding.id] - MOST
            yield replace(finding, text=f"{finding.text} (and {more:,} more such findings)")
