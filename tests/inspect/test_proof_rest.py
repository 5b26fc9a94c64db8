"""`verify OUT --against SRC`: what a conversion must leave alone, and what it must not add."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool import states
from liontool.convert import convert_checkpoint
from liontool.inspect.findings import Finding
from liontool.inspect.verify import verify
from support.proof_files import Tree, adamw, changed, converted

OWN = {
    "epoch": 4,
    "config": {"seed": 1, "names": ["a", "b"], ("x", 1): math.nan},
    "best": 0.123,
    "empty": {},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return adamw(tmp_path / "adamw.ckpt", **OWN)


def faults(path: Path, source: Path) -> list[Finding]:
    """What stands against a proof."""
    result = verify(path, against=source)
    assert result.proof is not None
    errors = [finding for finding in result.findings if finding.severity == "error"]
    assert result.proof.proved is not bool(errors)
    return errors


def group(tree: Tree, index: int = 0) -> dict[str, Any]:
    return tree["optimizer"]["param_groups"][index]


@pytest.mark.parametrize("output", ["lion.ckpt", "lion.pt", "lion.safetensors"])
@pytest.mark.parametrize("steps", [3, 60])
def test_named_parameters(steps: int, output: str, tmp_path: Path) -> None:
    """A state file goes by names, and a torch file by positions: both are proved."""
    source = adamw(tmp_path / "adamw.ckpt", named=True, steps=steps, **OWN)
    assert not faults(converted(source, output), source)
    assert not faults(converted(source, f"sf-{output}", to="lion-sf"), source)


VALUES: dict[str, tuple[Callable[[Tree], Any], str]] = {
    "epoch": (lambda t: t.update(epoch=9), "is 9, and 4 in the source"),
    "config.seed": (lambda t: t["config"].update(seed=True), "is True, and 1 in the source"),
    "config.names.1": (lambda t: t["config"]["names"].__setitem__(1, "c"), "is 'c', and 'b'"),
    "config.names": (lambda t: t["config"]["names"].append("c"), "has 3 items, 2 in the source"),
    "best": (lambda t: t.update(best=-0.123), "is -0.123, and 0.123 in the source"),
    "empty": (lambda t: t.update(empty=[]), "is a list of 0, and a dict of 0 in the source"),
    "config": (lambda t: t.pop("config"), "is in the source and not here"),
    "new": (lambda t: t.update(new={"a": 1}), "is here and not in the source"),
    "rng": (lambda t: t.update(rng=3), "is 3, and uint8["),
    "optimizer.new": (lambda t: t["optimizer"].update(new=1), "is here and not in the source"),
}  # fmt: skip


@pytest.mark.parametrize("where", VALUES)
def test_other_values(where: str, source: Path) -> None:
    """Everything outside of optimizer and scheduler is as it was."""
    change, text = VALUES[where]
    found = faults(changed(converted(source), change), source)
    assert [f.where for f in found if f.id == "value-differs"] == [where]
    assert text in next(f.text for f in found if f.id == "value-differs")


FIELDS: dict[str, tuple[Callable[[Tree], Any], str]] = {
    "group 0: nesterov": (lambda t: group(t).update(nesterov=True), "neither source nor rule"),
    "group 0: maximize": (lambda t: group(t).update(maximize=True), "is True, and neither"),
    "group 0: foreach": (lambda t: group(t).update(foreach=True), "is True, and neither"),
    "group 0: lr": (
        lambda t: group(t).update(lr=math.nextafter(group(t)["lr"], 1)),
        "must be 0.000",
    ),
    "group 1: lr": (lambda t: group(t, 1).update(lr=group(t, 1)["lr"] * (1 + 5e-7)), "must be"),
    "group 1: initial_lr": (lambda t: group(t, 1).pop("initial_lr"), "is missing, must be 0.000"),
    "group 0: weight_decay": (lambda t: group(t).update(weight_decay=0.3 + 1e-12), "must be 0.3"),
    "group 0: horizon": (lambda t: group(t).update(horizon=99.0), "must be 1"),
    "scheduler: evil": (lambda t: t["scheduler"].update(evil=1), "neither source nor rule"),
    "scheduler: eta_min": (lambda t: t["scheduler"].update(eta_min=1e-9), "must be 0"),
    "scheduler: last_epoch": (lambda t: t["scheduler"].update(last_epoch=60.0), "must be 60"),
}


@pytest.mark.parametrize("where", FIELDS)
def test_fields(where: str, source: Path) -> None:
    """Fields are compared to the last bit, and none is there that nothing explains."""
    change, text = FIELDS[where]
    found = faults(changed(converted(source), change), source)
    (fault,) = (f for f in found if f.id == "field-differs")
    assert fault.where == where
    assert text in fault.text


HELD = {"T_max": 7, "eta_min": 0.1, "base_lrs": [1e-3, 1e-3], "evil": 1}


@pytest.mark.parametrize("name", HELD)
def test_fields_of_lion_sf(name: str, source: Path) -> None:
    """A schedule held constant is compared too."""
    path = converted(source, to="lion-sf")
    found = faults(changed(path, lambda t: t["scheduler"].update({name: HELD[name]})), source)
    assert f"scheduler: {name}" in [f.where for f in found]


def test_rates_in_tensors(tmp_path: Path) -> None:
    """A rate in single precision is rounded as such, and no further."""
    source = adamw(tmp_path / "a.ckpt", seed=7)
    path = converted(source)
    assert not faults(path, source)
    up = torch.tensor(1.0)
    change = changed(path, lambda t: group(t)["lr"].copy_(torch.nextafter(group(t)["lr"], up)))
    assert [f.where for f in faults(change, source)] == ["group 0: lr"]


def test_maximize_and_foreach(tmp_path: Path) -> None:
    """They are kept where the Lion reads them, and gone where it does not."""
    source = adamw(tmp_path / "a.ckpt")
    tree = torch.load(source)
    for one in tree["optimizer"]["param_groups"]:
        one.update(maximize=True, foreach=True)
    torch.save(tree, source)
    path = converted(source)
    assert not faults(path, source)
    found = faults(changed(path, lambda t: group(t).update(maximize=False)), source)
    assert [f.where for f in found] == ["group 0: maximize"]
    found = faults(changed(path, lambda t: group(t).update(foreach=True)), source)
    assert "group 0: foreach" in [f.where for f in found]


@pytest.mark.parametrize("step", [60.0, 61.0])
@pytest.mark.parametrize("wanted", [False, True])
def test_steps(wanted: bool, step: float, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is kept for a Lion that wants one, as it was; for others it must be gone."""
    lion = replace(states.LIONS["liontool"], wants_step=wanted)
    monkeypatch.setitem(states.LIONS, "liontool", lion)  # type: ignore[arg-type]
    path = converted(source)
    assert not faults(path, source)
    changed(path, lambda t: t["optimizer"]["state"][0].update(step=torch.tensor(step)))
    expected = [] if wanted and step == 60 else ["state-kept"]
    assert [f.id for f in faults(path, source)] == expected


