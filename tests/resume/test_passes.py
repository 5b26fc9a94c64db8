"""Where a run stands in its data."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

from liontool.errors import ResumeError
from liontool.resume import SampleSeeded
from liontool.resume.passes import Passes
from support.exact_loaders import Augmented, Plain, loader, owned

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


def passes(made: Any) -> Passes:
    return Passes(made, contextlib.nullcontext)


def rest(of: Passes) -> list[list[float]]:
    """First number of each sample in the rest of the pass."""
    batches = []
    with contextlib.suppress(StopIteration):
        while True:
            batches.append(of.draw()[:, 0].tolist())
    return batches


def where(of: Passes) -> tuple[int, int, bool]:
    return of.epoch, of.drawn, of.between


def test_counts() -> None:
    """Batches count in their pass, passes when they have ended."""
    one = passes(loader(Plain(10)))
    assert where(one) == (0, 0, True)
    one.draw()
    assert where(one) == (0, 1, False)
    assert rest(one) == [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
    assert where(one) == (1, 0, True)
    assert len(rest(one)) == 5
    assert where(one) == (2, 0, True)


def test_looking_changes_nothing() -> None:
    """To ask for the state makes no iterator and draws no number."""
    made = loader(Augmented(), shuffle=True)
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    state = passes(made).state()
    assert torch.rand(()) == expected
    assert state["loader"] is None
    assert made._iterator is None


def test_the_script_may_use_the_loader_too() -> None:
    """A pass of the script over the same loader does not disturb the run's."""
    made = loader(Plain(10))
    one, other = passes(made), passes(loader(Plain(10)))
    one.draw()
    list(made)
    other.load(one.state())
    assert rest(other) == rest(one) == [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]


def test_nothing_is_restored_before_it_is_needed() -> None:
    """What was loaded is the state until a batch is asked for."""
    one, other = passes(loader(Plain(10))), passes(loader(Plain(10)))
    one.draw()
    state = one.state()
    other.load(state)
    assert other.state() == state


def test_end_of_a_pass() -> None:
    """A state after the last batch is an empty rest; one after the end is a new pass."""
    one = passes(loader(Plain(10)))
    for _ in range(5):
        one.draw()
    state = one.state()
    for made, count in ((state, 0), (None, 5)):
        other = passes(loader(Plain(10)))
        if made is None:
            assert rest(one) == []
        other.load(made or one.state())
        assert len(rest(other)) == count


def test_seeded_samples_know_their_pass() -> None:
    """Each pass has numbers of its own, also after a restart."""
    dataset = SampleSeeded(Augmented())
    one = passes(loader(dataset))
    first, second = rest(one), rest(one)
    assert first != second
    assert dataset.pass_index == 1
    again = passes(loader(SampleSeeded(Augmented())))
    again.load(
        {**passes(loader(Plain(10))).state(), "run": {"epoch": 1, "drawn": 0, "between": True}}
    )
    assert rest(again) == second


def test_no_batches() -> None:
    """A loader that gives none would never end a run."""
    with pytest.raises(ResumeError, match="gave no batch in a whole pass"):
        passes(loader(Plain(1), drop_last=True)).draw()


def test_no_batches_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was loaded at its end may begin with an empty pass; later ones are an error."""
    one = passes(loader(Plain(4)))
    rest(one)
    again = passes(loader(Plain(4)))
    again.load(one.state())
    assert len(rest(again)) == 2
    made_next = iter([iter(()), iter([torch.zeros(2, 3)])])
    monkeypatch.setattr(again, "_made", lambda: next(made_next))
    with pytest.raises(ResumeError, match="gave no batch in a whole pass"):
        again.draw()


def test_another_number_of_workers() -> None:
    """A loader that cannot take the place says so; if it may differ, the pass begins again."""
    one = passes(loader(Plain(10)))
    one.draw()
    other, third = (passes(loader(Plain(10), num_workers=1)) for _ in range(2))
    other.load(one.state())
    with pytest.raises(ResumeError, match=r"does not take its place.*build it as it was"):
        other.draw()
    said: list[str] = []
    third.load(one.state(), said.append)
    assert len(rest(third)) == 5
    third.end()
    assert len(said) == 1
    assert said[0].endswith("the pass begins again")


@pytest.mark.parametrize("stays", [False, True])
def test_workers_go(stays: bool) -> None:
    """At the end no worker is left, and the loader can be used again."""
    made = loader(Plain(10), num_workers=2, persistent_workers=stays)
    one = passes(made)
    one.draw()
    workers = one._iterator._workers
    one.end()
    assert not any(worker.is_alive() for worker in workers)
    assert len(list(made)) == 5
    passes(made).end()
    if stays:
        made._iterator._shutdown_workers()


def test_generators_as_the_pass_began() -> None:
    """Kept over a restart in the middle of a pass, for the next one."""
    one = passes(loader(Plain(10), shuffle=True, generator=owned()))
    one.draw()
    began = one.state()["pass_generators"]
    other = passes(loader(Plain(10), shuffle=True, generator=owned()))
    other.load(one.state())
    other.draw()
    assert torch.equal(other.state()["pass_generators"]["torch"], began["torch"])
    assert torch.equal(
        other.state()["pass_generators"]["loader"]["generator"], began["loader"]["generator"]
    )
