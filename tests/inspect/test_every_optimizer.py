"""`verify` of what real optimizers save: a sound run has no error, whatever its optimizer keeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.findings import ERROR, Finding
from liontool.inspect.verify import verify

Make = Callable[..., torch.optim.Optimizer]

# Bitsandbytes and transformers load what is no longer meant to be loaded so.
pytestmark = pytest.mark.filterwarnings("ignore")

_BASES = ("Optimizer",)
_CLASSES = {
    name: found
    for name, found in vars(torch.optim).items()
    if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer) and name not in _BASES
}
_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "Adam": [{}, {"amsgrad": True}],
    "AdamW": [{}, {"amsgrad": True}, {"lr": torch.tensor(1e-3)}],
    "RMSprop": [{}, {"momentum": 0.9, "centered": True}],
    "SGD": [{"lr": 1e-3}, {"lr": 1e-3, "momentum": 0.9}],
}
_CASES = [(name, options) for name in _CLASSES for options in _OPTIONS.get(name, [{}])]


class Mixed(torch.nn.Module):
    """Weights of four, two and one dimensions, and rows that take sparse gradients if asked to."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.rows = torch.nn.Embedding(9, 16, sparse=sparse)
        self.pixels = torch.nn.Conv2d(1, 2, 3, padding=1)
        self.norm = torch.nn.LayerNorm(32)
        self.head = torch.nn.Linear(32, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        seen = self.pixels(self.rows(tokens).reshape(-1, 1, 4, 4))
        return self.head(self.norm(seen.flatten(1)))


def params_for(name: str, model: Mixed) -> Iterable[torch.nn.Parameter]:
    """All weights, or the kind that an optimizer is for."""
    kinds = {"SparseAdam": [model.rows.weight], "Muon": [model.head.weight]}
    return kinds.get(name, model.parameters())


def findings(make: Make, name: str, folder: Path, steps: int = 4, **options: Any) -> list[Finding]:
    """What `verify` finds after some steps."""
    torch.manual_seed(0)
    model = Mixed(sparse=name == "SparseAdam")
    optimizer = make(params_for(name, model), **options)

    @torch.enable_grad()
    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.arange(9)).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        optimizer.step(closure)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, folder / "run.pt")
    return list(verify(folder / "run.pt").findings)


@pytest.mark.parametrize(("name", "options"), _CASES)
def test_torch(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Of what torch's own optimizers save nothing is said, not even a note."""
    assert findings(_CLASSES[name], name, tmp_path, **options) == []


_PACKAGES = {
    "transformers.optimization": [
        ("Adafactor", {}),
        ("Adafactor", {"lr": 1e-3, "relative_step": False, "beta1": 0.9}),
    ],
    "bitsandbytes.optim": [
        ("AdamW8bit", {}),
        ("AdEMAMix", {}),
        ("Adagrad", {}),
        ("LAMB", {}),
        ("Lion8bit", {}),
        ("PagedAdamW", {}),
        ("RMSprop", {}),
        ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    ],
    "lion_pytorch": [("Lion", {})],
    "optimi": [("AdamW", {"lr": 1e-3}), ("Lion", {"lr": 1e-3}), ("SGD", {"lr": 1e-3})],
    "pytorch_optimizer": [
        ("A2Grad", {}),
        ("AdaFactor", {}),
        ("AdaPNM", {}),
        ("AdamP", {}),
        ("Adalite", {}),
        ("CAME", {}),
        ("EmoNavi", {}),
        ("Lion", {}),
        ("Prodigy", {}),
        ("ScheduleFreeAdamW", {}),
        ("Shampoo", {}),
        ("SOAP", {}),
    ],
}


@pytest.mark.interop
@pytest.mark.parametrize(
    ("module", "name", "options"),
    [(module, *case) for module, cases in _PACKAGES.items() for case in cases],
)
def test_packages(module: str, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """What others' optimizers save has no errors: matrices factored, rates of their own."""
    make = getattr(pytest.importorskip(module), name)
    found = findings(make, name, tmp_path, **options)
    assert [one for one in found if one.severity == ERROR] == []


def saved(state: dict[str, Any], folder: Path) -> list[str]:
    """Ids of what `verify` finds in a file."""
    torch.save(state, folder / "run.pt")
    return [one.id for one in verify(folder / "run.pt").findings]


def adafactor() -> dict[str, Any]:
    """The state of torch's Adafactor with three matrices and a vector."""
    shapes = ((3, 2), (2, 4), (4, 4), (4,))
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    optimizer = torch.optim.Adafactor(params)
    torch.stack([param.sum() for param in params]).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def test_a_factored_state_that_lacks_a_part(tmp_path: Path) -> None:
    """Adafactor's matrices are held against matrices: one without its rows is told."""
    state = adafactor()
    assert saved(state, tmp_path) == []
    del state["state"][1]["row_var"]
    assert saved(state, tmp_path) == ["state-field-missing"]


def test_a_factored_state_without_rate(tmp_path: Path) -> None:
    """Without a rate of its own Adafactor needs one, whoever made it."""
    state = adafactor()
    state["param_groups"][0]["lr"] = None
    assert saved(state, tmp_path) == ["no-lr"]
    state["param_groups"][0]["relative_step"] = False
    assert saved(state, tmp_path) == ["no-lr"]


def test_state_by_a_word(tmp_path: Path) -> None:
    """Where parameters have numbers, a word is state of the optimizer itself, and is not lost."""
    state = adafactor()
    state["state"]["ema"] = {"short": 0.5}
    assert saved(state, tmp_path) == []
    state["state"][9] = {"step": torch.tensor(1.0)}
    assert "state-without-parameter" in saved(state, tmp_path)
