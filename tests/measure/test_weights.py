"""Which weights the moments of an optimizer belong to."""

from __future__ import annotations

from liontool.checkpoint.frameworks import find
from liontool.measure.weights import weights_by_slot
from support.fake_source import FakeSource, adamw, tensor


def found(tree):
    """The weights of the only optimizer, and the slots with the weights that they were given."""
    source = FakeSource(tree)
    checkpoint = find(source)[1]
    return weights_by_slot(source, checkpoint, checkpoint.optimizers[0])


def test_by_name():
    """A name tells the weight, also where shapes do not."""
    model = {"module.b": tensor(4), "module.a": tensor(4)}
    tree = {"model": model, "optimizer": adamw(shapes=((4,), (4,)), param_names=["a", "b"])}
    assert found(tree) == {0: model["module.a"], 1: model["module.b"]}


def test_by_shape_in_one_group():
    """Without names, a shape that one group alone has tells the group."""
    model = {"w": tensor(3, 4), "b": tensor(4), "more": tensor(7)}
    tree = {"model": model, "optimizer": adamw(groups=2)}
    assert found(tree) == {0: model["w"], 1: model["b"]}


def test_by_shape_in_two_groups():
    """A shape of two groups tells nothing."""
    tree = {"model": {"w": tensor(4)}, "optimizer": adamw(shapes=((4,), (4,)), groups=2)}
    assert found(tree) == {}


def test_names_without_weights():
    """Where the names lead nowhere, shapes are asked."""
    tree = {"w": tensor(3, 4), "optimizer": adamw(param_names=["a", "b"])}
    assert found(tree) == {0: tree["w"]}


def test_moments_are_no_weights():
    """Another optimizer's state has the right shapes, and is not asked."""
    assert found({"a": adamw(), "b": adamw()}) == {}


def test_averages_are_the_last_to_be_asked():
    """Of weights and their average the weights are meant, wherever they stand."""
    for name in ("ema", "model_ema", "ema.weights"):
        tree = {name: {"w": tensor(3, 4), "b": tensor(4)}, "net": {"w": tensor(3, 4)}}
        for names in ([], ["w"]):
            state = adamw(shapes=((3, 4),), param_names=names) if names else adamw()
            assert found({**tree, "optimizer": state})[0] is tree["net"]["w"]
    schema = {"schema": {"w": tensor(3, 4)}, "net": {"w": tensor(3, 4)}, "optimizer": adamw()}
    assert found(schema)[0] is schema["schema"]["w"]
