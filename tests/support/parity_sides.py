"""What other Lions do that somebody might call a mistake, and what ours do: data of a table.

Each has a test of its name in `optim/test_parity_sides.py`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Side:
    """One behaviour.

    Args:
        name: The test is `test_` and this.
        packages: Who has it.
        theirs: What happens there.
        ours: What happens here.
    """

    name: str
    packages: str
    theirs: str
    ours: str


SIDES = [
    Side(
        "nan_gradient",
        "lion-pytorch, lion-sf, google/automl, timm, Keras (torch), optimi, pytorch_optimizer",
        "A NaN in a gradient is swallowed by `torch.sign`: the momentum is NaN for ever, the "
        "weight finite and frozen.",
        "The weight becomes NaN, as AdamW's and optax' do. `nonfinite=\"skip\"` leaves the step "
        'out, `"raise"` raises.',
    ),
    Side(
        "infinite_gradient",
        "the same and optax",
        "The weight walks one way at full speed for ever, or is frozen where `lerp` makes the "
        "momentum NaN.",
        "The weight becomes NaN.",
    ),
    Side(
        "decoupled_decay_of_groups",
        "lion-pytorch, lion-sf",
        "`decoupled_weight_decay` is relative to the constructor's `lr` in every group: a group "
        "with 100 times that `lr` has 100 times the decay.",
        "Relative to the group's own first `lr`.",
    ),
    Side(
        "decoupled_decay_after_resuming",
        "lion-pytorch, lion-sf",
        "Not in the state dict: resumed with another `lr` in the constructor, a run has another "
        "decay.",
        "`reference_lr` is in the group and so in the state dict.",
    ),
    Side(
        "options_lost_by_copies",
        "lion-pytorch, lion-sf, pytorch_optimizer",
        "`deepcopy` and `pickle` lose `decoupled_weight_decay`, `pow`, `maximize`: the next step "
        "raises AttributeError.",
        "All options are in the groups; copies step alike.",
    ),
    Side(
        "foreach_with_an_idle_group",
        "lion-pytorch, foreach",
        "A group without a gradient raises RuntimeError.",
        "It is left alone.",
    ),
    Side(
        "learning_rate_of_zero",
        "lion-pytorch, lion-sf",
        "`assert lr > 0`: no schedule can begin with 0.",
        "0 is allowed.",
    ),
    Side(
        "sparse_gradient",
        "lion-pytorch",
        "Taken without a word, though the momentum moves every row at each step.",
        "RuntimeError.",
    ),
    Side(
        "complex_parameter",
        "lion-pytorch, optax",
        "The update is `c / abs(c)`: a complex number of length 1.",
        "Both parts are real numbers with a sign of their own, as in torch's optimizers, timm and "
        "pytorch_optimizer.",
    ),
    Side(
        "hardly_anything_agrees",
        "lion-pytorch, cautious; timm",
        "Caution divides by the mean of its mask, at least 1e-5 (timm: 1e-3): a lone agreeing "
        "element moves up to 100,000 (1,000) times `lr`.",
        "lion-pytorch's 1e-5, to equal it.",
    ),
    Side(
        "disagreement",
        "lion-sf",
        "Signs that all disagree count as much as signs that all agree: full speed.",
        'The same with `agreement="tensor"` and `"group"`; scale 0 with the `_signed` forms.',
    ),
    Side(
        "gradients_of_zero",
        "lion-sf",
        "A gradient of zero disagrees: an embedding of which a hundredth was used moves at 0.98 "
        "of full speed.",
        'The same with `agreement="tensor"` and `"group"`; the `_signed` forms leave zeros out.',
    ),
    Side(
        "steps_smaller_than_bfloat16",
        "lion-pytorch and all others without compensation",
        "A bfloat16 weight of 1.0 does not move at `lr=1e-4`, however many steps.",
        'The same with `rounding="nearest"`; `"split"` and `"stochastic"` move it.',
    ),
    Side(
        "decay_of_compensated_bfloat16",
        "optimi",
        "The decay is outside of the Kahan sum: 2,000 steps of 1e-4 take nothing off a weight of "
        "1.0.",
        'With `rounding="split"` 18 % are gone, as in float32.',
    ),
    Side(
        "state_of_another_lion",
        "optimi",
        "The momentum of a loaded state without `kahan_comp` is wiped by the next step.",
        "It is kept.",
    ),
    Side(
        "maximize_and_the_gradient",
        "pytorch_optimizer",
        "`maximize` changes the sign of `.grad` in place.",
        "No option changes a gradient.",
    ),
    Side(
        "default_decay",
        "optax",
        "`weight_decay` is 1e-3 unless given.",
        "0, as with all the others.",
    ),
    Side(
        "beta_of_zero",
        "Keras",
        "`beta_1=0` is refused.",
        "Allowed: the sign of the gradient.",
    ),
    Side(
        "learning_rate_in_float32",
        "Keras",
        "The learning rate and all other numbers are float32 also for float64 weights.",
        "float64, rounded once to the dtype that is computed in.",
    ),
]
