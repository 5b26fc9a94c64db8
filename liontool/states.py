"""What each optimizer keeps in its state and its groups: data only, imports nothing of ours.

`recognise` tells AdamW from its look-alikes by whole sets of keys, and `LIONS` says what every Lion
that can be a target reads from a file. Tests compare these tables with what the packages really
save and load.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Keys that schedulers, loaders and torch itself add to a group of any optimizer.
COMMON_GROUP_KEYS = frozenset(
    {"params", "param_names", "lr", "initial_lr", "max_lr", "min_lr", "swa_lr"}
    | {"max_momentum", "base_momentum"}
)


@dataclass(frozen=True)
class Layout:
    """The keys by which one optimizer is known. `COMMON_GROUP_KEYS` are left out.

    Attributes:
        kind: What to call it.
        state: Keys that every parameter's state has.
        group: Keys that every group has.
        state_extra: Keys that a state may have besides.
        group_extra: Keys that a group may have besides.
    """

    kind: str
    state: frozenset[str]
    group: frozenset[str]
    state_extra: frozenset[str] = frozenset()
    group_extra: frozenset[str] = frozenset()


def _layout(
    kind: str, state: str, group: str, state_extra: str = "", group_extra: str = ""
) -> Layout:
    words = (state, group, state_extra, group_extra)
    return Layout(kind, *(frozenset(keys.split()) for keys in words))


# foreach, maximize, capturable, differentiable, fused and decoupled_weight_decay came to torch one
# by one; files of older versions lack them.
ADAMW = _layout(
    "AdamW",
    "step exp_avg exp_avg_sq",
    "betas eps weight_decay amsgrad",
    "max_exp_avg_sq",
    "maximize foreach capturable differentiable fused decoupled_weight_decay",
)

NESTED_STATE = "__bnb_optimizer_quant_state__"
"""Where bitsandbytes hides its tensors from FSDP, which would gather them."""

_LION_STATE = "step residual ema accumulator"
_LION_GROUP = (
    "horizon reference_lr step micro_step rounding_seed cautious_factor cautious_wd"
    " decoupled_weight_decay rounding state_dtype nonfinite maximize foreach fused capturable"
    " differentiable clipnorm clipvalue global_clipnorm use_ema ema_momentum"
    " ema_overwrite_frequency loss_scale_factor gradient_accumulation_steps"
)

# Taken in order: the first that fits is the answer, so whoever keeps least stands last.
LAYOUTS: tuple[Layout, ...] = (
    ADAMW,
    _layout("NAdam", "step mu_product exp_avg exp_avg_sq",
            "betas eps weight_decay momentum_decay", "",
            "decoupled_weight_decay maximize foreach capturable differentiable"),
    _layout("RAdam", "step exp_avg exp_avg_sq", "betas eps weight_decay foreach", "",
            "maximize capturable differentiable decoupled_weight_decay"),
    _layout("SparseAdam", "step exp_avg exp_avg_sq", "betas eps", "", "maximize"),
    _layout("Adamax", "step exp_avg exp_inf", "betas eps weight_decay", "",
            "foreach maximize differentiable capturable"),
    _layout("ASGD", "step eta mu ax", "lambd alpha t0 weight_decay", "",
            "foreach maximize differentiable capturable"),
    _layout("Adadelta", "step square_avg acc_delta", "rho eps weight_decay", "",
            "foreach maximize differentiable capturable"),
    _layout("Adafactor", "step", "beta2_decay eps d weight_decay", "row_var col_var variance",
            "foreach maximize"),
    _layout("Adafactor (transformers)", "step RMS",
            "eps clip_threshold decay_rate beta1 weight_decay scale_parameter relative_step"
            " warmup_init",
            "exp_avg exp_avg_sq exp_avg_sq_row exp_avg_sq_col"),
    _layout("Adagrad", "step sum", "lr_decay eps weight_decay initial_accumulator_value", "",
            "foreach maximize differentiable fused"),
    _layout("LBFGS", "func_evals n_iter",
            "max_iter max_eval tolerance_grad tolerance_change history_size line_search_fn",
            "al d t old_dirs old_stps ro H_diag prev_flat_grad prev_loss"),
    _layout("Muon", "momentum_buffer",
            "weight_decay momentum nesterov ns_coefficients eps ns_steps adjust_lr_fn"),
    _layout("RMSprop", "square_avg", "momentum alpha eps centered weight_decay",
            "step momentum_buffer grad_avg", "capturable foreach maximize differentiable"),
    _layout("Rprop", "step prev step_size", "etas step_sizes", "",
            "foreach maximize differentiable capturable"),
    _layout("SGD", "", "momentum dampening weight_decay nesterov", "momentum_buffer",
            "maximize foreach differentiable fused"),
    _layout("AdamW (transformers)", "step exp_avg exp_avg_sq",
            "betas eps weight_decay correct_bias"),
    # Where bitsandbytes hides its tensors, two moments are told by `alpha`.
    _layout("Lion (bitsandbytes)", f"step {NESTED_STATE}", "betas eps weight_decay"),
    _layout("Lion (bitsandbytes)", "step state1", "betas eps weight_decay",
            "qmap1 absmax1 max1 new_max1 unorm_vec gnorm_vec"),
    _layout("AdamW (bitsandbytes)", f"step {NESTED_STATE}", "betas eps weight_decay alpha", "",
            "t_alpha t_beta3"),
    _layout("AdamW (bitsandbytes)", "step state1 state2", "betas eps weight_decay",
            "qmap1 qmap2 absmax1 absmax2 max1 max2 new_max1 new_max2 unorm_vec gnorm_vec",
            "alpha t_alpha t_beta3 is_paged"),
    _layout("AdamW (timm)", "step exp_avg exp_avg_sq", "betas eps weight_decay amsgrad caution",
            "max_exp_avg_sq", "foreach maximize capturable corrected_weight_decay"),
    _layout("AdamW (optimi)", "exp_avg exp_avg_sq kahan_comp",
            "beta1 beta2 eps weight_decay decouple_lr max_lr kahan_sum foreach triton",
            "group", "gradient_release setup adam"),
    _layout("Lamb", "exp_avg exp_avg_sq", "betas eps weight_decay", "step",
            "bias_correction grad_averaging max_grad_norm trust_clip always_adapt caution"
            " decoupled_decay step adam clamp_value debias"),
    _layout("Adan", "exp_avg exp_avg_diff exp_avg_sq", "betas eps weight_decay",
            "step neg_pre_grad neg_grad_or_diff previous_grad pre_grad",
            "max_grad_norm no_prox foreach fused step caution"),
    _layout("AdaBelief", "step exp_avg exp_avg_var", "betas eps weight_decay amsgrad",
            "max_exp_avg_var", "buffer"),
    _layout("Lion (optimi)", "exp_avg kahan_comp",
            "beta1 beta2 weight_decay decouple_lr kahan_sum foreach triton", "group",
            "gradient_release setup max_lr betas"),
    _layout("Lion (pytorch-optimizer)", "exp_avg", "betas weight_decay weight_decouple fixed_decay",
            "exp_grad_adanorm",
            "step foreach maximize use_gc adanorm adanorm_r cautious r"),
    _layout("Lion (timm)", "exp_avg", "betas weight_decay caution", "",
            "maximize foreach corrected_weight_decay max_lr_snapshot"),
    _layout("Lion (flashoptim)", "", "betas weight_decay master_bytewidth quantize",
            "step error_bits exp_avg exp_avg::quantized exp_avg::scales"),
    _layout("Lion (DeepSpeed)", "step exp_avg exp_avg_sq", "betas weight_decay", "",
            "amsgrad step"),
    _layout("LionSF", "exp_avg", "betas weight_decay pow", _LION_STATE, f"agreement {_LION_GROUP}"),
    _layout("Lion", "exp_avg", "betas weight_decay", _LION_STATE, _LION_GROUP),
)  # fmt: skip

_OWNED_GROUP_KEYS = frozenset().union(*(layout.group | layout.group_extra for layout in LAYOUTS))

ADAM_GROUP_KEYS = (ADAMW.group | ADAMW.group_extra) - {"betas", "weight_decay"}
"""Group keys that mean something to Adam and nothing to a Lion."""

MOMENT = "exp_avg"
"""The one state tensor that Adam and Lion have in common."""

LION_STATE = (MOMENT, "residual", "ema", "accumulator")
"""What Lion and LionSF of liontool keep."""

ADAM_MOMENTS = frozenset({"exp_avg_sq", "state2", "exp_avg_sq::quantized"})
"""Adam's second moment, by torch's name and many others', by bitsandbytes' and by flashoptim's."""

