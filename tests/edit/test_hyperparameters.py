"""A hyperparameter changes everywhere, in the type that it has, or the word says why not."""

from __future__ import annotations

import pytest
import torch

from liontool import edit_checkpoint
from liontool.edit.words import Scale, Set, parse
from liontool.errors import EditError
from support.edited_runs import load, save_plain

S = torch.optim.lr_scheduler


@pytest.fixture
def run(tmp_path):
    """Two groups, the second without decay, under a cosine."""
    return save_plain(tmp_path / "run.pt")


def saved(path, *, schedule=None, groups=None, **options):
    """An optimizer with its schedule as a training loop saves them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    each = groups or [{"lr": 1e-3}, {"lr": 1e-4}]
    each = [{"params": m.parameters(), **g} for m, g in zip(model, each, strict=True)]
    optimizer = torch.optim.AdamW(each, **options)
    scheduler = schedule(optimizer) if schedule else None
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    tree = {"optimizer": optimizer.state_dict()}
    if scheduler is not None:
        scheduler.step(*[1.0] * isinstance(scheduler, S.ReduceLROnPlateau))
        tree["scheduler"] = scheduler.state_dict()
    torch.save(tree, path)
    return path


def edited(path, *words):
    """The tree after an edit, and the report."""
    report = edit_checkpoint(path, words, force=True)
    return load(report.output), report


def groups_of(path, *words):
    """The groups after an edit."""
    return edited(path, *words)[0]["optimizer"]["param_groups"]


def says(report, id):
    """The text of the one notice of this kind."""
    (text,) = [notice.text for notice in report.notices if notice.id == id]
    return text


def test_grammar():
    """Values and factors, of all groups or of one."""
    words = ["lr=3e-5", "lr=x0.5", "groups.1.eps=1", "betas=(0.95, 0.98)", "fused=none"]
    assert parse([*words, "amsgrad=True", "rounding=stochastic"]) == (
        Set("lr=3e-5", "lr", 3e-5),
        Scale("lr=x0.5", "lr", 0.5),
        Set("groups.1.eps=1", "eps", 1, 1),
        Set("betas=(0.95, 0.98)", "betas", (0.95, 0.98)),
        Set("fused=none", "fused", None),
        Set("amsgrad=True", "amsgrad", True),
        Set("rounding=stochastic", "rounding", "stochastic"),
    )


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("lr=", "'lr=': the value is missing"),
        ("lr=nan", "'lr=nan': a number must be finite, got nan"),
        ("lr=1" + 400 * "0", "a number must be finite, got 1000"),
        ("lr=x0", "'lr=x0': a factor must be a finite number above 0, got 0"),
        ("lr=x-2", "a factor must be a finite number above 0, got -2"),
        ("lr", "'lr' is no edit; an edit is KEY=VALUE"),
    ],
)
def test_no_words(run, word, text):
    """What is no word is said with what is allowed."""
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        edit_checkpoint(run, [word])


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("weight_dekay=0", "no group has a 'weight_dekay'; there is weight_decay"),
        ("groups.2.lr=1", "'groups.2.lr=1': there is no group 2; there is group 0 to 1"),
        ("lr=fast", "lr takes a number such as 3e-5, or a factor such as x0.5"),
        ("lr=true", "lr takes a number"),
        ("lr=1_000", "lr takes a number"),
        ("lr=\u0663", "lr takes a number"),
        ("lr=-1e-3", "lr must be a finite number and not negative, got -0.001"),
        ("lr=0", "a learning rate of 0 would leave nothing of the schedule to come back to"),
        ("initial_lr=1", "initial_lr is not set by itself: .* lr= sets that"),
        ("param_names=a", "param_names is not set by itself: names:MODEL_FILE sets it"),
        ("betas=0.9", "betas are several, with commas between: betas=0.95,0.98"),
        ("betas=0.9,1", r"betas\[1\] must lie in \[0, 1\), got 1"),
        ("betas=0.9,0.9,0.9", r"betas is 2 values, \(0.9, 0.999\), and takes as many"),
        ("betas=x2", "betas are set, not multiplied: betas=0.95,0.98"),
        ("eps=-1", "group 0: eps must not be negative, got -1.0"),
        ("eps=small", "group 0: eps is a number, 1e-08, and takes another one"),
        ("amsgrad=2", "group 0: amsgrad is a switch, and takes true or false"),
        ("amsgrad=x2", "amsgrad is not one number, and only a number can be multiplied"),
    ],
)
def test_refused(run, word, text):
    """Words that do not fit name themselves, what is there, and the way out; nothing is written."""
    with pytest.raises(EditError, match=text):
        edit_checkpoint(run, [word])
    assert sorted(path.name for path in run.parent.iterdir()) == ["run.pt"]


def test_too_large(run):
    """A learning rate beyond all numbers is none."""
    with pytest.raises(EditError, match="'lr=x1e307': lr would be inf"):
        edit_checkpoint(run, ["lr=x1e308", "lr=x1e307"])


def test_all_faults_are_said(run):
    """Words are checked together, and none is applied where one does not fit."""
    with pytest.raises(EditError, match=r"'groups.7.lr=1': .*; 'epz=1': no group has a 'epz'"):
        edit_checkpoint(run, ["groups.7.lr=1", "lr=x0.5", "epz=1"])


def test_no_optimizer(tmp_path):
    """Weights alone have no hyperparameters."""
    torch.save({"w": torch.ones(3)}, tmp_path / "w.pt")
    with pytest.raises(EditError, match=r"'lr=1': needs an optimizer's state; .*w\.pt"):
        edit_checkpoint(tmp_path / "w.pt", ["lr=1"])


def test_everywhere(run):
    """A learning rate changes in groups and in the scheduler, and all of it is in the report."""
    tree, report = edited(run, "lr=5e-4")
    before = load(run)
    (group, _), scheduler = tree["optimizer"]["param_groups"], tree["scheduler"]
    lr = before["optimizer"]["param_groups"][0]["lr"] / 2
    assert group["initial_lr"] == 5e-4
    assert group["lr"] == pytest.approx(lr)
    assert (scheduler["base_lrs"], scheduler["_last_lr"]) == ([5e-4] * 2, [group["lr"]] * 2)
    where = {change.where for change in report.changes}
    assert {"groups.0.lr", "groups.1.initial_lr", "scheduler.base_lrs"} <= where
    text = "groups 0, 1: the base of the learning rate was 0.001 and is 0.0005; at this step of"
    assert says(report, "place-in-curve").startswith(text)


def test_words_in_order(run):
    """Each word sees what those before it did."""
    assert groups_of(run, "lr=5e-4", "lr=x2", "lr=x2")[0]["initial_lr"] == 2e-3


def test_groups_that_differ(tmp_path):
    """One value for groups of several rates is said, and refused where one minimum serves all."""
    path = saved(tmp_path / "run.pt")
    tree, report = edited(path, "lr=3e-5")
    assert [group["lr"] for group in tree["optimizer"]["param_groups"]] == [3e-5, 3e-5]
    text = "the groups had a learning rate of 0.001, 0.0001 and have the same now; lr=x0.5 would"
    assert text in says(report, "groups-differed")
    path = saved(path, schedule=lambda o: S.CosineAnnealingLR(o, 9, eta_min=1e-6))
    text = "eta_min of CosineAnnealingLR is one number for all groups, 1e-06, .*lr=x0.5 moves all"
    with pytest.raises(EditError, match=f"{text} alike, groups.N.lr= moves one"):
        edit_checkpoint(path, ["lr=3e-5"])
    assert edited(path, "lr=x2")[0]["scheduler"]["eta_min"] == 2e-6


def test_under_the_minimum(tmp_path):
    """A group below the minimum that it shares would rise to it."""
    path = saved(tmp_path / "run.pt", schedule=lambda o: S.CosineAnnealingLR(o, 9, eta_min=5e-5))
    with pytest.raises(EditError, match=r"5e-05, and above 1e-05: group 1 would rise to it"):
        edit_checkpoint(path, ["groups.1.lr=1e-5"])
    tree, report = edited(path, "groups.1.lr=8e-5")
    assert (tree["scheduler"]["eta_min"], tree["scheduler"]["base_lrs"]) == (5e-5, [1e-3, 8e-5])
    assert "stays 5e-05, for group 1 too" in says(report, "shared-minimum")


def test_plateau_of_one_group(tmp_path):
    """The smallest step of a plateau serves all groups, and bounds none; it stays."""
    plateau = lambda o: S.ReduceLROnPlateau(o, min_lr=[1e-5, 1e-6])  # noqa: E731
    path = saved(tmp_path / "run.pt", schedule=plateau)
    scheduler = edited(path, "groups.1.lr=x2")[0]["scheduler"]
    assert (scheduler["min_lrs"], scheduler["eps"]) == ([1e-5, 2e-6], 1e-8)
    assert edited(path, "lr=x2")[0]["scheduler"]["eps"] == 2e-8


def test_lists_of_another_length(tmp_path):
    """Rates that are not one a group cannot be told apart."""
    path = saved(tmp_path / "run.pt", schedule=lambda o: S.StepLR(o, 3))
    tree = load(path)
    tree["scheduler"]["max_lrs"] = [1e-3] * 3
    torch.save(tree, path)
    with pytest.raises(EditError, match="scheduler has 3 max_lrs for 2 groups, so which is whose"):
        edit_checkpoint(path, ["groups.0.lr=1e-5"])


def test_zero_without_a_schedule(tmp_path):
    """Where there is no schedule a rate can be 0, and can be set again."""
    path = saved(tmp_path / "run.pt")
    first = edit_checkpoint(path, ["groups.0.lr=0"])
    assert load(first.output)["optimizer"]["param_groups"][0]["lr"] == 0
    assert groups_of(first.output, "groups.0.lr=1e-3")[0]["lr"] == 1e-3


def test_no_numbers(tmp_path):
    """What is no number cannot move, and is named."""
    path = saved(tmp_path / "run.pt", schedule=lambda o: S.StepLR(o, 3))
    tree = load(path)
    tree["optimizer"]["param_groups"][1]["max_lr"] = "high"
    torch.save(tree, path)
    with pytest.raises(EditError, match="group 1: max_lr is 'high', not a number"):
        edit_checkpoint(path, ["lr=x2"])
    tree["optimizer"]["param_groups"][1]["max_lr"] = None
    tree["scheduler"]["eta_min"] = "low"
    torch.save(tree, path)
    with pytest.raises(
        EditError, match="scheduler scheduler: eta_min must be numbers, found 'low'"
    ):
        edit_checkpoint(path, ["lr=x2"])


def test_no_curve(tmp_path):
    """A schedule whose base is 0 has no shape that could be kept."""
    groups = [{"lr": 0.0}, {"lr": 1e-4}]
    path = saved(tmp_path / "run.pt", groups=groups, schedule=lambda o: S.StepLR(o, 3))
    with pytest.raises(EditError, match="group 0: its learning rate is 0, its base too, so the"):
        edit_checkpoint(path, ["lr=1e-3"])


def test_groups_without_decay(run):
    """A weight decay for all passes over groups that have none, and says how to reach them."""
    tree, report = edited(run, "weight_decay=0.3")
    assert [group["weight_decay"] for group in tree["optimizer"]["param_groups"]] == [0.3, 0.0]
    text = "group 1: a weight decay of 0 stays 0; to set it: groups.1.weight_decay=0.3"
    assert says(report, "group-without") == text
    assert groups_of(run, "groups.1.weight_decay=0.2")[1]["weight_decay"] == 0.2
    both = groups_of(run, "weight_decay=0", "weight_decay=0.4")
    assert [group["weight_decay"] for group in both] == [0.4, 0.4]


def test_types_are_kept(tmp_path):
    """Switches, counts, fractions, lists and missing values stay what they are."""
    path = saved(tmp_path / "run.pt", groups=[{"weight_decay": 0}, {"n": 3, "weight_decay": 0}])
    tree = load(path)
    tree["optimizer"]["param_groups"][0].update(betas=[0.9, 0.99], mode="a", tag={"a": 1})
    torch.save(tree, path)
    words = ["lr=1", "betas=0,0.5", "maximize=1", "fused=true", "mode=b", "n=4.0"]
    first, second = groups_of(path, *words, "weight_decay=0.5")
    assert (first["lr"], type(first["lr"])) == (1.0, float)
    assert first["betas"] == [0.0, 0.5]
    assert (first["maximize"], first["fused"], first["mode"]) == (True, True, "b")
    assert (second["n"], type(second["n"])) == (4, int)
    assert first["weight_decay"] == 0.5
    with pytest.raises(EditError, match="group 1: n is a whole number, 3, and takes anoth"):
        edit_checkpoint(path, ["n=3.5"])
    with pytest.raises(EditError, match=r"group 0: tag is {'a': 1}, which no word can say"):
        edit_checkpoint(path, ["tag=1"])
    with pytest.raises(EditError, match="group 0: mode is text, and takes text"):
        edit_checkpoint(path, ["mode=1"])


def test_tensors_are_kept(tmp_path):
    """Numbers that are tensors keep their dtype; several numbers are no value of a word."""
    path = saved(tmp_path / "run.pt")
    tree = load(path)
    extra = {"count": torch.tensor(3), "flag": torch.tensor(False), "pair": torch.ones(2)}
    tree["optimizer"]["param_groups"][0].update(extra, eps=torch.tensor([1e-8]))
    torch.save(tree, path)
    group = groups_of(path, "count=5", "flag=true", "groups.0.eps=x2")[0]
    assert torch.equal(group["count"], torch.tensor(5))
    assert torch.equal(group["flag"], torch.tensor(True))
    assert torch.equal(group["eps"], torch.tensor([1e-8]) * 2)
    with pytest.raises(EditError, match="count is a whole number, 3, and takes another one"):
        edit_checkpoint(path, ["count=2.5"])
    with pytest.raises(EditError, match=r"pair is 'float32\[2\]', which no word can say"):
        edit_checkpoint(path, ["pair=2"])
    with pytest.raises(EditError, match=r"eps is a number, .*, and takes another one"):
        edit_checkpoint(path, ["groups.0.eps=a"])


def test_cycled_momentum(tmp_path):
    """A scheduler that moves beta1 writes over it; the numbers between which it does are words."""
    path = saved(tmp_path / "run.pt", schedule=lambda o: S.CyclicLR(o, 1e-4, 1e-3))
    tree, report = edited(path, "betas=0.9,0.99")
    assert "sets the first beta anew at every step" in says(report, "cycled-momentum")
    tree, report = edited(path, "base_momentum=0.7", "groups.1.max_momentum=0.8")
    groups, scheduler = tree["optimizer"]["param_groups"], tree["scheduler"]
    assert [group["base_momentum"] for group in groups] == [0.7, 0.7]
    assert [group["max_momentum"] for group in groups] == [0.9, 0.8]
    assert (scheduler["base_momentums"], scheduler["max_momentums"]) == ([0.7, 0.7], [0.9, 0.8])
    with pytest.raises(EditError, match=r"base_momentum must lie in \[0, 1\), got 1.5"):
        edit_checkpoint(path, ["base_momentum=1.5"])


def test_betas_by_two_names(tmp_path):
    """Some optimizers keep each beta by itself as well; all names get the value."""
    path = saved(tmp_path / "run.pt", groups=[{"beta1": 0.9, "beta2": 0.999}, {}])
    group = groups_of(path, "betas=0.8,0.9")[0]
    assert (group["betas"], group["beta1"], group["beta2"]) == ((0.8, 0.9), 0.8, 0.9)
    group = groups_of(path, "beta2=0.95")[0]
    assert (group["betas"], group["beta2"]) == ((0.9, 0.95), 0.95)


def test_several_optimizers(tmp_path):
    """A group of one of several optimizers is reached by choosing it; a value is for all."""
    one, two = saved(tmp_path / "1.pt"), saved(tmp_path / "2.pt")
    states = {"a": load(one)["optimizer"], "b": load(two)["optimizer"]}
    torch.save(states, tmp_path / "gan.pt")
    with pytest.raises(EditError, match="each of several optimizers has groups: choose one, --opt"):
        edit_checkpoint(tmp_path / "gan.pt", ["groups.0.lr=1"])
    report = edit_checkpoint(tmp_path / "gan.pt", ["groups.0.lr=1"], optimizers=["b"])
    tree = load(report.output)
    assert [tree[name]["param_groups"][0]["lr"] for name in "ab"] == [1e-3, 1.0]


def test_loose_scheduler(tmp_path):
    """A scheduler of no known optimizer takes part where all move alike, else it is refused."""
    one = saved(tmp_path / "1.pt", schedule=lambda o: S.StepLR(o, 3))
    tree = load(one)
    first, second = tree["optimizer"], tree["optimizer"]
    torch.save({"a": first, "b": {**second}, "scheduler": tree["scheduler"]}, tmp_path / "gan.pt")
    with pytest.raises(EditError, match="cannot tell which optimizer the scheduler at scheduler"):
        edit_checkpoint(tmp_path / "gan.pt", ["lr=1e-5"])
    with pytest.raises(EditError, match="drives an optimizer that is edited; leave --optimizer ou"):
        edit_checkpoint(tmp_path / "gan.pt", ["lr=x2"], optimizers=["b"])
    report = edit_checkpoint(tmp_path / "gan.pt", ["lr=x2"])
    assert load(report.output)["scheduler"]["base_lrs"] == [2e-3, 2e-4]


def test_what_is_code(tmp_path):
    """Learning rates outside the file are told."""
    path = saved(tmp_path / "run.pt", schedule=lambda o: S.LambdaLR(o, lambda e: 1.0))
    _, report = edited(path, "lr=x2")
    assert "leave both as they are or change both" in says(report, "scheduler")
    _, report = edited(path, "weight_decay=x2")
    assert report.notices == ()


def test_schedules_of_decay(tmp_path):
    """A scheduler that drives the weight decay moves with it."""
    path = saved(tmp_path / "run.pt", groups=[{"weight_decay": 0.2}, {"weight_decay": 0.0}])
    megatron = {"max_lr": 1.0, "min_lr": 0.1, "lr_decay_style": "cosine", "num_steps": 5}
    timm = {"param_group_field": "weight_decay", "base_values": [0.2, 0.0], "lr_min": 0.1}
    for state in ({**megatron, "start_wd": 0.1, "end_wd": 0.2}, {**timm, "step": 3}):
        torch.save({**load(path), "scheduler": state}, tmp_path / "own.pt")
        scheduler = edited(tmp_path / "own.pt", "weight_decay=0.4")[0]["scheduler"]
        wanted = {"start_wd": 0.2, "end_wd": 0.4, "base_values": [0.4, 0.0], "lr_min": 0.2}
        assert scheduler == {**state, **{name: wanted[name] for name in wanted if name in state}}
