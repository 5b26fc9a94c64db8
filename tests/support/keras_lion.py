"""The real keras.optimizers.Lion on its torch backend, seen as lists of torch tensors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import Tensor


def keras() -> ModuleType:
    """Keras on torch. Its settings file, which it writes on import, goes to a folder of its own."""
    os.environ["KERAS_BACKEND"] = "torch"
    os.environ.setdefault("KERAS_HOME", os.path.join(tempfile.gettempdir(), "keras-of-the-tests"))
    import keras as module

    return module


class KerasLion:
    """Keras' Lion with variables of its own.

    Args:
        weights: First values of the variables.
        lr: Its `learning_rate`.
        options: Its other arguments.
    """

    def __init__(self, weights: Sequence[Tensor], lr: float = 1e-3, **options: Any) -> None:
        module = keras()
        self.optimizer = module.optimizers.Lion(learning_rate=lr, **options)
        self.variables = [
            module.Variable(value.detach().clone(), dtype=str(value.dtype).removeprefix("torch."))
            for value in weights
        ]
        self.optimizer.build(self.variables)

    def step(self, grads: Sequence[Tensor | None]) -> None:
        """One micro-step."""
        self.optimizer.apply([None if g is None else g.clone() for g in grads], self.variables)

    def weights(self) -> list[Tensor]:
        """Copies of the variables."""
        return _copies(self.variables)

    def momenta(self) -> list[Tensor]:
        """Copies of the momenta."""
        return _copies(self.optimizer._momentums)

    def averages(self) -> list[Tensor]:
        """Copies of the moving averages."""
        return _copies(self.optimizer._model_variables_moving_average)


def _copies(variables: Sequence[Any]) -> list[Tensor]:
    return [variable.value.detach().clone() for variable in variables]
