"""How findings are shown: the verdict first, then errors, warnings, notes, proof and code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool import wording
from liontool.cli import render
from liontool.inspect.code import PickleCode
from liontool.inspect.code_classes import CLASSES
from liontool.inspect.findings import ERROR, NOTE, WARNING, Finding
from liontool.inspect.proof import Proof
from liontool.inspect.verify import Verification

_BAD = "red"
_STYLES = {ERROR: _BAD, WARNING: render.WARNING, NOTE: render.LABEL}
_MARKS = {ERROR: "x", WARNING: "!", NOTE: "-"}
_MOST_ALIKE = 10
_MOST_NAMES = 20


def show(found: Verification, *, strict: bool) -> None:
    """Print all of `found` for people."""
    page = render.Page()
    page.headline(_verdict(found), _style(found, strict))
    page.facts(dict(_facts(found)))
    if found.proof is not None:
        page.headline(_proof(found.proof), _proof_style(found.proof))
    for severity in (ERROR, WARNING, NOTE):
        findings = [finding for finding in found.findings if finding.severity == severity]
        if findings:
            mark, style = _MARKS[severity], _STYLES[severity]
            page.items(_sentences(findings), mark=mark, style=style)
    if found.code is not None:
        _code(page, found.code)


def _verdict(found: Verification) -> str:
    counts = ((found.count(ERROR), "error"), (found.count(WARNING), "warning"))
    words = [wording.count(number, noun) for number, noun in counts if number]
    return f"{found.path}: {', '.join(words) or 'nothing wrong'}"


def _style(found: Verification, strict: bool) -> str:
    if not found.passed(strict=strict):
        return _BAD
    return render.WARNING if found.count(WARNING) else render.GOOD


def _facts(found: Verification) -> Iterator[tuple[str, str]]:
    if found.framework is not None:
        yield "framework", found.framework
    files = wording.count(found.files, "file")
    tensors = "" if found.tensors is None else f", {wording.count(found.tensors, 'tensor')}"
    read = wording.size(found.bytes_read) if found.bytes_read else "headers only"
    yield "looked at", f"{files}{tensors}, {read}{' of values read' if found.bytes_read else ''}"


def _sentences(findings: Sequence[Finding]) -> Iterator[str]:
    """The first of each kind; with --json all."""
    shown: dict[str, int] = {}
    for finding in findings:
        shown[finding.id] = shown.get(finding.id, 0) + 1
        if shown[finding.id] <= _MOST_ALIKE:
            where = f"{finding.where}: " if finding.where else ""
            yield f"{where}{finding.text} ({finding.id})"
    for id, count in shown.items():
        if count > _MOST_ALIKE:
            yield f"and {count - _MOST_ALIKE:,} more like it ({id}), all of them with --json"


# --- proof --------------------------------------------------------------------------------------


def _proof(proof: Proof) -> str:
    """One line: what was shown, or that it was not."""
    same = f"{wording.count(len(proof.identical), 'tensor')} bit-identical"
    if proof.proved is None:
        others = ((proof.changed, "changed"), (proof.missing, "missing"), (proof.added, "new"))
        words = [f"{len(names):,} {word}" for names, word in others]
        return f"compared with {proof.against}: {same}, {', '.join(words)}"
    parts = [same, f"{proof.dropped:,} of AdamW's dropped"]
    if proof.record is not None:
        how = {"copy": "copied", "scaled": "scaled", "zeros": "zero"}[proof.record.momentum]
        ratios = ", ".join(dict.fromkeys(map(wording.value, proof.record.ratios.values())))
        parts[1:1] = [f"{proof.momenta:,} momenta {how}"]
        parts += [f"learning rates divided by {ratios}"]
    return f"{'proved' if proof.proved else 'not proved'}: {', '.join(parts)}"


def _proof_style(proof: Proof) -> str:
    if proof.proved is None:
        return render.HEADING
    return render.GOOD if proof.proved else _BAD


# --- code ---------------------------------------------------------------------------------------


def _code(page: render.Page, pickles: Sequence[PickleCode]) -> None:
    page.heading("What the pickles name")
    if not pickles:
        page.items(["there are no pickles: nothing can be run by loading"])
        return
    for pickle in pickles:
        if _place(pickle):
            page.headline(_place(pickle), render.LABEL)
        page.facts(dict(_names(pickle)) | dict(_loading(pickle)))
    page.items(["The list of dangerous names is no proof: a name that is not on it can be as bad."])


def _place(pickle: PickleCode) -> str:
    return ": ".join(word for word in (pickle.file, pickle.record) if word)


def _names(pickle: PickleCode) -> Iterator[tuple[str, str]]:
    """The names by class, those that matter most first."""
    for kind in reversed(CLASSES):
        names = [named.name for named in pickle.names if named.kind == kind]
        if names:
            more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
            yield kind, ", ".join(names[:_MOST_NAMES]) + more


def _loading(pickle: PickleCode) -> Iterator[tuple[str, str]]:
    """What torch.load would do, either way."""
    taken = "takes it" if pickle.weights_only else f"refuses: {pickle.refusal}"
    yield "weights_only=True", taken
    count = wording.count(len(pickle.foreign), "name")
    runs = f"runs code: imports {count} that are neither torch's nor numpy's"
    yield "weights_only=False", runs if pickle.runs_code else "runs no code but torch's and numpy's"
