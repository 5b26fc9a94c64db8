"""State tensors are cast as torch casts them, or emptied; step counts stay."""

from __future__ import annotations

import pytest
import torch

from liontool import edit_checkpoint
from liontool.edit.words import State, parse
from liontool.errors import EditError
from liontool.optim import Lion
from support.edited_runs import forward, load, network, save_plain


@pytest.fixture
def run(tmp_path):
    """A named AdamW with two groups."""
    return save_plain(tmp_path / "run.pt")


def states(path):
    return load(path)["optimizer"]["state"]


def replaced(path, **tensors):
    """The file with other tensors in the state of the first parameter."""
    tree = load(path)
    tree["optimizer"]["state"][0].update(tensors)
    torch.save(tree, path)
    return path


def test_grammar():
    """A name, what it becomes, and for which parameters."""
    words = ["exp_avg:bf16", "exp_avg::quantized:zeros", "exp_avg:fp16@*.{0-3}.weight"]
    assert parse(words) == (
        State("exp_avg:bf16", "exp_avg", "bfloat16"),
        State("exp_avg::quantized:zeros", "exp_avg::quantized", "zeros"),
        State("exp_avg:fp16@*.{0-3}.weight", "exp_avg", "float16", "*.{0-3}.weight"),
    )
    with pytest.raises(
        ValueError, match=r"'exp_avg:int8': state becomes one of bf16, .* not 'int8'"
    ):
        parse(["exp_avg:int8"])
    with pytest.raises(ValueError, match="'exp_avg:bf16@' lacks the name, or the pattern of names"):
        parse(["exp_avg:bf16@"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cast(run, dtype):
    """Every value is torch's own, and the rest of the file is the same."""
    torch.manual_seed(0)
    replaced(run, exp_avg=torch.randn(700, 700) * torch.logspace(-9, 3, 700))
    name = str(dtype).removeprefix("torch.")
    report = edit_checkpoint(run, [f"exp_avg:{name}"])
    for old, new in zip(states(run).values(), states(report.output).values(), strict=True):
        assert new["exp_avg"].dtype == dtype
        assert torch.equal(new["exp_avg"], old["exp_avg"].to(dtype))
        assert torch.equal(new["exp_avg_sq"], old["exp_avg_sq"])
        assert torch.equal(new["step"], old["step"])
    assert [notice.id for notice in report.notices] == ["cast-on-load"]
    back = edit_checkpoint(report.output, ["exp_avg:float32"])
    assert torch.equal(
        states(back.output)[0]["exp_avg"], states(run)[0]["exp_avg"].to(dtype).float()
    )


def test_too_large(run):
    """What float16 cannot hold is found before anything is written; infinities stay."""
    replaced(run, exp_avg=torch.tensor([1.0, float("inf"), 7e4]))
    with pytest.raises(EditError, match=r"'exp_avg:fp16': .*: exp_avg has 70000, which float16 ca"):
        edit_checkpoint(run, ["exp_avg:fp16"], dry_run=True)
    replaced(run, exp_avg=torch.tensor([1.0, float("inf"), float("nan")]))
    report = edit_checkpoint(run, ["exp_avg:fp16"])
    assert str(states(report.output)[0]["exp_avg"].tolist()) == "[1.0, inf, nan]"


def test_too_large_of_a_wider_type(run):
    """float64 holds what no other type does: that too is found before anything is written."""
    replaced(run, exp_avg=torch.tensor([1.0, 1e39, 2.0], dtype=torch.float64))
    with pytest.raises(EditError, match=r"has 1e\+39, which bfloat16 cannot hold; leave it as it"):
        edit_checkpoint(run, ["exp_avg:bf16"], dry_run=True)


def test_zeros(run):
    """With a pattern of parameters only theirs."""
    report = edit_checkpoint(run, ["exp_avg:zeros@layers.*"])
    names = [n for group in load(run)["optimizer"]["param_groups"] for n in group["param_names"]]
    for name, old, new in zip(
        names, states(run).values(), states(report.output).values(), strict=1
    ):
        assert bool(new["exp_avg"].any()) == name.startswith("head")
        assert torch.equal(new["step"], old["step"])
    assert report.notices == ()
    report = edit_checkpoint(run, ["exp_avg_sq:zeros"], force=True)
    assert "first updates are many times too large" in report.notices[0].text


def test_positions(tmp_path):
    """Parameters without names go by their positions."""
    run = save_plain(tmp_path / "run.pt", named=False)
    report = edit_checkpoint(run, ["exp_avg:zeros@{1-2}"])
    assert [bool(s["exp_avg"].any()) for s in states(report.output).values()] == [
        True, False, False, True, True, True
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("momentum:zeros", "no state is called 'momentum'; there is exp_avg, exp_avg_sq$"),
        ("step:zeros", "'step:zeros': step counts, and stays; to start anew: strip"),
        ("exp_avg:fp32", "all exp_avg that it names are float32 already"),
        ("exp_avg:bf16@tail.*", r"nothing is called 'tail.\*'; there is "),
    ],
)
def test_refused(run, word, text):
    """Words that fit nothing say what there is."""
    with pytest.raises(EditError, match=text):
        edit_checkpoint(run, [word])


def test_codes(run):
    """What is quantised has no zeros of its own, and no floats."""
    replaced(run, exp_avg=torch.zeros(4, dtype=torch.uint8))
    for word in ("exp_avg:zeros", "exp_avg:bf16"):
        with pytest.raises(
            EditError, match="exp_avg is uint8, codes or whole numbers, and only fl"
        ):
            edit_checkpoint(run, [word])
    replaced(run, exp_avg=torch.zeros(4).to(torch.float8_e4m3fn))
    with pytest.raises(EditError, match="exp_avg is float8_e4m3fn, whose scale lies elsewhere"):
        edit_checkpoint(run, ["exp_avg:bf16"])


def test_no_state(tmp_path):
    """An optimizer that has not stepped has no state to change."""
    model = network()
    torch.save(torch.optim.AdamW(model.parameters()).state_dict(), tmp_path / "new.pt")
    for word in ("exp_avg:zeros", "strip"):
        with pytest.raises(EditError, match=f"'{word}': the optimizer has no state"):
            edit_checkpoint(tmp_path / "new.pt", [word])


def test_lion(tmp_path):
    """liontool's Lion is told in its group what its momentum is."""
    model = network()
    optimizer = Lion(model.parameters(), lr=1e-3)
    forward(model).backward()
    optimizer.step()
    optimizer.param_groups[0]["horizon"] = 9.0
    torch.save(optimizer.state_dict(), tmp_path / "lion.pt")
    report = edit_checkpoint(tmp_path / "lion.pt", ["exp_avg:bf16"])
    (group,) = load(report.output)["param_groups"]
    assert (group["state_dtype"], group["horizon"]) == ("bfloat16", 9.0)
    assert report.notices == ()
    fresh = Lion(model.parameters(), lr=1e-3)
    fresh.load_state_dict(load(report.output))
    assert {state["exp_avg"].dtype for state in fresh.state.values()} == {torch.bfloat16}
    for words in (["exp_avg:zeros"], ["strip"]):
        report = edit_checkpoint(tmp_path / "lion.pt", words, force=True)
        assert load(report.output)["param_groups"][0]["horizon"] is None
