"""Which tensors are the weights of which parameters."""

from __future__ import annotations

from liontool.checkpoint.frameworks.weights import weights_by_name
from support.fake_source import tensor


def shapes(names, *candidates):
    return {name: w.shape for name, w in weights_by_name(names, candidates).items()}


def model(*, prefix="", **weights):
    return {f"{prefix}{name}": tensor(*shape) for name, shape in weights.items()}


def test_one_prefix_for_all():
    """A wrapper puts one prefix before every name."""
    assert shapes(["w", "b"], model(prefix="module.", w=(3, 4), b=(4,))) == {"w": (3, 4), "b": (4,)}


def test_all_names_are_needed():
    """A mapping that lacks a name is not the model, and another one may be."""
    assert shapes(["w", "b"], model(w=(3, 4)), model(w=(5,), b=(4,))) == {"w": (5,), "b": (4,)}


def test_names_of_a_part():
    """Names relative to one part of a model fit the other parts too; which is meant is not told."""
    parts = {**model(prefix="body.", w=(3, 4)), **model(prefix="head.", w=(4, 2))}
    assert shapes(["w"], parts) == {}


def test_parts_of_equal_shapes():
    """Where all shapes agree, either is right."""
    parts = {**model(prefix="body.", w=(3, 4)), **model(prefix="head.", w=(3, 4))}
    assert shapes(["w"], parts) == {"w": (3, 4)}


def test_models_that_differ():
    """So for two models in one file, and for two that are equal, as averages are."""
    assert shapes(["w"], model(w=(3, 4)), model(w=(4, 2))) == {}
    assert shapes(["w"], model(w=(3, 4)), model(w=(3, 4))) == {"w": (3, 4)}


def test_names_that_repeat():
    """A name that stands for two parameters tells nothing of either."""
    assert shapes(["w", "b", "w"], model(w=(3, 4), b=(4,))) == {}


def test_no_names():
    """Nothing is known of parameters without names."""
    assert shapes([], model(w=(3, 4))) == {}
