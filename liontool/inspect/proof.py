"""A checkpoint against another one: what is bit-identical, and what a conversion did to the rest.

The rule is not run again. What must hold after it is looked up in the source, tensor by tensor and
field by field, so that a fault in the rule or in the writing shows here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from liontool.checkpoint.document import TensorRef, Value, tensors
from liontool.checkpoint.header_hash import checkpoint_sha256
from liontool.checkpoint.learning_rates import walk
from liontool.checkpoint.model import Checkpoint, Optimizer, Scheduler, Slot
from liontool.inspect.bytewise import identical, is_zero
from liontool.inspect.checksums import Advance
from liontool.inspect.equality import differences
from liontool.inspect.findings import ERROR, Finding
from liontool.inspect.listing import STATE, Item, listed
from liontool.inspect.opening import Opened
from liontool.inspect.places import short
from liontool.inspect.proof_fields import Pair, field_faults
from liontool.inspect.proof_momentum import Momentum, momentum_fault
from liontool.inspect.proof_rest import Elsewhere, is_state_alone, rest, rewritten_places
from liontool.inspect.record import Record, record_of
from liontool.states import CORRECTIONS, LIONS, MOMENT

_SHOWN = 5


@dataclass
class Proof:
    """What a comparison came to.

    Attributes:
        against: The other checkpoint.
        record: What the conversion says of itself; None where there is no record.
        identical: Names of tensors that are bit-identical in both.
        changed: Names of tensors that are in both and differ.
        missing: Names of tensors that only the other one has.
        added: Names of tensors that only this one has.
        momenta: How many momenta are what the rule makes of the source's.
        dropped: How many tensors of the source's optimizer are gone, as the rule wants it.
        fields: How many fields of groups and schedulers are what the rule makes of the source's.
        findings: What is not as it must be.
    """

    against: str
    record: Record | None = None
    identical: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    momenta: int = 0
    dropped: int = 0
    fields: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def proved(self) -> bool | None:
        """Whether the conversion did what its record says; None without a record."""
        if self.record is None:
            return None
        return not any(finding.severity == ERROR for finding in self.findings)

    @property
    def same(self) -> bool:
        """Whether both have the same tensors."""
        return not (self.changed or self.missing or self.added)

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, without the findings."""
        lists = {name: getattr(self, name) for name in ("identical", "changed", "missing", "added")}
        counts = {name: getattr(self, name) for name in ("momenta", "dropped", "fields")}
        record = None if self.record is None else vars(self.record)
        return {"against": self.against, "record": record, "proved": self.proved} | lists | counts


def prove(ours: Opened, theirs: Opened, advance: Advance) -> Proof:
    """Compare a checkpoint with another one.

    Args:
        ours: The checkpoint that is verified.
        theirs: The source of its conversion, or anything else.
        advance: Called with the bytes of each block.
    """
    proof = Proof(str(theirs.source.path))
    proof.record, reason = record_of(ours.source)
    pair = _Pair(ours, theirs, proof, advance)
    if proof.record is None or ours.checkpoint is None or theirs.checkpoint is None:
        proof.record = None
        reason = reason or "one of the two has no optimizer"
        proof.findings.append(Finding("no-record", "", f"{reason}: the two are only compared"))
        pair.compare()
    else:
        pair.prove(proof.record, ours.checkpoint, theirs.checkpoint)
    return proof


