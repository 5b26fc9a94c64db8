"""A parameter that an optimizer changes is saved by some part of the run, or the run is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from liontool.errors import ResumeError
from support.run_parts import Parts, net


class Scale:
    """A thing that keeps a parameter and is no module."""

    def __init__(self, param: nn.Parameter) -> None:
        self.param = param

    def state_dict(self) -> dict[str, Any]:
        return {"inner": [self.param.detach()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.param.data.copy_(state["inner"][0])


def adam(*params: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": list(group)} for group in params], lr=0.1)


def test_refused() -> None:
    """A parameter of no module is named by its place, with the way out."""
    model, stray = net(), nn.Parameter(torch.ones(2, 3))
    match = (
        r"^optimizer: parameter 1 of group 1, of shape \[2, 3\], is in no module of the run, so it "
        r"would not be saved; pass the module that has it as a keyword, or "
        r"more=torch.nn.ParameterList\(\[...\]\)$"
    )
    with pytest.raises(ResumeError, match=match):
        Parts(model, adam(model[0].parameters(), [model[2].weight, stray])).census()


def test_refused_in_an_extra() -> None:
    """So is one of another optimizer."""
    model, stray = net(), nn.Parameter(torch.ones(()))
    parts = Parts(model, adam(model.parameters()), extras={"critic_opt": adam([stray])})
    with pytest.raises(ResumeError, match=r"^critic_opt: parameter 0 of group 0, of shape \[\]"):
        parts.census()


@pytest.mark.parametrize(
    "extra", [lambda param: nn.ParameterList([param]), Scale], ids=["module", "state"]
)
def test_held(extra: Any) -> None:
    """A module that has it is enough, and anything that has it in its state."""
    model, param = net(), nn.Parameter(torch.ones(3))
    parts = Parts(model, adam(model.parameters(), [param]), extras={"more": extra(param)})
    assert "more" in parts.census().live()["extras"]


def test_wrapped() -> None:
    """Wrappers of the model hold its parameters."""
    model = net()
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    assert Parts(wrapped, adam(model.parameters())).census().live()["optimizer"]


def test_a_buffer() -> None:
    """A tensor that an optimizer changes may be a buffer of a module."""
    model = net()
    model.register_buffer("scale", torch.ones(2))
    model.scale.requires_grad_()
    assert Parts(model, adam([*model.parameters(), model.scale])).census().live()["optimizer"]
