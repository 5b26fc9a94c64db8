"""Other people's Lions, each as something that is built on weights and takes steps.

lion-sf, google/automl and timm are rules rewritten from their formulas (`peer_rules`). Where the
environment names their own files, these run instead: LION_SF_SOURCE, AUTOML_LION_SOURCE (paths of
the files); timm's is taken from an installed timm.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from support import peer_rules
from support.keras_lion import KerasLion
from support.peer_runs import OptaxRun, Run, TorchRun

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ALL = (*FLOATS, torch.complex64)

Class = Callable[..., Optimizer]


@dataclass(frozen=True)
class Peer:
    """Somebody's Lion.

    Args:
        name: As people call it.
        package: What pip calls it, or the version that a rule was rewritten from.
        build: From weights, learning rate and its own options to a run.
        imports: Module that has to be there; none for rules.
        dtypes: What it takes.
        heavy: Takes more than a second to import.
    """

    name: str
    package: str
    build: Callable[..., Run]
    imports: str | None = None
    dtypes: tuple[torch.dtype, ...] = FLOATS
    heavy: bool = field(default=False, kw_only=True)

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return self.imports is None or importlib.util.find_spec(self.imports) is not None

    @property
    def label(self) -> str:
        """Name and version: `lion-pytorch 0.2.5, foreach`, or `lion-sf (rule of 3d99ca0)`."""
        if self.imports is None:
            return f"{self.name} (rule of {self.package})"
        package, comma, variant = self.name.partition(",")
        return f"{package} {metadata.version(self.package)}{comma}{variant}"


def torch_peer(find: Callable[[], Class]) -> Callable[..., Run]:
    """The `build` of a peer that is an optimizer of torch; it is imported when it is built."""

    def build(weights: Sequence[Tensor], lr: float, **options: Any) -> Run:
        return TorchRun(weights, lambda params: find()(params, lr=lr, **options))

    return build


def lion_pytorch(module: str = "lion_pytorch") -> Class:
    """One of lion-pytorch's three classes, all called Lion."""
    return _attribute(f"lion_pytorch.{module}", "Lion")


def lion_sf() -> Class:
    """LionSF: the file that LION_SF_SOURCE names, else the rewritten rule."""
    return lion_sf_file() or _rule(peer_rules.lion_sf, pow=1.0)


def automl() -> Class:
    """The authors' Lion: the file that AUTOML_LION_SOURCE names, else the rewritten rule."""
    return automl_file() or _rule(peer_rules.automl)


def timm() -> Class:
    """timm's Lion if timm is installed, else the rewritten rule."""
    return timm_file() or _rule(peer_rules.timm, caution=False, maximize=False, foreach=None)


def lion_sf_file() -> Class | None:
    """The class in the file that LION_SF_SOURCE names."""
    return _own("LION_SF_SOURCE")


def automl_file() -> Class | None:
    """The class in the file that AUTOML_LION_SOURCE names."""
    return _own("AUTOML_LION_SOURCE")


def timm_file() -> Class | None:
    """The class in the folder `timm/optim`, under a parent package that stands in for timm.

    timm itself would import torchvision.
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return None
    parent = types.ModuleType("timm_optim_alone")
    parent.__path__ = [str(Path(folder) / "optim") for folder in spec.submodule_search_locations]
    sys.modules.setdefault(parent.__name__, parent)
    return _attribute(f"{parent.__name__}.lion", "Lion")


def _own(variable: str) -> Class | None:
    path = os.environ.get(variable)
    if not path:
        return None
    spec = importlib.util.spec_from_file_location(variable.lower(), path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{variable}={path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Lion


def _rule(rule: peer_rules.Rule, **defaults: Any) -> Class:
    return partial(peer_rules.RuleOptimizer, rule=rule, **defaults)


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("lion-pytorch", "lion-pytorch", torch_peer(lion_pytorch), "lion_pytorch"),
        Peer(
            "lion-pytorch, foreach",
            "lion-pytorch",
            torch_peer(lambda: lion_pytorch("foreach")),
            "lion_pytorch",
        ),
        Peer(
            "lion-pytorch, cautious",
            "lion-pytorch",
            torch_peer(lambda: lion_pytorch("cautious_lion")),
            "lion_pytorch",
        ),
        Peer("lion-sf", "3d99ca0", torch_peer(lion_sf)),
        Peer("google/automl", "14d8bbd", torch_peer(automl)),
        Peer("timm", "1.0.31", torch_peer(timm), dtypes=ALL),
        Peer("Keras", "keras", KerasLion, "keras", heavy=True),
        Peer("optax", "optax", OptaxRun, "optax", heavy=True),
        Peer(
            "optimi",
            "torch-optimi",
            torch_peer(lambda: _attribute("optimi", "Lion")),
            "optimi",
            heavy=True,
        ),
        Peer(
            "pytorch_optimizer",
            "pytorch_optimizer",
            torch_peer(lambda: _attribute("pytorch_optimizer", "Lion")),
            "pytorch_optimizer",
            ALL,
            heavy=True,
        ),
    )
}