def test_state_that_is_no_tensor(source: Path) -> None:
    """Plain values in a parameter's state, and state of a parameter that is not there."""
    path = converted(source)
    state: Callable[[Tree], Any] = lambda t: t["optimizer"]["state"]  # noqa: E731
    found = faults(changed(path, lambda t: state(t)[0].update(step=60)), source)
    assert [(f.id, f.where) for f in found] == [("state-kept", "state.0.step")]
    path = changed(path, lambda t: (state(t)[0].pop("step"), state(t).update({9: {}})))
    found = faults(path, source)
    assert ("state-kept", "state.9") in [(f.id, f.where) for f in found]


def test_state_alone(source: Path) -> None:
    """A file of nothing but the state has no room for anything else."""
    path = converted(source, "lion.pt")
    found = faults(changed(path, lambda t: t.update(new=1)), source)
    assert [(f.id, f.where) for f in found] == [("value-differs", "new")]


def test_corrections(source: Path) -> None:
    """What optimi keeps beside its momentum begins at zero; no other Lion has it."""
    path = converted(source, package="optimi")
    assert not faults(path, source)
    slot: Callable[[Tree], Any] = lambda t: t["optimizer"]["state"][0]  # noqa: E731
    found = faults(changed(path, lambda t: slot(t)["kahan_comp"].add_(1)), source)
    assert "is a correction that is not zero" in found[0].text
    path = converted(source, "timm.ckpt", package="timm")
    found = faults(changed(path, lambda t: slot(t).update(kahan_comp=torch.zeros(1))), source)
    assert [f.id for f in found] == ["tensor-added"]