class _Pair:
    """Two checkpoints and what was found so far."""

    def __init__(self, ours: Opened, theirs: Opened, proof: Proof, advance: Advance) -> None:
        self.ours = ours
        self.theirs = theirs
        self.proof = proof
        self.advance = advance
        self.told: set[int] = set()
        self.prefix = _prefix(ours.checkpoint, theirs.checkpoint, proof.record)
        self.left = _by_name(listed(ours), self.prefix)
        self.right = _by_name(listed(theirs))

    def add(self, kind: str, where: str, text: str) -> None:
        self.proof.findings.append(Finding(kind, short(where), text))

    def compare(self) -> None:
        """Tensors by name, nothing else."""
        proof = self.proof
        for name, item in self.right.items():
            if name not in self.left:
                proof.missing.append(name)
            else:
                self._same(name, item)
        proof.added += [name for name in self.left if name not in self.right]
        if not proof.same:
            lists = {"changed": proof.changed, "missing": proof.missing, "new": proof.added}
            words = (
                f"{len(names):,} {word}{_first(names)}" for word, names in lists.items() if names
            )
            self.add("not-the-same", "", f"tensors: {', '.join(words)}")

    def _same(self, name: str, item: Item) -> bool:
        same = identical(self.left[name].tensor, item.tensor, self.advance)
        (self.proof.identical if same else self.proof.changed).append(name)
        return same

    def prove(self, record: Record, ours: Checkpoint, theirs: Checkpoint) -> None:
        """Everything that the record promises."""
        pairs = _converted(record, ours, theirs)
        if pairs is None:
            self.add("other-source", "", "the optimizers of the record are not in the source")
            return
        before = [pair.before for pair in pairs]
        self._check_source(record, theirs, before)
        self._rename(pairs)
        self._tensors(pairs, record)
        loose = ours.loose_schedulers
        self._added((t for pair in pairs for t in _tensors_of_fields(pair.after, loose)), record)
        for pair in pairs:
            self._slots(pair, record)
        if is_state_alone(self.ours, self.theirs) and ours.framework != "liontool-state":
            # A state dict has no place for schedulers.
            pairs = [replace(p, before=replace(p.before, schedulers=())) for p in pairs]
            theirs = replace(theirs, loose_schedulers=())
        self._classes(pairs, record)
        faults, self.proof.fields = field_faults(pairs, ours, theirs, record)
        for fault in faults:
            self.add("field-differs", fault.where, fault.text)
        elsewhere = Elsewhere(tuple(rewritten_places(theirs, before)), self.told)
        self.proof.findings += rest(self.ours, self.theirs, elsewhere, self.advance)

    def _classes(self, pairs: Sequence[Pair], record: Record) -> None:
        """Where the source tells an optimizer's class, the result tells that which loads it."""
        wanted = LIONS[record.package].classes.get(record.rule.removeprefix("adamw to "))
        for pair in pairs:
            told = pair.after.class_name
            if (
                pair.before.class_name
                and told != wanted
                and not is_state_alone(self.ours, self.theirs)
            ):
                text = f"the class is {short(told) or 'not told'}, and must be {wanted}"
                self.add("field-differs", pair.after.label, text)

    def _rename(self, pairs: Sequence[Pair]) -> None:
        """Call the source's state as a state file does: by positions where two names are one."""
        names = {
            id(tensor): f"{self.prefix}state.{labels[key]}.{field}"
            for pair, labels in ((pair, pair.labels()) for pair in pairs if pair.as_json)
            for key, slot in pair.before.slots.items()
            for field, tensor in slot.tensors()
        }
        items = self.right.items()
        self.right = {names.get(id(item.tensor), name): item for name, item in items}

    def _tensors(self, pairs: Sequence[Pair], record: Record) -> None:
        """Each tensor of the source: converted, gone, or as it was."""
        loose = () if self.theirs.checkpoint is None else self.theirs.checkpoint.loose_schedulers
        changed = {id(t) for pair in pairs for t in _tensors_of_fields(pair.before, loose)}
        slots = {
            id(tensor): (pair.before, slot)
            for pair in pairs
            for slot in pair.before.slots.values()
            for _, tensor in slot.tensors()
        }
        alone = is_state_alone(self.ours, self.theirs)
        for name, item in self.right.items():
            if id(item.tensor) in slots:
                before, slot = slots[id(item.tensor)]
                self._state(name, item, record, before, slot)
            elif id(item.tensor) not in changed and not alone:
                self._passthrough(name, item)

    def _slots(self, pair: Pair, record: Record) -> None:
        """State that is no tensor, and parameters that only one of the two has."""
        labels = pair.labels()
        before = {labels[key]: slot for key, slot in pair.before.slots.items()}
        for key, slot in pair.after.slots.items():
            where = f"state.{slot.label}"
            if key not in before:
                self.add("state-kept", where, "is of no parameter of the source's state")
                continue
            old = before[key].state
            for name, value in slot.state.items():
                known = name in _kept(record) and name in old
                if isinstance(value, TensorRef) or (
                    known and next(differences(value, old[name]), None) is None
                ):
                    continue
                self.add("state-kept", f"{where}.{name}", "is state that the rule does not make")

    def _check_source(self, record: Record, theirs: Checkpoint, before: list[Optimizer]) -> None:
        """The record knows the source by the hash of all that is no tensor."""
        chosen = replace(theirs, optimizers=tuple(before))
        if checkpoint_sha256(self.theirs.source, chosen) != record.header_sha256:
            text = f"was made from {short(record.source)}, whose header was another one"
            self.add("other-source", "", f"{text} than that of {self.proof.against}")

    def _passthrough(self, name: str, item: Item) -> None:
        if name not in self.left:
            self.proof.missing.append(name)
            self.told.add(id(item.tensor))
            self.add("tensor-missing", name, "is in the source and not here")
        elif not self._same(name, item):
            self.add("tensor-changed", name, "has other bytes, or another shape, than the source's")

    def _state(self, name: str, item: Item, record: Record, before: Optimizer, slot: Slot) -> None:
        """A tensor of the source's optimizer: the momentum is made of one, all others go."""
        here = self.left.get(name)
        if item.field == MOMENT:
            self._momentum(name, item, here, record, before, slot)
        elif here is None:
            self.proof.dropped += 1
        elif item.field not in _kept(record) or not self._same(name, item):
            self.add("state-kept", name, "is state that a Lion does not have")

    def _momentum(
        self,
        name: str,
        item: Item,
        here: Item | None,
        record: Record,
        before: Optimizer,
        slot: Slot,
    ) -> None:
        if here is None:
            self.proof.missing.append(name)
            self.add("tensor-missing", name, "the momentum is not here")
            return
        groups = {key: group for group in before.groups for key in group.params}
        fields = groups[slot.key].fields if slot.key in groups else {}
        pair = Momentum(here.tensor, item.tensor, slot, fields)
        fault = momentum_fault(pair, record, self.advance)
        if fault:
            self.add("momentum-differs", name, fault)
            return
        self.proof.momenta += 1
        if record.momentum == "copy" and not record.zero_stale:
            self.proof.identical.append(name)
        else:
            self.proof.changed.append(name)

    def _added(self, fields: Iterable[TensorRef], record: Record) -> None:
        """Tensors that only the result has: corrections are the one kind that a rule adds."""
        known = set(map(id, fields))
        corrected = LIONS[record.package].kahan
        for name, item in self.left.items():
            if name in self.right or id(item.tensor) in known:
                continue
            self.proof.added.append(name)
            self.told.add(id(item.tensor))
            if not corrected or item.field not in CORRECTIONS:
                self.add("tensor-added", name, "is not in the source")
            elif not is_zero(item.tensor, self.advance):
                self.add("tensor-added", name, "is a correction that is not zero")


