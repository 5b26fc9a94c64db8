"""`verify OUT --against SRC`: good conversions are proved, and faults put into one are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.errors import ReadError
from liontool.inspect.verify import Verification, verify
from support.finding_files import records, torch_file, zipped
from support.proof_files import Tree, adamw, changed, converted


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return adamw(tmp_path / "adamw.ckpt")


def ids(result: Verification) -> set[str]:
    """Ids of what is wrong."""
    return {f.id for f in result.findings if f.severity == "error"}


@pytest.mark.parametrize("output", ["lion.ckpt", "lion.safetensors", "lion.pt"])
@pytest.mark.parametrize("momentum", ["copy", "scaled", "zeros"])
def test_conversions_are_proved(source: Path, momentum: str, output: str) -> None:
    """Every kind of momentum, in every kind of output."""
    result = verify(converted(source, output, momentum=momentum), against=source)
    assert result.passed()
    assert result.proof is not None
    assert result.proof.proved
    assert (result.proof.momenta, result.proof.dropped) == (4, 8)
    passed = 5 if output == "lion.ckpt" else 0  # weights and the random state
    assert len(result.proof.identical) == passed + (4 if momentum == "copy" else 0)
    assert result.proof.fields >= 8


@pytest.mark.parametrize(
    "options",
    [
        {"to": "lion-sf"},
        {"zero_stale": True},
        {"zero_stale": True, "momentum": "scaled"},
        {"package": "timm"},
        {"package": "optimi"},
        {"decay": "kept"},
        {"decay": "decoupled"},
        {"betas": (0.95, 0.98)},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_options_are_proved(source: Path, options: dict[str, Any]) -> None:
    """Whatever the conversion was told to do."""
    result = verify(converted(source, **options), against=source)
    assert result.proof is not None
    assert result.proof.proved, result.findings


def test_young_momenta_are_corrected(tmp_path: Path) -> None:
    """In the first steps the scale holds Adam's correction of bias."""
    source = adamw(tmp_path / "a.ckpt", steps=5)
    result = verify(converted(source, momentum="scaled"), against=source)
    assert result.proof is not None
    assert result.proof.proved


def test_learning_rates_that_are_tensors(tmp_path: Path) -> None:
    """They are fields of groups, not tensors that must stay."""
    source = adamw(tmp_path / "a.ckpt", seed=7)
    result = verify(converted(source), against=source)
    assert result.proof is not None
    assert result.proof.proved, result.findings


def _moment(tree: Tree) -> torch.Tensor:
    return tree["optimizer"]["state"][0]["exp_avg"]


CHANGES: dict[str, tuple[Callable[[Tree], Any], str, str]] = {
    "tensor-changed": (lambda t: t["model"]["0.weight"].mul_(2), "0.weight", "has other bytes"),
    "tensor-missing": (lambda t: t.pop("rng"), "rng", "is in the source and not here"),
    "tensor-added": (lambda t: t.update(x=torch.ones(2)), "x", "is not in the source"),
    "momentum-differs": (lambda t: _moment(t).mul_(2), "state.0.exp_avg", "not bit-identical"),
    "state-kept": (
        lambda t: t["optimizer"]["state"][0].update(exp_avg_sq=torch.ones(3, 4)),
        "state.0.exp_avg_sq",
        "state that a Lion does not have",
    ),
    "field-differs": (
        lambda t: t["optimizer"]["param_groups"][1].update(lr=1e-3),
        "group 1: lr",
        "is 0.001, must be 0.0003",
    ),
}


@pytest.mark.parametrize("id", CHANGES)
def test_faults_are_found(id: str, source: Path) -> None:
    """A change to anything that must be as it is ends the proof."""
    change, where, text = CHANGES[id]
    result = verify(changed(converted(source), change), against=source)
    assert result.proof is not None
    assert result.proof.proved is False
    (finding,) = (f for f in result.findings if f.id == id)
    assert finding.where == where
    assert text in finding.text
    assert ids(result) == {id}


