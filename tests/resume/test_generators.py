"""All generators of a run are set to where they were."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler

from liontool.errors import ResumeError
from liontool.resume.difference import difference
from liontool.resume.encoding import decode_state, encode_state
from liontool.resume.generators import Generators
from support.exact_loaders import Augmented, Shuffling, WithOwnGenerators, loader, owned
from support.exact_runs import draws

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


def names(**options: Any) -> set[str]:
    dataset = options.pop("dataset", Augmented())
    return set(Generators(loader(dataset, **options)).state()["loader"])


def test_global_ones() -> None:
    """Python's, NumPy's and torch's."""
    generators = Generators(None)
    state = generators.state()
    expected = draws()
    draws()
    generators.load(state)
    assert draws() == expected


def test_gauss_is_in_the_middle() -> None:
    """A second normal number that a generator has in store is part of its state."""
    random.gauss(0, 1), np.random.randn(), torch.randn(1)
    generators = Generators(None)
    state = generators.state()
    expected = random.gauss(0, 1), np.random.randn(), torch.randn(3).tolist()
    generators.load(state)
    assert (random.gauss(0, 1), np.random.randn(), torch.randn(3).tolist()) == expected


def test_survives_being_saved() -> None:
    """The state comes back from a checkpoint as it was."""
    state = Generators(loader(WithOwnGenerators(), generator=owned())).state()
    saved = encode_state(state)
    assert difference(state, decode_state(saved.tree, saved.tensors.__getitem__, {})) is None


def test_where_they_are_found() -> None:
    """In the loader, its samplers, its data set and its collate function; each one once."""
    own = owned()
    assert names() == set()
    assert names(shuffle=True) == {"sampler.generator"}
    assert names(shuffle=True, generator=own) == {"generator"}
    assert names(sampler=Shuffling(random.Random(1))) == {"sampler.generator"}
    batches = BatchSampler(RandomSampler(Augmented(), generator=own), 2, False)
    assert names(batch_sampler=batches) == {"batch_sampler.sampler.generator"}
    assert names(dataset=WithOwnGenerators()) == {
        "dataset.draws.0",
        "dataset.draws.1",
        "dataset.draws.2",
        "dataset.torch",
    }


class Holder:
    """Anything that holds another thing."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def collate(self, samples: Any) -> Any:
        return samples


def in_module(inner: Any) -> torch.nn.Module:
    module = torch.nn.Sequential(torch.nn.Identity())
    module[0].inner = inner
    return module


def closure(inner: Any) -> Any:
    return lambda samples: (samples, inner)


@pytest.mark.parametrize(
    ("hold", "path"),
    [
        (lambda own: Holder({"a": own}), "inner.a"),
        (lambda own: Holder({"a": {1: [own]}}), "inner.a.1.0"),
        (lambda own: Holder(in_module(own)), "inner.0.inner"),
        (in_module, "0.inner"),
        (closure, "inner"),
        (lambda own: partial(closure(None), own), "args.0"),
        (lambda own: partial(closure(None), rng=own), "rng"),
        (lambda own: Holder(own).collate, "__self__.inner"),
    ],
)
def test_in_containers(hold: Any, path: str) -> None:
    """In dicts and modules, and in what a function was made with."""
    assert names(collate_fn=hold(random.Random(1))) == {f"collate_fn.{path}"}


def test_the_search_ends() -> None:
    """A large data set is not searched to its last object."""
    many = Holder({str(one): {two: [[object()] * 9] for two in range(99)} for one in range(999)})
    begun = time.monotonic()
    assert names(collate_fn=many.collate) == set()
    assert time.monotonic() - begun < 1


def test_own_ones_are_set() -> None:
    """Generators of a data set go on where they were."""
    dataset = WithOwnGenerators()
    generators = Generators(loader(dataset))
    state = generators.state()
    expected = dataset[0]
    generators.load(state)
    assert torch.equal(dataset[0], expected)


def test_unknown() -> None:
    """Those that only one of two runs has are named, and the others are set all the same."""
    one, other = Generators(loader(Augmented(), generator=owned())), Generators(None)
    assert other.unknown(one.state()) == ["generator"]
    assert one.unknown(other.state()) == ["generator"]
    state = one.state()
    expected = draws()
    other.load(state)
    assert draws() == expected


def test_gpus_that_are_gone() -> None:
    """A generator of a GPU that this machine has not is named."""
    state = {**Generators(None).state(), "cuda": [torch.get_rng_state()] * 99}
    assert "cuda:98" in Generators(None).unknown(state)
    Generators(None).load({**state, "cuda": []})


def test_the_system_has_no_state() -> None:
    """A generator that asks the system has nothing to save."""
    assert names(sampler=Shuffling(random.SystemRandom())) == set()


def test_not_a_state() -> None:
    """A generator that does not take its state is named."""
    state = Generators(None).state()
    with pytest.raises(ResumeError, match="generators cannot be set as the checkpoint says"):
        Generators(None).load({**state, "python": (3, (1, 2), None)})