def _kept(record: Record) -> frozenset[str]:
    """State that a Lion of the package has of the AdamW's."""
    return frozenset({MOMENT, "step"} if LIONS[record.package].wants_step else {MOMENT})


def _first(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f" ({', '.join(map(short, names[:_SHOWN]))}{more})"


def _by_name(items: Sequence[Item], prefix: str = "") -> dict[str, Item]:
    """Items by what they are called in both; by their label where two have one name."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.name] = counts.get(item.name, 0) + 1
    found: dict[str, Item] = {}
    for item in items:
        name = item.name if counts[item.name] == 1 else item.label
        found[f"{prefix}{name}" if item.role == STATE else name] = item
    return found


def _prefix(ours: Checkpoint | None, theirs: Checkpoint | None, record: Record | None) -> str:
    """What a state file of one optimizer lacks where the source tells several apart."""
    if ours is None or theirs is None or record is None or len(theirs.optimizers) < 2:
        return ""
    one = len(ours.optimizers) == len(record.ratios) == 1
    return f"{next(iter(record.ratios))}." if one else ""


def _converted(record: Record, ours: Checkpoint, theirs: Checkpoint) -> list[Pair] | None:
    """Each optimizer that was converted; None if one is not there."""
    before = {optimizer.label: optimizer for optimizer in theirs.optimizers}
    after = {optimizer.label: optimizer for optimizer in ours.optimizers}
    as_json = ours.framework == "liontool-state"
    found: list[Pair] = []
    for label, ratio in record.ratios.items():
        only = len(ours.optimizers) == len(record.ratios) == 1
        result = ours.optimizers[0] if only else after.get(label)
        if label not in before or result is None:
            return None
        found.append(Pair(result, before[label], ratio, as_json))
    return found


def _tensors_of_fields(optimizer: Optimizer, loose: Sequence[Scheduler]) -> Iterator[TensorRef]:
    """Tensors among hyperparameters and scheduler fields: learning rates on a GPU."""
    holders: list[Mapping[str, Value]] = [group.fields for group in optimizer.groups]
    holders += [scheduler.fields for scheduler in walk([*optimizer.schedulers, *loose])]
    for holder in holders:
        yield from (tensor for value in holder.values() for _, tensor in tensors(value))
