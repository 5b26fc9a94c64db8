"""Parameters get the names of a model's weights where there is one way alone to give them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from liontool import convert_checkpoint, edit_checkpoint
from liontool.checkpoint.frameworks import find
from liontool.checkpoint.source import open_source
from liontool.errors import EditError
from liontool.inspect.matching import MatchError, match
from support.edited_runs import load, network, save_plain


@pytest.fixture
def run(tmp_path):
    """An optimizer with positions: weights in the first group, biases in the second."""
    return save_plain(tmp_path / "run.pt", named=False)


@pytest.fixture
def model(tmp_path):
    """The model of it by itself."""
    return saved(tmp_path / "model.pt", network().state_dict())


def saved(path, tree):
    torch.save(tree, path)
    return path


def names(path):
    """The names that torch loads."""
    return [group["param_names"] for group in load(path)["optimizer"]["param_groups"]]


def of(shapes, prefix="w"):
    """Names and shapes."""
    return [(f"{prefix}{i}", shape) for i, shape in enumerate(shapes)]


NAMES = [
    ["layers.0.weight", "layers.1.weight", "head.weight"],
    ["layers.0.bias", "layers.1.bias", "head.bias"],
]


def test_groups(run, model):
    """Names are dealt out to the groups by shape, in order; how many have theirs by order is said.

    They are those that torch itself saves for named parameters.
    """
    report = edit_checkpoint(run, [f"names:{model}"])
    assert names(report.output) == NAMES
    (note,) = report.notices
    assert note.text.startswith("4 of 6 parameters share their shape with others and ")
    named = save_plain(run.parent / "named.pt")
    assert (
        load(report.output)["optimizer"]["param_groups"]
        == (load(named)["optimizer"]["param_groups"])
    )


def test_own_weights(run):
    """The file itself can be the one that has the names, and words after it use them."""
    report = edit_checkpoint(run, [f"names:{run}", "drop:state.head.*", "exp_avg:zeros@layers.0.*"])
    state = load(report.output)["optimizer"]["state"]
    assert [bool(one["exp_avg"].any()) for one in state.values()] == [False, True, False, True]
    assert report.changes[0].kind == "name"


def test_state_file(run, model, tmp_path):
    """In a state file tensors and groups go by name afterwards."""
    state = convert_checkpoint(run, lr_ratio=3, output=tmp_path / "state.safetensors").output
    report = edit_checkpoint(state, [f"names:{model}"], in_place=True)
    assert report.how == "header"
    (optimizer,) = find(open_source(state))[1].optimizers
    assert [list(group.names) for group in optimizer.groups] == NAMES
    assert set(optimizer.slots) == {name for group in NAMES for name in group}


def test_sorted_names(run, tmp_path):
    """safetensors sorts names, so that only shapes can tell."""
    save_file(network().state_dict(), tmp_path / "m.safetensors")
    text = "its names are sorted, which is not the order of the model, and 4 of 6 positions share"
    with pytest.raises(EditError, match=rf"{text} .*torch.save\(model.state_dict\(\), ...\)"):
        edit_checkpoint(run, [f"names:{tmp_path / 'm.safetensors'}"])
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5))
    optimizer = torch.optim.AdamW(other.parameters())
    other(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    saved(tmp_path / "own.pt", {"optimizer": optimizer.state_dict()})
    save_file(other.state_dict(), tmp_path / "m.safetensors")
    report = edit_checkpoint(tmp_path / "own.pt", [f"names:{tmp_path / 'm.safetensors'}"])
    assert names(report.output) == [["0.weight", "0.bias", "1.weight", "1.bias"]]
    assert report.notices == ()


def test_wrapped_tied_and_buffers(run, tmp_path):
    """Tied weights and the buffers of norms are no parameters of their own."""
    tree = {f"module.{name}": tensor for name, tensor in network().state_dict().items()}
    tree["module.tied"] = tree["module.layers.0.weight"]
    tree |= {"module.norm.running_mean": torch.ones(4), "module.n": torch.tensor(3)}
    report = edit_checkpoint(run, [f"names:{saved(tmp_path / 'm.pt', tree)}"])
    assert names(report.output)[1][0] == "module.layers.0.bias"


def test_two_models(run, tmp_path):
    """Two sets of weights with the same names are one; with others they are no answer."""
    state = network().state_dict()
    other = {name.replace("head", "tail"): tensor for name, tensor in state.items()}
    path = saved(tmp_path / "m.pt", {"model": state, "ema": dict(state)})
    assert names(edit_checkpoint(run, [f"names:{path}"]).output) == NAMES
    saved(path, {"model": state, "student": other})
    with pytest.raises(EditError, match=r"weights at .*m.pt: model and .*m.pt: student both fit"):
        edit_checkpoint(run, [f"names:{path}"])


def test_refused(run, model, tmp_path):
    """A file without weights, an optimizer with names, and a word without a file."""
    empty = saved(tmp_path / "empty.pt", {"step": 3})
    with pytest.raises(EditError, match=r"empty\.pt: has no weights by name"):
        edit_checkpoint(run, [f"names:{empty}"])
    named = save_plain(tmp_path / "named.pt")
    text = "parameters have names already: layers.0.weight, .*; rename:OLD=NEW changes them"
    with pytest.raises(EditError, match=text):
        edit_checkpoint(named, [f"names:{model}"])
    with pytest.raises(ValueError, match="'names:' lacks the file that has the names"):
        edit_checkpoint(run, ["names:"])
    with pytest.raises(EditError, match="no such file or folder"):
        edit_checkpoint(run, [f"names:{tmp_path / 'none.pt'}"])


def test_another_model(run, tmp_path):
    """The first weight that does not fit is named, with the position that waits."""
    tree = network().state_dict()
    tree["layers.1.weight"] = torch.ones(5, 4)
    path = saved(tmp_path / "m.pt", tree)
    text = (
        r"m\.pt: the optimizer has 6 parameters and the file 6; 'layers.1.weight' \[5, 4\] comes "
        r"where position 1 has moments of \[4, 4\] and position 4 has moments of \[4\]; no order "
        r"of them fits: 1 more of \[4, 4\] would be needed"
    )
    with pytest.raises(EditError, match=text):
        edit_checkpoint(run, [f"names:{path}"])


def test_fewer_names():
    """Fewer weights than parameters never fit; both counts are said, and where it ends."""
    text = r"has 3 parameters and the file 2; all of the file fit, and then position 2 has moments"
    with pytest.raises(MatchError, match=text):
        match([[(2,), (3,), (4,)]], of([(2,), (3,)]), ordered=True)
    with pytest.raises(
        MatchError, match=r"'w1' \[5\] comes where position 1 has moments of \[3\]$"
    ):
        match([[(2,), (3,), (4,)]], of([(2,), (5,)]), ordered=True)


def test_more_names():
    """Weights that the optimizer leaves out are passed over where that is certain."""
    found = match([[(2,), (4,)]], of([(2,), (3,), (4,)]), ordered=True)
    assert (found.names, found.by_order) == ((("w0", "w2"),), 0)
    with pytest.raises(MatchError, match=r"position 1, in group 0, could be 'w1' or 'w2'|'w2' or"):
        match([[(2,), (4,)]], of([(2,), (4,), (4,)]), ordered=True)


def test_reordered():
    """Another order is found where every shape occurs once, and refused where not."""
    found = match([[(2,), (3,), (4,)]], of([(4,), (2,), (3,)]), ordered=True)
    assert (found.names, found.reordered) == ((("w1", "w2", "w0"),), True)
    text = "'w0' .3. comes where position 0 has moments of .2.; several other orders would fit"
    with pytest.raises(MatchError, match=text):
        match([[(2,), (3,), (2,)]], of([(3,), (2,), (2,)]), ordered=True)


def test_reordering_is_said(tmp_path):
    """The command tells of it."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5))
    optimizer = torch.optim.AdamW(list(model.parameters())[::-1])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tree = {"optimizer": optimizer.state_dict(), "model": model.state_dict()}
    path = saved(tmp_path / "run.pt", tree)
    report = edit_checkpoint(path, [f"names:{path}"])
    assert names(report.output) == [["1.bias", "1.weight", "0.bias", "0.weight"]]
    assert [notice.id for notice in report.notices] == ["reordered"]
    assert "lists the weights in another order than the optimizer" in report.notices[0].text


def test_groups_of_same_shapes():
    """Equal shapes in two groups are not shared out by a guess."""
    with pytest.raises(
        MatchError, match=r"position 0, in group 0, could be 'w.' or 'w.': their sha"
    ):
        match([[(2, 2)], [(2, 2)]], of([(2, 2), (2, 2)]), ordered=True)
    with pytest.raises(MatchError, match="there are too many ways to deal the names out"):
        match([[(2, 2)] * 9] * 6, of([(2, 2)] * 54), ordered=True)


def test_without_state(tmp_path):
    """A frozen parameter has a name and no state, which is said."""
    model = network()
    model["layers"][0].weight.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters())
    model["head"](model["layers"](torch.ones(1, 4))).sum().backward()
    optimizer.step()
    tree = {"optimizer": optimizer.state_dict(), "model": model.state_dict()}
    path = saved(tmp_path / "run.pt", tree)
    report = edit_checkpoint(path, [f"names:{path}"])
    assert names(report.output) == [list(model.state_dict())]
    assert [notice.id for notice in report.notices] == ["named-by-order", "named-without-state"]
    assert "1 of 6 parameters have a name and no state" in report.notices[1].text