FIELDS: dict[str, Callable[[Tree], Any]] = {
    "scheduler: base_lrs": lambda t: t["scheduler"].update(base_lrs=[1e-3, 1e-3]),
    "scheduler: T_max": lambda t: t["scheduler"].update(T_max=7),
    "group 0: weight_decay": lambda t: t["optimizer"]["param_groups"][0].update(weight_decay=0.1),
    "group 0: betas": lambda t: t["optimizer"]["param_groups"][0].update(betas=(0.9, 0.999)),
    "groups": lambda t: t["optimizer"]["param_groups"][0].update(params=[1, 0]),
}


@pytest.mark.parametrize("where", FIELDS)
def test_faults_of_fields_are_found(where: str, source: Path) -> None:
    """Groups and schedulers are looked at field by field."""
    result = verify(changed(converted(source), FIELDS[where]), against=source)
    assert where in [f.where for f in result.findings if f.id == "field-differs"]


@pytest.mark.parametrize(
    ("momentum", "text"),
    [("zeros", "must be zero and is not"), ("scaled", "1 elements are not 0.308")],
)
def test_faults_of_other_momenta(momentum: str, text: str, source: Path) -> None:
    """One element of a momentum that is not what it should be is enough."""
    path = changed(
        converted(source, momentum=momentum), lambda t: _moment(t).view(-1)[5:6].add_(0.5)
    )
    result = verify(path, against=source)
    assert text in next(f.text for f in result.findings if f.id == "momentum-differs")


def test_another_source(source: Path, tmp_path: Path) -> None:
    """A checkpoint of another run, or of another step, is not the source."""
    other = adamw(tmp_path / "other.ckpt", steps=61)
    result = verify(converted(source), against=other)
    assert {"other-source", "tensor-changed", "momentum-differs"} <= ids(result)


def test_no_record(source: Path, tmp_path: Path) -> None:
    """Without a record the two are only compared, and a difference is a warning."""
    same = verify(source, against=source)
    assert {f.id for f in same.findings} == {"no-record"}
    assert same.proof is not None
    assert same.proof.proved is None
    assert same.proof.same
    tree = torch.load(source)
    del tree["rng"]
    tree["model"]["0.bias"] += 1
    tree["new"] = torch.ones(1)
    result = verify(torch_file(tmp_path / "b.ckpt", tree), against=source)
    (finding,) = (f for f in result.findings if f.id == "not-the-same")
    assert finding.text == "tensors: 1 changed (0.bias), 1 missing (rng), 1 new (new)"
    assert result.passed()
    assert not result.passed(strict=True)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (b"{", "is no JSON"),
        (b'{"schema": 99}', "of a version that is not known"),
        (b'{"schema": 1, "optimizers": [{"ratio": "x"}]}', "lacks what a proof needs"),
    ],
)
def test_records_that_cannot_be_used(record: bytes, text: str, source: Path) -> None:
    """A record is read with suspicion."""
    path = converted(source)
    entries = [(n, record if n.endswith("liontool.json") else d) for n, d in records(path)]
    result = verify(zipped(path, entries), against=source)
    assert text in next(f.text for f in result.findings if f.id == "no-record")


def test_two_optimizers(tmp_path: Path) -> None:
    """One of two is converted: the other one must stay, bit for bit."""
    files = (adamw(tmp_path / "a.ckpt"), adamw(tmp_path / "b.ckpt", seed=1))
    first, second = (torch.load(path)["optimizer"] for path in files)
    source = torch_file(tmp_path / "two.ckpt", {"g": first, "d": second})
    for output in ("lion.ckpt", "lion.safetensors"):
        result = verify(converted(source, output, optimizers=("d",)), against=source)
        assert result.proof is not None
        assert result.proof.proved, result.findings
        assert result.proof.momenta == 4


def test_damaged_output(source: Path) -> None:
    """What cannot be read cannot be compared."""
    path = converted(source)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReadError, match="is damaged, so that it cannot be compared"):
        verify(path, against=source)


def test_views(tmp_path: Path, source: Path) -> None:
    """Bytes are compared as elements in order, however they lie."""
    tree = torch.load(source)
    tree["model"]["0.weight"] = tree["model"]["0.weight"].t().contiguous().t()
    path = torch_file(tmp_path / "b.ckpt", tree)
    proof = verify(path, against=source).proof
    assert proof is not None
    assert proof.same