CORRECTIONS = frozenset({"kahan_comp", "error_bits"})
"""What optimi and flashoptim keep beside bfloat16 weights, which lack it."""

IDLE_STATE = frozenset({"step"})
"""State that some keep for every parameter, and that a Lion can do without."""


@dataclass(frozen=True)
class Dialect:
    """What a group of another optimizer has that no group of ours has, and what it means.

    Attributes:
        package: Whose it is.
        marks: Keys by which it is known.
        idle: Keys that change no step of a Lion; the same name can mean something in ours.
        rules: Keys that change its steps, with the value at which they do not.
        betas: The keys of the two betas in order, if it has no `betas`.
        cautious: The key that switches the full mask of cautious updates on.
        decoupled: The key that makes the decay relative to `reference`.
        reference: The key of the lr that the decay is relative to.
    """

    package: str
    marks: frozenset[str]
    idle: frozenset[str] = frozenset()
    rules: Mapping[str, Any] = field(default_factory=dict)
    betas: tuple[str, ...] = ()
    cautious: str = ""
    decoupled: str = ""
    reference: str = ""


def _keys(text: str) -> frozenset[str]:
    return frozenset(text.split())


DIALECTS = (
    Dialect("torch", _keys("amsgrad"), idle=ADAM_GROUP_KEYS - {"maximize"}),
    Dialect("bitsandbytes", _keys("eps"), idle=_keys("eps alpha t_alpha t_beta3")),
    Dialect("lion-sf", _keys("pow"), rules={"pow": 0.0}),
    Dialect("LionSF", _keys("agreement"), idle=_keys("agreement")),
    Dialect(
        "optimi",
        _keys("beta1 beta2"),
        idle=_keys("kahan_sum foreach triton gradient_release setup"),
        betas=("beta1", "beta2"),
        decoupled="decouple_lr",
        reference="max_lr",
    ),
    Dialect(
        "timm",
        _keys("caution"),
        idle=_keys("foreach max_lr_snapshot"),
        rules={"corrected_weight_decay": False},
        cautious="caution",
    ),
    Dialect(
        "pytorch-optimizer",
        _keys("weight_decouple"),
        idle=_keys("foreach adanorm_r r"),
        rules={"weight_decouple": True, "fixed_decay": False, "use_gc": False, "adanorm": False},
        cautious="cautious",
    ),
    Dialect(
        "flashoptim",
        _keys("master_bytewidth"),
        idle=_keys("master_bytewidth quantize"),
        reference="initial_lr",
    ),
)
"""Groups of others that hold a Lion's momentum; several can fit one group."""


