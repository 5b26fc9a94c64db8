"""Samples whose random numbers depend on nothing but seed, pass and index."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, StackDataset, Subset

from liontool.resume import SampleSeeded
from liontool.resume.sample_seeded import is_seeded, seeded_parts
from support.exact_loaders import Augmented, Counting, PlainStream, loader

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


def test_repeats() -> None:
    """The same sample twice, in any order and whatever was drawn before, is the same."""
    dataset = SampleSeeded(Augmented())
    first = dataset[3]
    dataset[4], torch.rand(5), random.random(), np.random.rand()
    assert torch.equal(dataset[3], first)


@pytest.mark.parametrize("what", ["seed", "pass", "index"])
def test_differs(what: str) -> None:
    """Another seed, pass or index makes other numbers of all three generators."""
    one, other = (
        SampleSeeded(Augmented(), seed=1),
        SampleSeeded(Augmented(), seed=1 + (what == "seed")),
    )
    other.pass_index = int(what == "pass")
    noise = (one[0] - 0, other[1] - 1 if what == "index" else other[0])
    assert (noise[0] != noise[1]).all()


def test_leaves_generators_alone() -> None:
    """After a sample the generators go on where they were."""
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    SampleSeeded(Augmented())[0]
    assert (random.random(), np.random.rand(), torch.rand(())) == expected


def test_leaves_generators_alone_after_an_error() -> None:
    """Also if the sample cannot be made."""
    torch.manual_seed(1)
    expected = torch.rand(())
    torch.manual_seed(1)
    with pytest.raises(TypeError):
        SampleSeeded(Augmented())["a"]
    assert torch.rand(()) == expected


@pytest.mark.parametrize("index", [2, np.int64(2), torch.tensor(2)])
def test_kinds_of_index(index: Any) -> None:
    """An index is the same whichever integer it is."""
    assert torch.equal(SampleSeeded(Augmented())[index], SampleSeeded(Augmented())[2])


def test_any_number_of_workers() -> None:
    """No worker and two give the same samples."""
    batches = [list(loader(SampleSeeded(Augmented()), num_workers=workers)) for workers in (0, 2)]
    assert torch.equal(torch.cat(batches[0]), torch.cat(batches[1]))


def test_length() -> None:
    """It is as long as what it wraps."""
    assert len(SampleSeeded(Augmented(7))) == 7


def test_state_is_that_of_the_data_set() -> None:
    """The state of a data set is kept through it; without one there is none."""
    inner = Counting()
    dataset = SampleSeeded(inner)
    dataset.load_state_dict({"read": 5})
    assert inner.read == 5
    assert dataset.state_dict() == {"read": 5}
    assert not hasattr(SampleSeeded(Augmented()), "state_dict")


@pytest.mark.parametrize("dataset", [PlainStream(), iter([1])])
def test_streams_are_refused(dataset: Any) -> None:
    """What has no indexes cannot be seeded by them."""
    with pytest.raises(ValueError, match="needs a data set with indexes, got"):
        SampleSeeded(dataset)


class Around(Dataset[Any]):
    """A wrapper that may draw numbers itself."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset


def test_wrappers() -> None:
    """The parts are found in any wrapper; only torch's own are known to draw nothing."""
    one, other = SampleSeeded(Augmented()), SampleSeeded(Augmented())
    both = ConcatDataset([Subset(one, [1]), other])
    assert list(seeded_parts(both)) == [one, other]
    assert is_seeded(both)
    assert list(seeded_parts(Around(one))) == [one]
    assert not is_seeded(Around(one))
    assert not is_seeded(ConcatDataset([one, Augmented()]))
    assert is_seeded(StackDataset(a=one, b=other))
