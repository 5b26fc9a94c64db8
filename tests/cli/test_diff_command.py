"""`liontool diff` as users run it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import liontool as library
from support.plain_runs import adamw, save, train


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Path]:
    """A run with two groups and a schedule, saved twice, and converted."""
    model, optimizer = adamw(0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 20)
    paths = {}
    for name in ("first", "second"):
        train(model, optimizer, 15, schedule)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                 "scheduler": schedule.state_dict()}  # fmt: skip
        paths[name] = save(state, tmp_path / f"{name}.pt")
    library.convert_checkpoint(paths["first"], lr_ratio=3)
    paths["lion"] = tmp_path / "first.lion.pt"
    return paths


def test_same(liontool: Callable[..., Any], run: dict[str, Path]) -> None:
    """A file and itself are the same, bit for bit, whatever its names."""
    linked = run["first"].with_name("linked.pt")
    linked.hardlink_to(run["first"])
    for other in (run["first"], linked):
        code, out, err = liontool("diff", str(run["first"]), str(other))
        assert (code, err) == (0, "")
        assert out.startswith("same: 24 tensors, bit for bit\n")


def test_conversion(liontool: Callable[..., Any], run: dict[str, Path]) -> None:
    """A conversion reads as what it is: rates divided, decay multiplied, one moment gone."""
    code, out, _ = liontool("diff", str(run["first"]), str(run["lion"]))
    assert code == 1
    assert out.startswith("differ: optimizer class, ")
    assert "12 tensors only in A" in out.partition("\n\n")[0].replace("\n", " ")
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["lr"] == ["lr", "0.01", "0.00333333", "/", "3"]
    assert rows["weight_decay"] == ["weight_decay", "0.1", "0.3", "x", "3"]
    assert rows["scheduler.base_lrs"][-2:] == ["/", "3"]
    assert "state.{0-5}.exp_avg_sq" in out
    assert "identical  12 tensors:" in out
    assert max(map(len, out.splitlines())) <= 80


def test_verdict_in_a_narrow_window(
    liontool: Callable[..., Any], run: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What differs is said in as many lines as it needs."""
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = liontool("diff", str(run["first"]), str(run["lion"]))
    verdict = out.partition("\n\n")[0].splitlines()
    assert len(verdict) > 1
    assert max(map(len, verdict)) <= 60


def test_values(liontool: Callable[..., Any], run: dict[str, Path]) -> None:
    """Tensors that differ are listed, the worst first, steps in one line."""
    code, out, _ = liontool("diff", str(run["first"]), str(run["second"]), "--max", "3")
    assert code == 1
    assert "values of 24 of 24 tensors" in out
    assert "state.{0-5}.step   15   30" in out
    body = out.partition("signs\n")[2].splitlines()[1:4]
    distances = [float(line.split()[1]) for line in body]
    assert distances == sorted(distances, reverse=True)
    assert "and 15 more that differ less" in out


def test_stat(liontool: Callable[..., Any], run: dict[str, Path]) -> None:
    """One line for each template."""
    out = liontool("diff", str(run["first"]), str(run["second"]), "--stat").out
    (line,) = (line for line in out.splitlines() if "exp_avg " in line)
    assert line.split()[:4] == ["state.{0-5}.exp_avg", "6", "of", "6"]
    assert line.endswith("%")


def test_json(liontool: Callable[..., Any], run: dict[str, Path]) -> None:
    """The document has a schema, every field and every tensor."""
    code, out, _ = liontool("diff", str(run["first"]), str(run["second"]), "--json")
    document = json.loads(out)
    assert (code, document["schema"], document["same"]) == (1, 1, False)
    assert len(document["tensors"]) == 24
    fields = {(one["where"], one["field"]): one for one in document["fields"]}
    assert fields["groups.0", "lr"]["factor"] == pytest.approx(0.1)
    moment = next(one for one in document["tensors"] if one["field"] == "exp_avg")
    assert 0 <= moment["values"]["sign_agreement"] <= 1
    assert {"relative_l2", "cosine", "largest", "index"} <= moment["values"].keys()


