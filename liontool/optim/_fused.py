"""The step of an optimizer by one call of a kernel, prepared once and kept while it holds."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from liontool.optim import _dispatch, _kernels, _sharding
from liontool.optim._batch import Batch, Group, Piece, real_gradient, reals, tell_autograd
from liontool.optim.kernels import cpu_objects

# No kernel is chosen by it.
_MOVING = "lr"
# Every pass over the tensors of a model counts: `map` makes them without a frame for each tensor.
_GRAD = operator.attrgetter("grad")
_DTYPE = operator.attrgetter("dtype")
_LAYOUT = operator.attrgetter("layout")
_SHAPE = operator.attrgetter("shape")
_EXP_AVG = operator.itemgetter("exp_avg")
_RESIDUAL = operator.itemgetter("residual")


class Plan(Protocol):
    """What a kernel has prepared."""

    def holds(self) -> bool:
        """Whether weights and state are where they were."""

    def step(
        self,
        groups: Sequence[Group],
        grads: Sequence[Tensor],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> bool:
        """Do weights and momenta of a step; False, and nothing, if a gradient has no memory."""


class Fused:
    """What a kernel does of an optimizer's steps, as long as all is where it was.

    Attributes:
        groups: The parameter groups with a gradient.
        plan: What the kernel prepared, or None if none can do all groups.
    """

    def __init__(self, optimizer: Optimizer, batches: Sequence[Batch]) -> None:
        """Choose a kernel that can do all groups, and let it prepare.

        Args:
            optimizer: It has state for every parameter with a gradient.
            batches: All of its groups.

        Raises:
            RuntimeError: `fused=True` is asked for, and no kernel can.
        """
        self._optimizer = optimizer
        self._all_groups = list(optimizer.param_groups)
        self._options = _options(optimizer)
        self._counts = _counts(optimizer)
        self._all_params = _all_params(optimizer)
        pieces = [piece for batch in batches for piece in batch.pieces]
        self._params = [piece.param for piece in pieces]
        self._idle = [param for param in self._all_params if param.grad is None]
        self._grads = list(map(_GRAD, self._params))
        self._kinds = _kinds(self._grads)
        self._keys, self._all_entries = list(optimizer.state), list(optimizer.state.values())
        entries = [optimizer.state[param] for param in self._params]
        split = [piece.residual is not None for piece in pieces]
        self._entries = entries, list(itertools.compress(entries, split))
        self._state = self._state_now()
        self._sharded = any(_sharding.local(param) is not param for param in self._params)
        working = [batch for batch in batches if batch.pieces]
        self.groups = [batch.group for batch in working]
        kernel = _kernels.for_groups(self.groups)
        self._takes_scale = kernel is not None and kernel.takes_scale
        self.plan = _plan(kernel, working) if pieces and kernel is not None else None
        looked_at = [each for p in pieces for each in (p.weight, p.grad, p.exp_avg)]
        on_cpu = self.plan is not None and kernel is _kernels.CPU
        self._objects = cpu_objects.Objects(looked_at) if on_cpu else None

    def holds(self) -> bool:
        """Whether all of this is still so; `step` must follow."""
        if self._objects is not None:
            self._objects.fetch()
        self._grads = list(map(_GRAD, self._params))
        try:
            return (
                _same(self._all_groups, self._optimizer.param_groups)
                and self._options == _options(self._optimizer)
                and self._counts == _counts(self._optimizer)
                and _same(self._all_params, _all_params(self._optimizer))
                and all(param.grad is None for param in self._idle)
                and _same(self._keys, list(self._optimizer.state))
                and _same(self._all_entries, list(self._optimizer.state.values()))
                and _same(self._state, self._state_now())
                and self._kinds == _kinds(self._grads)
                and (self.plan is None or self.plan.holds())
            )
        except (AttributeError, KeyError):  # no gradient, no state
            return False

    def step(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> bool:
        """Do weights and momenta of a step; False if no kernel can."""
        grads, self._grads = self._grads, []  # kept no longer than needed
        is_scaled = grad_scale is not None or found_inf is not None
        if self.plan is None or (is_scaled and not self._takes_scale):
            return False
        if self._sharded:
            grads = [real_gradient(param) for param in self._params]
        if any(map(Tensor.is_neg, grads)):
            grads = list(map(Tensor.resolve_neg, grads))
        if not self.plan.step(self.groups, grads, grad_scale, found_inf):
            return False
        if self._sharded:
            for param in self._params:
                tell_autograd(param)
        return True

    def _state_now(self) -> list[Tensor]:
        entries, split = self._entries
        return [*map(_EXP_AVG, entries), *map(_RESIDUAL, split)]


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    names = optimizer.defaults.keys() - {_MOVING}
    return [{name: group[name] for name in names} for group in optimizer.param_groups]


def _all_params(optimizer: Optimizer) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _counts(optimizer: Optimizer) -> list[int]:
    return [len(group["params"]) for group in optimizer.param_groups]


def _same(kept: list[Any], now: list[Any]) -> bool:
    # By identity, without a hash or a comparison of tensors.
    return len(kept) == len(now) and all(map(operator.is_, kept, now))


def _kinds(grads: list[Tensor]) -> tuple[list[Any], ...]:
    """What a kernel is told once of all gradients."""
    return tuple(list(map(kind, grads)) for kind in (type, _DTYPE, _LAYOUT, _SHAPE))


def path_name(group: Group, optimizer: Optimizer) -> str:
    """The path that a group takes, as far as weights and state tell: "loop", "foreach", a kernel's.

    Gradients can be such that a kernel cannot do them; then the path is a plain one.
    """
    kernel = _kernels.for_groups(optimizer.param_groups)
    if kernel is not None:
        module = _module(kernel)
        for each in optimizer.param_groups:
            pieces = (_expected(param, optimizer) for param in each["params"])
            if any(module.unsupported(piece, each) for piece in pieces):
                return _dispatch.plain_path_name(group)
    return _dispatch.plain_path_name(group) if kernel is None else kernel.name


def _expected(param: Tensor, optimizer: Optimizer) -> Piece:
    """What will take part, the gradient and what is not there yet as the weight is."""
    weight = reals(param)
    exp_avg = reals(optimizer.state.get(param, {}).get("exp_avg", param))
    return Piece(param, 0, weight, weight, exp_avg, None, None)


def _module(kernel: _kernels.Kernel) -> Any:
    from liontool.optim import _kernel_cpu, _kernel_triton

    return _kernel_cpu if kernel is _kernels.CPU else _kernel_triton


def _plan(kernel: _kernels.Kernel, batches: Sequence[Batch]) -> Plan | None:
    module = _module(kernel)
    numbered: list[tuple[Piece, int]] = []
    for place, batch in enumerate(batches):
        for piece in batch.pieces:
            reason = module.unsupported(piece, batch.group)
            if reason is not None:
                _kernels.check_reason(batch.group, piece.param, reason)
                return None
        numbered += [(piece, place) for piece in batch.pieces]
    plan: Plan = module.Plan([piece for piece, _ in numbered], [place for _, place in numbered])
    return plan
