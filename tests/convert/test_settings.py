"""Settings are checked at the door, in plain words."""

from __future__ import annotations

import pytest

from liontool.convert.settings import Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 0}, "lr_ratio must be a positive number up to 1,000,000, or 'auto'; got 0"),
        ({"ratio": float("nan")}, "lr_ratio must be .* up to 1,000,000, or 'auto'; got nan"),
        ({"ratio": "three"}, "lr_ratio must be a positive number .* got 'three'"),
        ({"to": "sgd"}, "to must be one of lion, lion-sf; got 'sgd'"),
        ({"package": "tim"}, r"unknown package 'tim', did you mean 'timm'\?"),
        (
            {"to": "lion-sf", "package": "timm"},
            "timm has no lion-sf; choose package from: liontool, lion-sf",
        ),
        ({"momentum": "warm"}, "momentum must be one of copy, scaled, zeros; got 'warm'"),
        ({"decay": "x"}, "decay must be one of scaled, kept, decoupled; got 'x'"),
        (
            {"decay": "decoupled", "package": "timm"},
            "the decay of timm always contains lr; these can: liontool, lion-pytorch, lion-sf",
        ),
        ({"betas": (0.9, 1.0)}, r"betas\[1\] must lie in \[0, 1\), got 1\.0"),
        ({"betas": (0.9,)}, "betas must be two numbers, got 1"),
        ({"zero_stale": True, "momentum": "zeros"}, "zero_stale is about a momentum that is kept"),
        ({"allow": ("danger",)}, "allow must be one of nonfinite, shape-mismatch, unknown-opt"),
    ],
    ids=str,
)
def test_refused(changes, message):
    """Each illegal value has its own message."""
    with pytest.raises(ValueError, match=message):
        Settings(**{"ratio": 3.0, **changes})


@pytest.mark.parametrize(
    ("package", "momentum"), [("liontool", "copy"), ("lion-pytorch", "scaled"), ("timm", "scaled")]
)
def test_default_momentum(package, momentum):
    """Only liontool's Lion takes the momentum as it is."""
    assert Settings(3.0, package=package).momentum == momentum
    assert Settings(3.0, package=package, momentum="zeros").momentum == "zeros"
