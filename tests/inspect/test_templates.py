"""Names that differ in numbers alone, as one line."""

from __future__ import annotations

from liontool.inspect.templates import folded, template


def test_template_marks_numbers() -> None:
    """Every part that is a number becomes a hole; digits within words stay."""
    assert template("h.12.mlp.0.fc2.weight") == "h.{}.mlp.{}.fc2.weight"


def test_names_fold_into_ranges() -> None:
    """Numbers that differ become ranges, numbers that are the same stay."""
    names = [f"h.{n}.mlp.0.weight" for n in (0, 1, 2, 5)] + ["norm.weight"]
    first, second = folded(names)
    assert first.pattern == "h.{0-2,5}.mlp.0.weight"
    assert first.names == tuple(names[:4])
    assert second.pattern == second.template == "norm.weight"


def test_many_gaps_are_cut_short() -> None:
    """A pattern stays a line, and says where its numbers end."""
    (fold,) = folded(f"h.{n}.w" for n in range(0, 40, 2))
    assert fold.pattern == "h.{0,2,4,...,38}.w"


def test_only_indices_are_numbers() -> None:
    """What no program writes as an index stays text: "03" is not "3", and long digits no layer."""
    long = "9" * 5000
    assert template(f"h.03.{long}.٣.7") == f"h.03.{long}.٣.{{}}"
    assert [fold.pattern for fold in folded(["h.3", "h.03", "h.4"])] == ["h.{3-4}", "h.03"]
