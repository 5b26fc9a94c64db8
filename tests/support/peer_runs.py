"""Optimizers of torch, and optax.lion, on weights of their own, seen as lists of torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer


class Run(Protocol):
    """An optimizer on weights of its own."""

    def step(self, grads: Sequence[Tensor]) -> None:
        """One step."""

    def weights(self) -> list[Tensor]:
        """Copies of the weights."""

    def momenta(self) -> list[Tensor]:
        """Copies of the momenta."""


class TorchRun:
    """A torch.optim.Optimizer on new parameters.

    Args:
        weights: First values.
        make: From parameters to the optimizer.
    """

    def __init__(
        self, weights: Sequence[Tensor], make: Callable[[list[Parameter]], Optimizer]
    ) -> None:
        self.params = [Parameter(value.detach().clone()) for value in weights]
        self.optimizer = make(self.params)

    def step(self, grads: Sequence[Tensor]) -> None:
        """One step, each parameter with a gradient of its own."""
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = grad.clone()
        self.optimizer.step()

    @torch.no_grad()
    def set(self, weights: Sequence[Tensor], momenta: Sequence[Tensor]) -> None:
        """Give it other weights and momenta; its state has to be there."""
        for param, weight, momentum in zip(self.params, weights, momenta, strict=True):
            param.copy_(weight)
            self.optimizer.state[param]["exp_avg"].copy_(momentum)

    def weights(self) -> list[Tensor]:
        """Copies of the weights."""
        return [param.detach().clone() for param in self.params]

    def momenta(self) -> list[Tensor]:
        """Copies of the momenta, zeros before the first step."""
        state = self.optimizer.state
        return [state[p].get("exp_avg", torch.zeros_like(p)).detach().clone() for p in self.params]


class OptaxRun:
    """optax.lion, with 64 bits where the weights have them.

    Args:
        weights: First values.
        lr: Its `learning_rate`.
        options: Its other arguments.
    """

    def __init__(self, weights: Sequence[Tensor], lr: float, **options: Any) -> None:
        self.dtype = weights[0].dtype
        initial, self._step = _optax_lion(lr, tuple(options.items()))
        self.params = [self._from_torch(value) for value in weights]
        self.state = initial(self.params)

    def step(self, grads: Sequence[Tensor]) -> None:
        """One step."""
        arrays = [self._from_torch(grad) for grad in grads]
        self.params, self.state = self._step(self.params, arrays, self.state)

    def weights(self) -> list[Tensor]:
        """Copies of the weights."""
        return [self._to_torch(array) for array in self.params]

    def momenta(self) -> list[Tensor]:
        """Copies of the momenta."""
        return [self._to_torch(array) for array in self.state[0].mu]

    def _from_torch(self, tensor: Tensor) -> Any:
        import jax.numpy as jnp

        # numpy has no bfloat16 of its own; float32 holds each of its values.
        exact = tensor.detach().float() if tensor.dtype == torch.bfloat16 else tensor.detach()
        return jnp.asarray(exact.numpy(), dtype=str(self.dtype).removeprefix("torch."))

    def _to_torch(self, array: Any) -> Tensor:
        import numpy as np

        wide = np.complex64 if self.dtype.is_complex else np.float64
        return torch.tensor(np.asarray(array).astype(wide)).to(self.dtype)


@cache
def _optax_lion(lr: float, options: tuple[tuple[str, Any], ...]) -> tuple[Any, Any]:
    """How its state begins, and a compiled step."""
    import jax
    import optax

    jax.config.update("jax_enable_x64", True)
    transformation = optax.lion(lr, **dict(options))

    def step(params: Any, grads: Any, state: Any) -> Any:
        updates, state = transformation.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return transformation.init, jax.jit(step)