def test_page_shows_what_is_printed(
    liontool: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The screen in the documentation is the real one, but for the sizes of the files."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, Path("adamw.ckpt"))
    library.convert_checkpoint("adamw.ckpt", lr_ratio=3)
    printed = liontool("diff", "adamw.ckpt", "adamw.lion.ckpt").out
    page = (Path(__file__).parents[2] / "docs" / "diff.md").read_text(encoding="utf-8")
    shown = page.partition("$ liontool diff adamw.ckpt adamw.lion.ckpt\n")[2].partition("```")[0]
    sizes = re.compile(r"[\d.]+ k?B$", re.MULTILINE)
    assert sizes.sub("", shown) == sizes.sub("", printed)


def test_quiet(liontool: Callable[..., Any], run: dict[str, Path]) -> None:
    """The exit code alone."""
    assert liontool("diff", "-q", str(run["first"]), str(run["second"])) == (1, "", "")
    assert liontool("diff", "--quiet", str(run["first"]), str(run["first"])) == (0, "", "")


def test_headers_alone(liontool: Callable[..., Any], tmp_path: Path) -> None:
    """Without values tensors of the same header are the same, and it is said."""
    a, b = (save({"w": torch.full((3,), x)}, tmp_path / f"{x}.pt") for x in (1.0, 2.0))
    assert liontool("diff", str(a), str(b)).code == 1
    code, out, _ = liontool("diff", str(a), str(b), "--no-values")
    assert code == 0
    assert "same, as far as headers tell: 1 tensor, values not compared" in out


def test_tolerance(liontool: Callable[..., Any], tmp_path: Path) -> None:
    """Within the tolerance is the same."""
    a, b = (save({"w": torch.full((3,), x)}, tmp_path / f"{x}.pt") for x in (1.0, 1.001))
    code, out, _ = liontool("diff", str(a), str(b), "--rtol", "1e-2")
    assert (code, out.splitlines()[0]) == (0, "same within the tolerance: 1 tensor")
    assert liontool("diff", str(a), str(b), "--atol", "1e-4").code == 1


def test_structure(liontool: Callable[..., Any], tmp_path: Path) -> None:
    """Tensors that are gone, new, of another shape or another dtype."""
    a = save({"w": torch.ones(2, 3), "x": torch.ones(2), "old": torch.ones(1)}, tmp_path / "a.pt")
    b = save({"w": torch.ones(3, 2), "x": torch.ones(2).bfloat16(), "new": torch.ones(1)},
             tmp_path / "b.pt")  # fmt: skip
    code, out, _ = liontool("diff", str(a), str(b))
    assert code == 1
    assert out.splitlines()[:2] == [
        "differ: 1 tensor only in A, 1 tensor only in B, 1 tensor reshaped, 1 tensor",
        "recast",
    ]
    assert "[2, 3] -> [3, 2]" in out
    assert "float32 -> bfloat16" in out
    assert "equal in value  1 tensor: x" in out


def test_names(liontool: Callable[..., Any], tmp_path: Path) -> None:
    """Wrappers are seen through; what was renamed is told by --map."""
    tensors = {"a.weight": torch.ones(2), "a.bias": torch.zeros(2)}
    plain = save(tensors, tmp_path / "plain.pt")
    wrapped = save({f"module.{k}": v for k, v in tensors.items()}, tmp_path / "wrapped.pt")
    other = save({k.replace("a.", "b."): v for k, v in tensors.items()}, tmp_path / "other.pt")
    code, out, _ = liontool("diff", str(plain), str(wrapped))
    assert code == 0
    assert "names of B begin with 'module.', those of A do not" in out
    assert liontool("diff", str(plain), str(other)).code == 1
    for word in ("a=b", "a.=b.", "*.weight=*.weight"):
        code = liontool("diff", str(plain), str(other), "--map", word).code
        assert code == (1 if "*" in word else 0)
    assert liontool("diff", str(plain), str(other), "--map", "a.*=b.*").code == 0


def test_filter(liontool: Callable[..., Any], run: dict[str, Path]) -> None:
    """Only tensors with such names are compared."""
    out = liontool("diff", str(run["first"]), str(run["lion"]), "--filter", "*.exp_avg").out
    assert "only in A" not in out.splitlines()[0]
    assert "identical  6 tensors: state.{0-5}.exp_avg" in out


def test_nonfinite(liontool: Callable[..., Any], tmp_path: Path) -> None:
    """What is not finite is counted in a column of its own."""
    a, b = (save({"w": torch.tensor([1.0, x])}, tmp_path / f"{x}.pt") for x in (1.0, float("nan")))
    out = liontool("diff", str(a), str(b)).out
    assert "non-finite" in out
    assert out.rstrip().endswith("1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--atol", "x"], "--atol must be a number such as 1e-6, got 'x'"),
        (["--rtol", "-1"], "rtol must be a number of 0 or more, got -1.0"),
        (["--max", "many"], "--max must be a whole number such as 20, got 'many'"),
        (["--map", "a"], "--map a: must be old=new"),
        (["--map", "a.*=b"], "must be old=new with as many"),
        (["--map", "gone=b"], "--map gone=b: nothing in A is called 'gone'"),
        (["--filter", "gone"], "--filter gone: no tensor of A or B is called so"),
        (["--framework", "a,b,c"], "--framework must be one name, or two with a comma"),
        (["--framework", "lightning"], "looked for a file with 'pytorch-lightning_version'"),
    ],
)
def test_trouble(
    liontool: Callable[..., Any], run: dict[str, Path], words: list[str], message: str
) -> None:
    """What cannot be done is one line, and exit code 2."""
    code, out, err = liontool("diff", str(run["first"]), str(run["second"]), *words)
    assert (code, out) == (2, "")
    assert message in err


def test_a_file_of_a_folder_that_cannot_be_read(
    liontool: Callable[..., Any], run: dict[str, Path], tmp_path: Path
) -> None:
    """Unlike for `inspect` it is an error: nobody could say that both are the same."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"\x80\x02garbage")
    code, _, err = liontool("diff", str(folder), str(folder))
    assert code == 2
    assert "model.bin" in err


def test_hostile_names(liontool: Callable[..., Any], tmp_path: Path, evil: tuple[str, str]) -> None:
    """Names play no tricks on the terminal."""
    name, shown = evil
    a, b = (save({name: torch.full((2,), x)}, tmp_path / f"{x}.pt") for x in (1.0, 2.0))
    for words in ([], ["--stat"], ["--json"]):
        code, out, _ = liontool("diff", str(a), str(b), *words)
        assert code == 1
        assert name not in out
    assert shown[:12] in liontool("diff", str(a), str(b)).out
