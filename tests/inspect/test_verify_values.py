"""`verify` on values: what no run has is found, counted, and its first place named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint.values import byte_blocks
from liontool.inspect.verify import MOST, verify
from support.finding_files import entry, found, safetensors, torch_file


def adamw(steps: int = 3) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A small model and an AdamW after some steps."""
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        model(torch.randn(3, 5)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def saved(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, **more: Any
) -> Path:
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return torch_file(path, {**parts, **more})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_weights(value: float, tmp_path: Path) -> None:
    """NaN and infinities are counted, with the indices of the first one."""
    model, optimizer = adamw()
    model.weight.data[2, 1] = model.weight.data[3, 4] = value
    finding = found(saved(tmp_path / "a.pt", model, optimizer))["nonfinite"]
    assert finding.where == "model.weight"
    assert finding.text == "2 of 20 values are NaN or infinite, the first at [2, 1]"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "complex64", "float8_e5m2"])
def test_nonfinite_of_every_type(dtype: str, tmp_path: Path) -> None:
    """Every type that has them, in a view that does not lie in order too."""
    tensor = torch.ones(4, 6).to(getattr(torch, dtype))
    tensor[1, 2] = float("inf")
    path = torch_file(tmp_path / "a.pt", {"w": tensor.t()})
    assert "1 of 24" in found(path)["nonfinite"].text
    assert "at [2, 1]" in found(path)["nonfinite"].text


def test_what_may_be_infinite(tmp_path: Path) -> None:
    """A best score before the first validation and a mask of attention are no damage."""
    model, optimizer = adamw()
    mask = torch.full((4, 4), -float("inf")).triu(1)
    weights = {**model.state_dict(), "mask": mask}
    best = {"best_score": torch.tensor(float("inf"))}
    path = torch_file(
        tmp_path / "a.pt", {"model": weights, "optimizer": optimizer.state_dict(), **best}
    )
    wheres = {f.where for f in verify(path).findings if f.id == "nonfinite-elsewhere"}
    assert wheres == {"model.mask", "best_score"}
    assert "nonfinite" not in found(path)


def test_nan_elsewhere_is_damage(tmp_path: Path) -> None:
    """Many numbers that nobody knows may be infinite, but NaN among them is damage."""
    torch_file(tmp_path / "a.pt", {"rest": [torch.tensor([1.0, float("nan")])], "best": 1})
    torch_file(tmp_path / "b.pt", {"rest": [torch.tensor([1.0, float("inf")])], "best": 1})
    assert "nonfinite" in found(tmp_path / "a.pt")
    assert "nonfinite-elsewhere" in found(tmp_path / "b.pt")


def test_infinite_weights_are_no_mask(tmp_path: Path) -> None:
    """With one number other than zero it is a weight, in whichever block that is."""
    tensor = torch.zeros(3, 200_000)
    tensor[0, 0], tensor[2, 7] = -float("inf"), 0.5
    path = torch_file(tmp_path / "a.pt", {"w": tensor})
    assert "nonfinite" in found(path)


def test_first_place_in_a_later_block(tmp_path: Path) -> None:
    """Places are counted over blocks."""
    tensor = torch.zeros(3, 200_000)
    tensor[2, 7] = float("nan")  # a mask has none
    path = torch_file(tmp_path / "a.pt", {"w": tensor})
    assert len(list(byte_blocks(_only(path)))) > 1
    assert "at [2, 7]" in found(path)["nonfinite"].text


def test_holes_are_not_read(tmp_path: Path) -> None:
    """A tensor that was never written but for its end is as long as it says, and takes no time."""
    size = 1 << 40
    path = safetensors(tmp_path / "a.safetensors", {"w": entry(0, size)}, 0)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + size - 4)
        file.seek(0, 2)
        file.write(b"\0\0\xc0\x7f")
    finding = found(path)["nonfinite"]
    assert finding.text.endswith(f"the first at [{size // 4 - 1}]")


def _only(path: Path) -> Any:
    from liontool.checkpoint.source import open_source

    return open_source(path).document().tree["w"]


def test_moments(tmp_path: Path) -> None:
    """Negative squares and moments of zeros are found; weights may be both."""
    model, optimizer = adamw()
    model.weight.data.fill_(0)
    model.bias.data.fill_(-1)
    optimizer.state[model.weight]["exp_avg_sq"][1, 3] = -1e-9
    optimizer.state[model.bias]["exp_avg"].zero_()
    findings = found(saved(tmp_path / "a.pt", model, optimizer))
    assert set(findings) == {"negative-second-moment", "zero-moment"}
    negative = findings["negative-second-moment"]
    assert negative.where == "optimizer.state.0.exp_avg_sq"
    assert negative.text == "1 of 20 values are negative, the first at [1, 3]"
    assert "1 are zero throughout (1): no gradient" in findings["zero-moment"].text


def test_steps_of_another_checkpoint(tmp_path: Path) -> None:
    """The parameters' steps must be those of the run."""
    path = saved(tmp_path / "a.pt", *adamw(3), step=500)
    assert "made 3 steps, the run 500" in found(path)["step-mismatch"].text
    assert "step-mismatch" not in found(saved(tmp_path / "b.pt", *adamw(3), step=3))


def test_no_values(tmp_path: Path) -> None:
    """Without values headers alone are read."""
    model, optimizer = adamw()
    model.weight.data.fill_(float("nan"))
    result = verify(saved(tmp_path / "a.pt", model, optimizer), values=False)
    assert result.findings == ()
    assert result.bytes_read == 0


def test_progress(tmp_path: Path) -> None:
    """Whoever watches is told of every byte, and the sum is foretold."""
    seen: list[tuple[int, int]] = []
    path = saved(tmp_path / "a.pt", *adamw())
    result = verify(path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (result.bytes_read, result.bytes_read)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_findings_of_one_kind_are_limited(tmp_path: Path) -> None:
    """A file with a million faults of a kind is answered with a thousand of them."""
    header = {f"../{i}": entry(4 * i, 4 * i + 4) for i in range(MOST + 5)}
    result = verify(safetensors(tmp_path / "a.safetensors", header, 0))
    names = [f for f in result.findings if f.id == "path-name"]
    assert len(names) == MOST
    assert names[-1].text.endswith("(and 5 more such findings)")


def test_json(tmp_path: Path) -> None:
    """The result as JSON has a schema, counts, and severities."""
    document = verify(torch_file(tmp_path / "a.pt"), code=True).to_dict()
    assert (document["schema"], document["errors"], document["proof"]) == (1, 0, None)
    assert document["findings"][0]["severity"] == "note"
    assert document["code"][0]["weights_only"] is True