@dataclass(frozen=True)
class Recognition:
    """Whose state it is.

    Attributes:
        kind: "AdamW", "Adam", "Lion", ...; "unknown" where no table fits.
        assumed: "AdamW" is a guess: Adam's files look the same before torch 2.7.
        differing: How it differs from AdamW, in words; () for AdamW and Adam.
    """

    kind: str
    assumed: bool = False
    differing: tuple[str, ...] = ()

    @property
    def is_adam(self) -> bool:
        """Whether AdamW's or Adam's rule can be applied."""
        return self.kind in ("AdamW", "Adam")


def recognise(
    groups: Iterable[Mapping[str, Any]], states: Iterable[Collection[str]]
) -> Recognition:
    """Tell the optimizer by all keys of its groups and states.

    Args:
        groups: The parameter groups as mappings, with or without `params`.
        states: The keys of each parameter's state; empty ones say nothing.
    """
    held = [dict(group) for group in groups]
    kept = [frozenset(map(str, state)) for state in states if len(state)]
    kind = next((layout.kind for layout in LAYOUTS if _fits(layout, held, kept)), "unknown")
    if kind != ADAMW.kind:
        return Recognition(kind, differing=_differences(held, kept))
    marks = [group.get("decoupled_weight_decay") for group in held]
    if any(mark is False for mark in marks):
        return Recognition("Adam")
    return Recognition("AdamW", assumed=any(mark is None for mark in marks))


def is_lion_of_bitsandbytes(group: Mapping[str, Any]) -> bool:
    """Whether no other optimizer of one moment has such a group.

    Its SGD, RMSprop, Adagrad and LARS keep the same keys, but have an eps or no second beta.
    """
    return group.get("eps") == 0 and group["betas"][1] > 0


def has_groups_of(layout: Layout, groups: Collection[Mapping[str, Any]]) -> bool:
    """Whether groups have all keys that a layout's have, and none that are another's."""
    return (
        bool(groups)
        and all(layout.group <= group.keys() for group in groups)
        and (layout.kind != "Lion (bitsandbytes)" or all(map(is_lion_of_bitsandbytes, groups)))
        and all(_owned(group) <= layout.group | layout.group_extra for group in groups)
    )


def _fits(layout: Layout, groups: list[dict[str, Any]], states: list[frozenset[str]]) -> bool:
    return (
        has_groups_of(layout, groups)
        and all(layout.state <= state for state in states)
        and all(state <= layout.state | layout.state_extra for state in states)
    )


def _owned(group: Mapping[str, Any]) -> frozenset[str]:
    # A key that no known optimizer owns is the user's ("name", "lr_scale"), and says nothing.
    return _OWNED_GROUP_KEYS & (group.keys() - COMMON_GROUP_KEYS)


def _differences(groups: list[dict[str, Any]], states: list[frozenset[str]]) -> tuple[str, ...]:
    def some(keys: Iterable[frozenset[str]]) -> list[str]:
        return sorted(frozenset().union(*keys))

    found = (
        ("state has", some(state - ADAMW.state - ADAMW.state_extra for state in states)),
        ("state lacks", some(ADAMW.state - state for state in states)),
        ("groups have", some(_owned(group) - ADAMW.group - ADAMW.group_extra for group in groups)),
        ("groups lack", some(ADAMW.group - group.keys() for group in groups)),
    )
    return tuple(f"{what} {', '.join(map(repr, keys))}" for what, keys in found if keys)


