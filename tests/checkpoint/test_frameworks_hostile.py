"""Trees that no framework wrote: an answer or a clear error, never a crash."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from liontool.checkpoint.frameworks import FRAMEWORKS, Target, find
from liontool.errors import LiontoolError
from support.fake_source import FakeSource, adamw, cosine, opaque, tensor

_HUGE = 10**400  # beyond every float
_WORDS = st.sampled_from(
    [
        "state",
        "param_groups",
        "params",
        "param_names",
        "lr",
        "initial_lr",
        "last_epoch",
        "base_lrs",
        "_last_lr",
        "_schedulers",
        "pytorch-lightning_version",
        "optimizer_states",
        "lr_schedulers",
        "epoch",
        "step",
        "optimizer",
        "global_step",
        "betas",
        "weight_decay",
        "\x1b[2J",
        "a.b",
        "",
    ]
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, _HUGE, math.inf, math.nan, 1e-3, 1j, b"x"]),
    _WORDS,
    st.builds(lambda: tensor(2, 3)),
    st.builds(adamw),
    st.builds(lambda: cosine(1e-3)),
)
_KEYS = st.one_of(_WORDS, st.sampled_from([0, 1, _HUGE, 1.5, True, None, (1, 2), b"k"]))
TREES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(_KEYS, inner, max_size=5),
        st.builds(lambda state: opaque("user.Thing", state, (state,)), inner),
        st.builds(lambda item: {"state": {0: item}, "param_groups": [{"params": [0]}]}, inner),
        st.builds(lambda item: {"state": {}, "param_groups": [{"params": [], "lr": item}]}, inner),
        st.builds(lambda item: {"last_epoch": 1, "base_lrs": item, "_schedulers": [item]}, inner),
        st.builds(
            lambda states, step: {
                "pytorch-lightning_version": 2,
                "optimizer_states": states,
                "global_step": step,
            },
            inner,
            inner,
        ),
    ),
    max_leaves=20,
)


def outcome(source, *arguments):
    """The checkpoint, or the message of the error."""
    try:
        framework, checkpoint = find(source, *arguments)
    except LiontoolError as error:
        return str(error)
    text = framework.resume_code(checkpoint, Target(), source.path)
    framework.plan(checkpoint, checkpoint)
    return text


@given(TREES)
def test_any_file(tree):
    """Every tree gives a checkpoint with text to paste, or an error of ours."""
    assert outcome(FakeSource(tree))


@given(TREES, st.sampled_from([framework.name for framework in FRAMEWORKS]))
def test_any_file_for_any_framework(tree, name):
    """The same when a framework is forced on it."""
    assert outcome(FakeSource(tree), name)


@given(TREES, st.lists(_WORDS, min_size=1, max_size=3).map(".".join))
def test_any_path(tree, path):
    """The same with any path to an optimizer."""
    assert outcome(FakeSource(tree), None, [path])


@given(TREES, TREES, TREES, TREES)
def test_any_folder(optimizer, scheduler, state, arguments):
    """The same for a folder with Trainer's files."""
    files = {
        "optimizer.pt": optimizer,
        "scheduler.pt": scheduler,
        "trainer_state.json": state,
        "training_args.bin": arguments,
    }
    assert outcome(FakeSource(files=files, path="checkpoint-5"))
