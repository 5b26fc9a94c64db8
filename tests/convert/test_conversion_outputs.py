"""Where a conversion writes and what: whole checkpoints, state dicts, safetensors, records."""

from __future__ import annotations

import json
import os
import zipfile

import lion_pytorch
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import liontool
from liontool import convert_checkpoint, load_optimizer, read_checkpoint
from liontool.checkpoint.header_hash import header_sha256
from liontool.checkpoint.source import open_source
from liontool.errors import (
    AmbiguousError,
    LayoutError,
    OutputExistsError,
    PublishError,
    RefusedError,
)
from liontool.measure.seed_scale import kappa
from liontool.optim import Lion
from support.plain_runs import (
    LR,
    RATIO,
    SCHEDULERS,
    adamw,
    bits,
    load,
    network,
    resume,
    save,
    train,
)


@pytest.fixture
def run():
    """A model and its AdamW."""
    return adamw()


@pytest.fixture
def source(run, tmp_path):
    """A checkpoint of the run."""
    model, optimizer = run
    value = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return save(value, tmp_path / "adamw.pt")


@pytest.fixture
def named(tmp_path):
    """A model, and a checkpoint of it with the names of the parameters and a scheduler."""
    model = network()
    groups = [
        {"params": list(model[0].named_parameters())},
        {"params": [*model[1:].named_parameters(prefix="tail")], "weight_decay": 0.0, "tag": "b"},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    scheduler = SCHEDULERS.MultiStepLR(optimizer, [10, 50], gamma=0.5)
    train(model, optimizer, 30, scheduler)
    value = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    return model, optimizer, save(value, tmp_path / "named.ckpt")


def momenta(optimizer):
    return [bits(state["exp_avg"]) for state in optimizer.state.values()]


# --- names --------------------------------------------------------------------------------------


def test_beside_the_source(source):
    """Without -o the result lies beside the source, in its container."""
    assert convert_checkpoint(source, lr_ratio=RATIO).output == str(
        source.with_name("adamw.lion.pt")
    )


def test_same_suffix_is_the_whole_checkpoint(source, tmp_path):
    """The source's suffix, in whatever case, keeps everything."""
    report = convert_checkpoint(source, lr_ratio=RATIO, output=tmp_path / "new.PT")
    assert load(report.output).keys() == {"model", "optimizer"}
    assert not report.notices


@pytest.mark.parametrize("name", ["state.ckpt", "state.pth", "state.bin"])
def test_other_torch_suffix_is_the_state(run, source, tmp_path, name):
    """Another torch suffix is a state dict alone, for both Lions to load."""
    report = convert_checkpoint(source, lr_ratio=RATIO, output=tmp_path / name)
    found = load(report.output)
    assert found.keys() == {"state", "param_groups"}
    assert [notice.id for notice in report.notices] == ["state-only"]
    assert "weights are not in it" in report.notices[0].text
    for lion in (Lion, lion_pytorch.Lion):
        resume(found, run[0].parameters(), lion)
    live = Lion(run[0].parameters())
    load_optimizer(report.output, live)
    assert momenta(live) == momenta(run[1])
    with zipfile.ZipFile(report.output) as file:
        assert file.testzip() is None
        assert json.loads(file.read("archive/liontool.json"))["rule"] == "adamw to lion"


@pytest.mark.parametrize("name", ["state.json", "state", "state.tar.gz"])
def test_suffix_that_nothing_writes(source, tmp_path, name):
    """A suffix that says nothing is an error that names those that do."""
    with pytest.raises(PublishError, match=r"end it in '\.pt' for the whole.*or in \.safetensors"):
        convert_checkpoint(source, lr_ratio=RATIO, output=tmp_path / name)


def test_source_without_a_suffix(run, tmp_path):
    """A file without a suffix gives one without."""
    path = save(run[1].state_dict(), tmp_path / "checkpoint")
    assert convert_checkpoint(path, lr_ratio=RATIO).output == str(tmp_path / "checkpoint.lion")


@pytest.fixture
def folder(run, tmp_path):
    """A folder as the Trainer writes it."""
    folder = tmp_path / "checkpoint-30"
    (folder / "logs").mkdir(parents=True)
    scheduler = SCHEDULERS.LambdaLR(run[1], lambda step: 1.0)
    save(run[1].state_dict(), folder / "optimizer.pt")
    save(scheduler.state_dict(), folder / "scheduler.pt")
    (folder / "trainer_state.json").write_text('{"global_step": 30}')
    (folder / "logs" / "log").write_text("line")
    (folder / "last").symlink_to("logs/log")
    return folder


def test_folder(folder, tmp_path):
    """A folder gives a folder: its files, folders and links, and the record."""
    report = convert_checkpoint(folder, lr_ratio=RATIO)
    output = tmp_path / "lion-checkpoint-30"
    assert (report.output, report.container) == (str(output), "folder")
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    found = {str(path.relative_to(output)) for path in output.rglob("*")}
    assert found == names | {"liontool.json"}
    assert (output / "last").is_symlink()
    assert json.loads((output / "liontool.json").read_text()) == report.to_dict()["provenance"]
    assert load(output / "optimizer.pt")["param_groups"][0]["lr"] == LR / RATIO
    assert load(output / "scheduler.pt")["base_lrs"] == [LR / RATIO]


@pytest.mark.parametrize("name", [".", "logs/..", "../checkpoint-30/"])
def test_folder_by_a_name_that_is_none(folder, tmp_path, monkeypatch, name):
    """A source such as "." has a name all the same."""
    monkeypatch.chdir(folder)
    report = convert_checkpoint(name, lr_ratio=RATIO, dry_run=True)
    assert os.path.realpath(report.output) == str(tmp_path / "lion-checkpoint-30")


def test_folders_of_others_are_not_replaced(folder, tmp_path):
    """`--force` replaces a folder that liontool wrote and no other; a dry run says so too."""
    other = tmp_path / "runs"
    other.mkdir()
    (other / "precious").write_text("years of work")
    options = {"lr_ratio": RATIO, "output": other, "force": True}
    with pytest.raises(OutputExistsError, match="folder that liontool did not write"):
        convert_checkpoint(folder, **options)
    notices = convert_checkpoint(folder, **options, dry_run=True).notices
    assert "output-refused" in [notice.id for notice in notices]
    assert (other / "precious").read_text() == "years of work"
    (other / "liontool.json").write_text("{}")
    convert_checkpoint(folder, **options)
    assert not (other / "precious").exists()


def test_scheduler_that_is_elsewhere(run, tmp_path):
    """The optimizer alone shows that a scheduler drives it, and what must be done to that."""
    SCHEDULERS.LambdaLR(run[1], lambda step: 1.0)
    path = save(run[1].state_dict(), tmp_path / "optimizer.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO)
    (text,) = (notice.text for notice in report.notices if notice.id == "absent-scheduler")
    assert f"divide every learning rate that it keeps by {RATIO:g}" in text
    held = convert_checkpoint(path, lr_ratio=RATIO, to="lion-sf", force=True)
    assert "absent-scheduler" not in [notice.id for notice in held.notices]


def test_state_alone_says_what_is_missing(folder, tmp_path):
    """Neither weights nor a scheduler's state come with it."""
    report = convert_checkpoint(folder, lr_ratio=RATIO, output=tmp_path / "state.pt")
    (text,) = (notice.text for notice in report.notices if notice.id == "state-only")
    assert "weights are not in it" in text
    assert f"build it with every learning rate divided by {RATIO:g}" in text


def test_provenance_hashes_the_header(folder):
    """The hash is of the files that groups and schedulers are in, and of no tensor."""
    report = convert_checkpoint(folder, lr_ratio=RATIO)
    source = open_source(folder)
    documents = [source.document(name) for name in ("optimizer.pt", "scheduler.pt")]
    assert report.provenance["source_header_sha256"] == header_sha256(documents)


def test_folder_that_fails(run, folder, tmp_path):
    """What is refused in the middle of a folder leaves nothing of it."""
    state = run[1].state_dict()
    state["state"][3]["exp_avg"][0] = float("inf")
    save(state, folder / "optimizer.pt")
    with pytest.raises(RefusedError, match="1 non-finite values"):
        convert_checkpoint(folder, lr_ratio=RATIO)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-30"]


def test_folder_into_itself(folder):
    """An output inside the source would be part of it."""
    with pytest.raises(PublishError, match="lies inside the source"):
        convert_checkpoint(folder, lr_ratio=RATIO, output=folder / "lion", force=True)
    with pytest.raises(PublishError, match="is the source itself"):
        convert_checkpoint(folder, lr_ratio=RATIO, output=folder / ".", force=True)


@pytest.mark.parametrize("name", ["state.safetensors", "state.pt"])
def test_state_of_a_folder(run, folder, tmp_path, name):
    """The state alone can be taken from a folder too."""
    report = convert_checkpoint(folder, lr_ratio=RATIO, output=tmp_path / name)
    live = Lion(run[0].parameters())
    load_optimizer(report.output, live)
    assert momenta(live) == momenta(run[1])


# --- safetensors --------------------------------------------------------------------------------


def test_safetensors_with_names(named, tmp_path):
    """Tensors are named by their parameters; groups, schedulers and provenance are JSON."""
    _, optimizer, path = named
    output = tmp_path / "state.safetensors"
    report = convert_checkpoint(path, lr_ratio=RATIO, output=output)
    with safe_open(output, "pt") as file:
        meta = file.metadata()
    tensors = load_file(output)
    names = ["weight", "bias", "tail.1.weight", "tail.1.bias", "tail.2.weight", "tail.2.bias"]
    assert set(tensors) == {f"state.{name}.exp_avg" for name in names}
    for name, state in zip(names, optimizer.state.values(), strict=True):
        assert bits(tensors[f"state.{name}.exp_avg"]) == bits(state["exp_avg"])
    assert (meta["format"], meta["liontool.schema"]) == ("pt", "1")
    assert meta["liontool.optimizer"] == f"liontool.optim.Lion {liontool.__version__}"
    groups = json.loads(meta["liontool.param_groups"])
    assert [group["params"] for group in groups] == [names[:2], names[2:]]
    assert (groups[1]["tag"], groups[1]["lr"], groups[1]["betas"]) == (
        "b",
        LR / 2 / RATIO,
        [0.9, 0.99],
    )
    assert "param_names" not in groups[0]
    scheduler = json.loads(meta["liontool.lr_scheduler"])[0]
    assert scheduler["base_lrs"] == [LR / RATIO, LR / RATIO]
    assert scheduler["milestones"] == {"10": 1, "50": 1}
    assert json.loads(meta["liontool.provenance"]) == report.to_dict()["provenance"]


@pytest.mark.parametrize("lion", [Lion, lion_pytorch.Lion], ids=["liontool", "lion-pytorch"])
def test_safetensors_loaded(named, tmp_path, lion):
    """`load_optimizer` brings it into either Lion, by name and in any order of parameters."""
    model, optimizer, path = named
    output = tmp_path / "state.safetensors"
    convert_checkpoint(path, lr_ratio=RATIO, output=output)
    holder = nn.Module()
    holder.weight, holder.bias, holder.tail = model[0].weight, model[0].bias, model[1:]
    live = lion(
        [
            {"params": list(model[1:].parameters())[::-1]},
            {"params": [model[0].weight, model[0].bias]},
        ]
    )
    load_optimizer(output, live, holder)
    assert [group["weight_decay"] for group in live.param_groups] == [0.0, 0.01 * RATIO]
    for param in model.parameters():
        assert bits(live.state[param]["exp_avg"]) == bits(optimizer.state[param]["exp_avg"])
        param.grad = torch.ones_like(param)
    live.step()


def test_safetensors_without_names(run, source, tmp_path):
    """Positions stand in for names; the file is found and read as what it is."""
    output = tmp_path / "state.safetensors"
    convert_checkpoint(source, lr_ratio=RATIO, output=output)
    checkpoint = read_checkpoint(output)
    assert (checkpoint.framework, checkpoint.step) == ("liontool-state", 30)
    assert list(checkpoint.optimizers[0].slots) == [0, 1, 2, 3, 4, 5]
    live = Lion(run[0].parameters())
    load_optimizer(output, live, run[0])
    assert momenta(live) == momenta(run[1])
    assert live.param_groups[0]["horizon"] == pytest.approx(10)


def test_safetensors_with_names_that_stand_twice(tmp_path):
    """Names that two parameters share are given up for positions; no tensor is lost."""
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": list(layer.named_parameters())} for layer in layers]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    for layer in layers:
        for param in layer.parameters():
            param.grad = torch.randn_like(param)
    optimizer.step()
    path = save(optimizer.state_dict(), tmp_path / "adamw.pt")
    output = tmp_path / "state.safetensors"
    convert_checkpoint(path, lr_ratio=RATIO, output=output)
    live = Lion([{"params": list(layer.parameters())} for layer in layers])
    load_optimizer(output, live)
    assert momenta(live) == momenta(optimizer)


def test_safetensors_cannot_keep_everything(run, tmp_path):
    """A key of a group that JSON cannot hold is an error, not a guess."""
    for value in (b"x", 1j, {1: 2}, torch.ones(2), torch.float32):
        state = run[1].state_dict()
        state["param_groups"][0]["mine"] = value
        path = save(state, tmp_path / "adamw.pt")
        with pytest.raises(LayoutError, match=r"group 0: 'mine' holds .*safetensors file cannot"):
            convert_checkpoint(path, lr_ratio=RATIO, output=tmp_path / "state.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["adamw.pt"]


def test_state_dict_cannot_keep_an_object(run, tmp_path):
    """An object in a group is an error where a new torch file is made."""
    state = run[1].state_dict()
    state["param_groups"][0]["mine"] = torch.float32
    path = save(state, tmp_path / "adamw.pt")
    with pytest.raises(LayoutError, match="cannot be written into another file"):
        convert_checkpoint(path, lr_ratio=RATIO, output=tmp_path / "state.bin")


def test_state_dict_keeps_tensors_of_groups(run, tmp_path):
    """Tensors in groups stay tensors in a state dict."""
    state = run[1].state_dict()
    state["param_groups"][0].update(lr=torch.tensor(LR), mine=[torch.ones(2), (1, {"a": b"x"})])
    path = save(state, tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO, output=tmp_path / "state.bin")
    group = load(report.output)["param_groups"][0]
    assert torch.equal(group["lr"], torch.tensor(LR / RATIO))
    assert torch.equal(group["mine"][0], torch.ones(2))
    assert group["mine"][1] == (1, {"a": b"x"})


def test_state_of_several_optimizers(tmp_path):
    """A state file holds one optimizer; which one is for the user to say."""
    value = {"a": adamw()[1].state_dict(), "b": adamw(lr=1.0)[1].state_dict()}
    path = save(value, tmp_path / "adamw.pt")
    output = tmp_path / "state.safetensors"
    with pytest.raises(AmbiguousError, match="choose it with --optimizer: a, b"):
        convert_checkpoint(path, lr_ratio=RATIO, output=output)
    convert_checkpoint(path, lr_ratio=RATIO, output=output, optimizers=["b"])
    assert read_checkpoint(output).optimizers[0].groups[0].fields["lr"] == 1 / RATIO


def test_bfloat16_and_kahan_in_safetensors(tmp_path):
    """dtypes are kept; computed tensors are written as well."""
    model, optimizer = adamw(dtype=torch.bfloat16)
    path = save(optimizer.state_dict(), tmp_path / "adamw.pt")
    output = tmp_path / "state.safetensors"
    convert_checkpoint(path, lr_ratio=RATIO, output=output, package="optimi", momentum="copy")
    with safe_open(output, "pt") as file:
        first = file.get_tensor("state.0.exp_avg")
        assert not file.get_tensor("state.0.kahan_comp").any()
    assert bits(first) == bits(optimizer.state[next(model.parameters())]["exp_avg"])
    assert first.dtype == torch.bfloat16


# --- what is in the way -------------------------------------------------------------------------


def test_existing_output(source, tmp_path):
    """An existing output is refused, and replaced when asked for."""
    output = tmp_path / "old.pt"
    output.write_bytes(b"old")
    with pytest.raises(OutputExistsError, match=r"is there already.*--force"):
        convert_checkpoint(source, lr_ratio=RATIO, output=output)
    assert output.read_bytes() == b"old"
    convert_checkpoint(source, lr_ratio=RATIO, output=output, force=True)
    assert load(output)["optimizer"]["param_groups"][0]["lr"] == LR / RATIO
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adamw.pt", "old.pt"]


def test_output_through_a_link(source, tmp_path):
    """A link is followed, and stays a link."""
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "real.pt").write_bytes(b"old")
    link = tmp_path / "link.pt"
    link.symlink_to("far/real.pt")
    convert_checkpoint(source, lr_ratio=RATIO, output=link, force=True)
    assert link.is_symlink()
    assert load(tmp_path / "far" / "real.pt").keys() == {"model", "optimizer"}


def test_onto_the_source(source, tmp_path):
    """The source is never replaced, under whatever name, whatever is forced."""
    before = source.read_bytes()
    (tmp_path / "link.pt").symlink_to(source)
    for output in (source, tmp_path / "." / "adamw.pt", tmp_path / "link.pt"):
        with pytest.raises(PublishError, match="is the source itself, which is never touched"):
            convert_checkpoint(source, lr_ratio=RATIO, output=output, force=True)
    os.link(source, tmp_path / "hard.pt")
    convert_checkpoint(source, lr_ratio=RATIO, output=tmp_path / "hard.pt", force=True)
    assert source.read_bytes() == before


def test_onto_a_folder_around_the_source(source):
    """A folder that the source lies in is not replaced either."""
    with pytest.raises(PublishError, match=r"the source .*adamw\.pt lies in it"):
        convert_checkpoint(source, lr_ratio=RATIO, output=source.parent, force=True)


def test_onto_a_link_to_itself(source, tmp_path):
    """A link that leads nowhere is no place to write to."""
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    with pytest.raises(PublishError, match=r"loop\.pt"):
        convert_checkpoint(source, lr_ratio=RATIO, output=tmp_path / "loop.pt", force=True)


def test_dry_run(source, tmp_path):
    """A dry run tells the same and writes nothing."""
    dry = convert_checkpoint(source, lr_ratio=RATIO, dry_run=True).to_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["adamw.pt"]
    real = convert_checkpoint(source, lr_ratio=RATIO).to_dict()
    assert (dry.pop("dry_run"), real.pop("dry_run")) == (True, False)
    assert dry == real


def test_dry_run_onto_something(source, tmp_path):
    """A dry run says what the output would be refused for, and reports all the same."""
    output = tmp_path / "old.pt"
    output.write_bytes(b"old")
    for options, ids in (({}, ["output-refused"]), ({"force": True}, [])):
        report = convert_checkpoint(source, lr_ratio=RATIO, output=output, dry_run=True, **options)
        assert [notice.id for notice in report.notices] == ids
    assert output.read_bytes() == b"old"


def test_existing_output_is_refused_before_the_moments_are_read(run, tmp_path):
    """What is in the way is said before a long estimate."""
    path = save(run[1].state_dict(), tmp_path / "adamw.pt")
    with pytest.raises(OutputExistsError, match="is there already"):
        convert_checkpoint(path, lr_ratio="auto", output=save({}, tmp_path / "old.pt"))


@pytest.mark.parametrize("momentum", ["copy", "scaled"])
def test_layouts_of_memory(tmp_path, momentum):
    """Moments in another order of dimensions, and empty ones, keep their values everywhere."""
    layer = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    params = [*layer.parameters(), nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.ones(()))]
    optimizer = torch.optim.AdamW(params, lr=LR)
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer.step()
    path = save(optimizer.state_dict(), tmp_path / "adamw.pt")
    factor = 1.0 if momentum == "copy" else kappa(0.9, 0.99) / (1 - 0.9)
    for name in ("adamw.lion.pt", "state.bin", "state.safetensors"):
        output = tmp_path / name
        report = convert_checkpoint(path, lr_ratio=RATIO, output=output, momentum=momentum)
        live = Lion(params)
        load_optimizer(report.output, live)
        for param in params:
            wanted = optimizer.state[param]["exp_avg"] * factor
            assert torch.allclose(live.state[param]["exp_avg"], wanted, rtol=1e-6)
    if momentum == "copy":
        kept = load(tmp_path / "adamw.lion.pt")["state"][0]["exp_avg"]
        assert kept.stride() == optimizer.state[params[0]]["exp_avg"].stride()


def test_progress(source):
    """Progress counts up to the size of the output, and in a dry run to that of the moments."""
    seen = []

    def note(done, total):
        seen.append((done, total))

    report = convert_checkpoint(source, lr_ratio=RATIO, dry_run=True, progress=note)
    assert seen[-1] == (report.state_bytes_after, report.state_bytes_after)
    seen.clear()
    report = convert_checkpoint(source, lr_ratio=RATIO, progress=note)
    assert seen[-1] == (report.bytes_after, report.bytes_after)
    assert seen == sorted(seen)


# --- records ------------------------------------------------------------------------------------


def test_provenance(source):
    """The record names source, rule and ratio, and what the numbers were before."""
    report = convert_checkpoint(source, lr_ratio=RATIO, momentum="scaled", zero_stale=True)
    with zipfile.ZipFile(report.output) as file:
        record = json.loads(file.read("adamw/liontool.json"))
    assert record == report.to_dict()["provenance"]
    assert record["schema"] == 1
    assert record["liontool"] == liontool.__version__
    assert (record["source"], record["source_bytes"]) == ("adamw.pt", source.stat().st_size)
    assert (record["rule"], record["momentum"], record["zero_stale"]) == (
        "adamw to lion",
        "scaled",
        True,
    )
    assert record["optimizers"][0]["ratio"] == RATIO
    assert record["optimizers"][0]["groups"][0]["betas"] == [0.9, 0.999]
    assert len(record["source_header_sha256"]) == 64


def test_provenance_leaves_names_out(named):
    """Names of parameters, of which there can be many, are not in the record a second time."""
    report = convert_checkpoint(named[2], lr_ratio=RATIO)
    groups = report.provenance["optimizers"][0]["groups"]
    assert all("param_names" not in group for group in groups)
    assert groups[1]["tag"] == "b"


def test_source_in_safetensors(run, tmp_path):
    """AdamW's state in our layout, which any tool can write, converts into the same layout."""
    from liontool.checkpoint import copying, state_file
    from liontool.checkpoint.formats import safetensors_file

    (optimizer,) = read_checkpoint(save(run[1].state_dict(), tmp_path / "a.pt")).optimizers
    metadata = state_file.metadata(optimizer, "torch.optim.AdamW 2.13", {})
    pieces = safetensors_file.pieces(state_file.tensors(optimizer), metadata)
    for name in ("adamw.safetensors", "adamw.state"):
        with (tmp_path / name).open("wb") as file:
            copying.write(pieces, file.fileno())
        report = convert_checkpoint(tmp_path / name, lr_ratio=RATIO)
        assert [notice.id for notice in report.notices] == ["state-only"]
        live = Lion(run[0].parameters())
        load_optimizer(report.output, live)
        assert momenta(live) == momenta(run[1])
        assert live.param_groups[0]["lr"] == LR / RATIO
