"""What Lion and LionSF share: groups, state, the frame of a step. Knows no update rule."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from liontool.optim import _loading, _options
from liontool.optim.reference import momentum_beta

Group = dict[str, Any]


class LionBase(Optimizer):
    """Frame of the Lions: all options are in `param_groups`, a parameter's state is `exp_avg`.

    Each group has, beside its options, `horizon` (how many gradients its momentum averages at step
    0, or None), `step` (a 0-d int64 tensor: steps since construction or conversion) and
    `reference_lr` (its first lr, to which `decoupled_weight_decay` is relative).
    """

    def __init__(self, params: ParamsT, options: dict[str, Any]) -> None:
        _options.check(options)
        super().__init__(params, {**options, "horizon": None})

    def add_param_group(self, param_group: Group) -> None:
        """Add a group with its own step count; see `torch.optim.Optimizer.add_param_group`."""
        if isinstance(param_group, dict):  # else torch has the right words
            _complete(param_group, self.defaults)
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a Lion, ours or another's that keeps `exp_avg`.

        Options that the loaded groups lack stay as they were constructed; options of AdamW are
        dropped with a warning; without `step` and `horizon` the momentum counts as long and the
        steps from 0.

        Raises:
            ValueError: The state is Adam's (see `liontool convert`), or does not fit.
        """
        dropped: set[str] = set()
        adopt = partial(_loading.adopted, dropped=dropped)
        # The last hook, so that hooks of the user can mend the dict first.
        handle = self.register_load_state_dict_pre_hook(adopt)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        if dropped:
            names = ", ".join(sorted(dropped))
            warnings.warn(f"{type(self).__name__} does not know and drops: {names}", stacklevel=2)

    def init_state(self) -> None:
        """Create the state of every parameter that requires a gradient and has none yet."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.requires_grad:
                    self._momentum(param)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on every parameter that has a gradient.

        The first step of an optimizer without state, with every lr 0 and every gradient 0, only
        creates state and is not counted: so torch.distributed.checkpoint initialises an optimizer.

        Args:
            closure: Evaluates the model anew and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._refuse_sparse()
        if self._only_initialises():
            self.init_state()
            return loss
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                group["step"].add_(1)
                self._step_group(group, params)
        return loss

    def _step_group(self, group: Group, params: list[Tensor]) -> None:
        raise NotImplementedError

    def _momentum(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if "exp_avg" not in state:
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        exp_avg: Tensor = state["exp_avg"]
        return exp_avg

    def _refuse_sparse(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None and param.grad.is_sparse:
                    raise RuntimeError(
                        f"{type(self).__name__} does not support sparse gradients: its momentum "
                        "moves every row; build the embedding with sparse=False"
                    )

    def _only_initialises(self) -> bool:
        if any(self.state.values()) or any(group["lr"] != 0 for group in self.param_groups):
            return False
        grads = [param.grad for group in self.param_groups for param in group["params"]]
        return not any(grad is not None and bool(grad.count_nonzero()) for grad in grads)


def gradient(param: Tensor, group: Group) -> Tensor:
    """The direction to go down; never the `.grad` of the user with another sign in it."""
    grad = param.grad
    if grad is None:
        raise LookupError("the parameter has no gradient")
    return -grad if group["maximize"] else grad


def scalars(group: Group) -> dict[str, Any]:
    """The arguments of `reference.lion_step` that hold for a whole group, in float64."""
    weight_decay = float(group["weight_decay"])
    if group["decoupled_weight_decay"]:
        weight_decay /= group["reference_lr"]
    beta1, beta2 = (float(beta) for beta in group["betas"])
    beta2 = momentum_beta(beta2, group["horizon"], int(group["step"]))
    return {"lr": float(group["lr"]), "weight_decay": weight_decay, "betas": (beta1, beta2)}


def _complete(group: Group, defaults: dict[str, Any]) -> None:
    options = {**defaults, **group}
    _options.check(options)
    group["betas"] = tuple(options["betas"])
    group.setdefault("reference_lr", float(options["lr"]))
    group["step"] = _loading.step_counter(group.get("step", 0))
    _options.check_reference_lr({**options, **group})
