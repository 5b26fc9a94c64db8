"""Optimizers as a run leaves them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from liontool.checkpoint.document import Computed, TensorRef
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Slot
from support.torch_models import optimizer_of


def adamw_after(steps, params=None, groups=None, kind=torch.optim.AdamW, **options):
    """An AdamW after `steps` steps on noise."""
    torch.manual_seed(0)
    params = params or [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    options = {"lr": 0.01, "weight_decay": 0.1, **options}
    optimizer = kind(groups or params, **options)
    for _ in range(steps):
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param.requires_grad:
                    param.grad = torch.randn_like(param)
        optimizer.step()
    return optimizer


@pytest.fixture
def adamw():
    """Makes an AdamW as a model object: `adamw(60)`, `adamw(5, amsgrad=True)`."""
    return lambda steps, *args, **options: optimizer_of(
        adamw_after(steps, *args, **options).state_dict()
    )


def _array_ref(array):
    data = np.ascontiguousarray(array, np.float32).tobytes()
    return TensorRef("float32", array.shape, Computed(lambda: iter([data])))


def _stream(mean, rng, betas, steps, live):
    """Adam's moments after gradients of `mean` plus noise, in a share `live` of the rows."""
    first = np.zeros(mean.shape, np.float32)
    second = np.zeros_like(first)
    for _ in range(steps):
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        grad = mean + np.sqrt(1 - mean**2) * noise
        if live < 1:
            grad = grad * (rng.random((len(mean), 1)) < live)
        first = betas[0] * first + (1 - betas[0]) * grad
        second = betas[1] * second + (1 - betas[1]) * grad * grad
    return first, second


@pytest.fixture
def gaussian():
    """Makes the model of an AdamW whose gradients are normal with a mean: one slot for each s."""

    def make(*means, shape=(1000, 100), steps=400, betas=(0.9, 0.999), live=1.0, **group):
        rng = np.random.default_rng(7)
        slots = {}
        for key, s in enumerate(means):
            mean = np.full(shape, s, np.float32)
            first, second = _stream(mean, rng, betas, steps, live)
            state = {"exp_avg": _array_ref(first), "exp_avg_sq": _array_ref(second)}
            slots[key] = Slot(key, Fields({"step": float(steps), **state}), f"layer.{key}")
        options = {"lr": 1e-3, "betas": betas, "eps": 1e-12, "weight_decay": 0.1, "amsgrad": False}
        fields = Fields({**options, "decoupled_weight_decay": True, **group})
        return Optimizer("", (ParamGroup(fields, tuple(slots)),), slots)

    return make