@dataclass(frozen=True)
class Lion:
    """A Lion that can load a converted state.

    Attributes:
        package: What `--for` calls it.
        imports: The line that imports it, by target ("lion", "lion-sf").
        classes: What its classes call themselves, "module.Class", by target.
        momentum: How the momentum is seeded unless the user says otherwise.
        horizon: Whether it reads the horizon of its momentum from the group.
        maximize: Whether it reads `maximize` from the group.
        wants_step: Whether its state needs a `step`.
        split_betas: Whether it reads `beta1` and `beta2` instead of `betas`, which is written all
            the same: a scheduler that cycles momentum may ask for it.
        group: Further keys that its `step()` needs and neither constructor nor `__setstate__` puts
            back after a load, with the values that its constructor would have given them.
        decoupled: Group keys that make it decay by weight_decay * lr / (highest lr), where its
            groups can; the highest lr is put in for None.
        constructor: Constructor argument that does the same, where the groups cannot.
        kahan: Whether its state needs `kahan_comp`, without which it starts from a zero momentum.
    """

    package: str
    imports: Mapping[str, str]
    classes: Mapping[str, str]
    momentum: str = "scaled"
    horizon: bool = False
    maximize: bool = False
    wants_step: bool = False
    split_betas: bool = False
    group: Mapping[str, Any] = field(default_factory=dict)
    decoupled: Mapping[str, Any] = field(default_factory=dict)
    constructor: str = ""
    kahan: bool = False

    @property
    def can_decouple(self) -> bool:
        """Whether its decay can do without lr. By default all decay by lr * weight_decay."""
        return bool(self.decoupled or self.constructor)

    @property
    def targets(self) -> tuple[str, ...]:
        """What it can be converted to: "lion", "lion-sf"."""
        return tuple(self.imports)


LIONS: Mapping[str, Lion] = {
    lion.package: lion
    for lion in (
        Lion(
            "liontool",
            {
                "lion": "from liontool.optim import Lion",
                "lion-sf": "from liontool.optim import LionSF",
            },
            {"lion": "liontool.optim.lion.Lion", "lion-sf": "liontool.optim.lion_sf.LionSF"},
            momentum="copy",
            horizon=True,
            maximize=True,
            decoupled={"decoupled_weight_decay": True, "reference_lr": None},
        ),
        Lion(
            "lion-pytorch",
            {"lion": "from lion_pytorch import Lion"},
            {"lion": "lion_pytorch.lion_pytorch.Lion"},
            constructor="decoupled_weight_decay=True",
        ),
        Lion(
            "lion-sf",
            {
                "lion": "from lion_pytorch import Lion",
                "lion-sf": "from lion_pytorch import LionSF",
            },
            {
                "lion": "lion_pytorch.lion_pytorch.Lion",
                "lion-sf": "lion_pytorch.lion_schedule_free.Lion",
            },
            constructor="decoupled_weight_decay=True",
        ),
        Lion(
            "timm",
            {"lion": "from timm.optim import Lion"},
            {"lion": "timm.optim.lion.Lion"},
            maximize=True,
        ),
        Lion(
            "automl",
            {"lion": "from lion_pytorch import Lion  # lion/lion_pytorch.py of google/automl"},
            {"lion": "lion_pytorch.Lion"},
        ),
        Lion(
            "optimi",
            {"lion": "from optimi import Lion"},
            {"lion": "optimi.lion.Lion"},
            split_betas=True,
            group={
                "decouple_lr": False,
                "max_lr": None,
                "kahan_sum": None,
                "foreach": None,
                "triton": None,
                "gradient_release": False,
                "setup": False,
            },
            decoupled={"decouple_lr": True, "max_lr": None},
            kahan=True,
        ),
        Lion(
            "pytorch-optimizer",
            {"lion": "from pytorch_optimizer import Lion"},
            {"lion": "pytorch_optimizer.optimizer.lion.Lion"},
            group={"weight_decouple": True, "fixed_decay": False, "foreach": None},
        ),
    )
}
"""Every Lion for `--for`, by package."""


def lion_of(package: str) -> Lion:
    """The entry of `LIONS`.

    Raises:
        ValueError: There is no such package.
    """
    if package in LIONS:
        return LIONS[package]
    from difflib import get_close_matches  # only for the message; it compiles regular expressions

    near = get_close_matches(package, LIONS, 1, 0.5)
    hint = f", did you mean '{near[0]}'?" if near else ";"
    raise ValueError(f"unknown package '{package}'{hint} choose from: {', '.join(LIONS)}")