def test_graphs_with_cycles(tmp_path: Path) -> None:
    """What contains itself, and lists that share lists, are walked once."""
    loop: list[Any] = [1]
    loop.append(loop)
    wide: list[Any] = [0]
    for _ in range(60):
        wide = [wide, wide]
    source = adamw(tmp_path / "a.ckpt", loop=loop, wide=wide)
    path = converted(source)
    assert not faults(path, source)
    found = faults(changed(path, lambda t: t["loop"].__setitem__(0, 2)), source)
    assert [(f.id, f.where) for f in found] == [("value-differs", "loop.0")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of the Trainer, with what it writes beside the optimizer."""
    home = tmp_path / "checkpoint-60"
    home.mkdir()
    tree = torch.load(adamw(tmp_path / "a.ckpt"))
    torch.save(tree["optimizer"], home / "optimizer.pt")
    torch.save(tree["scheduler"], home / "scheduler.pt")
    torch.save({"cpu": tree["rng"], "python": (3, (1, 2), None)}, home / "rng_state.pth")
    torch.save(tree["model"], home / "pytorch_model.bin")
    (home / "trainer_state.json").write_text(json.dumps({"global_step": 60, "max_steps": 500}))
    (home / "config.json").write_text("{}")
    return home


def _other_python(home: Path) -> None:
    tree = torch.load(home / "rng_state.pth")
    torch.save({**tree, "python": (3, (1, 3), None)}, home / "rng_state.pth")


FILES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "step": (
        lambda home: (home / "trainer_state.json").write_text('{"global_step": 9}'),
        "trainer_state.json",
        "has other bytes than the source's, from byte 16 on",
    ),
    "more": (
        lambda home: (home / "config.json").write_text("{} "),
        "config.json",
        "has other bytes than the source's, from byte 2 on",
    ),
    "gone": (
        lambda home: (home / "config.json").unlink(),
        "config.json",
        "is in the source and not here",
    ),
    "new": (
        lambda home: (home / "new.txt").write_text("x"),
        "new.txt",
        "is here and not in the source",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_a_folder(kind: str, folder: Path) -> None:
    """Files that the rule does not touch are the source's, byte by byte."""
    output = folder.with_name("lion-checkpoint-60")
    convert_checkpoint(folder, lr_ratio=3, output=output)
    assert not faults(output, folder)
    change, where, text = FILES[kind]
    change(output)
    (fault,) = faults(output, folder)
    assert (fault.id, fault.where, fault.text) == ("file-differs", where, text)


def test_values_in_files_of_a_folder(folder: Path) -> None:
    """What is no tensor in a file with tensors is compared as values."""
    output = folder.with_name("lion-checkpoint-60")
    convert_checkpoint(folder, lr_ratio=3, output=output)
    _other_python(output)
    (fault,) = faults(output, folder)
    assert (fault.id, fault.where) == ("value-differs", "rng_state.pth: python.1.1")


def test_file_for_a_folder(folder: Path, tmp_path: Path) -> None:
    """The optimizer's state alone, made of a folder, is proved; a folder for a file is not."""
    assert not faults(converted(folder, "lion.safetensors"), folder)
    assert not faults(converted(folder, "lion.pt"), folder)
    output = folder.with_name("lion-checkpoint-60")
    convert_checkpoint(folder, lr_ratio=3, output=output)
    other = tmp_path / "b.ckpt"
    torch.save({"optimizer.pt": torch.load(tmp_path / "a.ckpt")["optimizer"]}, other)
    found = faults(output, other)
    assert "one is a file and the other is a folder" in [f.text for f in found]


def test_metadata(folder: Path) -> None:
    """The metadata of a safetensors file beside the optimizer is compared too."""
    model = folder / "model.safetensors"
    entries = '"w": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}'
    header = f'{{"__metadata__": {{"format": "pt"}}, {entries}}}'.encode()
    model.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    output = folder.with_name("lion-checkpoint-60")
    convert_checkpoint(folder, lr_ratio=3, output=output)
    assert not faults(output, folder)
    copy = output / model.name
    copy.write_bytes(copy.read_bytes().replace(b'"pt"', b'"tf"'))
    (fault,) = faults(output, folder)
    assert (fault.id, fault.where) == ("value-differs", "model.safetensors: metadata format")


def test_schedulers_of_no_known_optimizer(source: Path, tmp_path: Path) -> None:
    """One that may drive either of two optimizers is divided like both."""
    tree = torch.load(source)
    both = {"g": tree["optimizer"], "d": torch.load(source)["optimizer"]}
    path = tmp_path / "two.ckpt"
    torch.save({**both, "scheduler": tree["scheduler"]}, path)
    output = converted(path, "lions.ckpt")
    assert not faults(output, path)
    forged = changed(output, lambda t: t["scheduler"].update(T_max=7))
    assert [f.where for f in faults(forged, path)] == ["scheduler: T_max"]


def test_names_that_stand_twice(tmp_path: Path) -> None:
    """A state file goes by positions where two parameters have one name."""
    source = adamw(tmp_path / "adamw.ckpt", named=True)
    tree = torch.load(source)
    for one in tree["optimizer"]["param_groups"]:
        one["param_names"] = ["weight", "bias"]
    torch.save(tree, source)
    assert not faults(converted(source, "lion.safetensors"), source)


@pytest.mark.parametrize("package", ["liontool", "optimi", "lion-pytorch"])
def test_decay_without_the_rate(package: str, tmp_path: Path) -> None:
    """Each group's decay is relative to its own highest rate where groups can have one."""
    source = adamw(tmp_path / "adamw.ckpt")
    tree = torch.load(source)
    group(tree, 1).update(lr=1e-4, initial_lr=2e-4, weight_decay=0.05)
    torch.save(tree, source)
    path = converted(source, package=package, decay="decoupled")
    assert not faults(path, source)
    decay = group(torch.load(path), 1)["weight_decay"]
    assert decay == pytest.approx(0.05 * (1e-3 if package == "lion-pytorch" else 2e-4))


def test_moments_of_half_precision(tmp_path: Path) -> None:
    """optimi's Lion wants to be told to sum them up with care."""
    source = adamw(tmp_path / "adamw.ckpt")
    tree = torch.load(source)
    for state in tree["optimizer"]["state"].values():
        state.update({key: state[key].bfloat16() for key in ("exp_avg", "exp_avg_sq")})
    torch.save(tree, source)
    path = converted(source, package="optimi")
    assert not faults(path, source)
    found = faults(changed(path, lambda t: group(t).update(kahan_sum=None)), source)
    assert [f.where for f in found] == ["group 0: kahan_sum"]
