"""States that other packages wrote: the momentum is theirs, and the next steps go their way.

lion-pytorch, optimi, pytorch-optimizer and bitsandbytes are run. What lion-sf, google/automl, timm,
DeepSpeed and FlashOptim save is written down here as their sources have it; they are not on the
package index, or want a GPU or torchvision.
"""

from __future__ import annotations

import copy
import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF, _dequantise, rounding
from liontool.states import COMMON_GROUP_KEYS, LAYOUTS, LION_STATE, recognise
from support.lions import give_gradients, parameters

SHAPES = ((33, 130), (5,))
DTYPES = [torch.float32, torch.bfloat16]


def _params(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(7)
    return [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def _package(path: str) -> Any:
    module, _, name = path.rpartition(".")
    pytest.importorskip(module.partition(".")[0])
    return getattr(importlib.import_module(module), name)


def _trained(path: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """An optimizer of another package after three steps."""
    optimizer = _package(path)(_params(dtype), **{"lr": 0.125, **options})
    for seed in range(3):
        give_gradients(parameters(optimizer), seed)
        optimizer.step()
    return optimizer


def _ours(like: Any, saved: dict[str, Any] | None = None, kind: Any = Lion, **options: Any) -> Any:
    """A Lion of ours on copies of the weights, with the state loaded, whatever it warns of."""
    params = [Parameter(param.detach().clone()) for param in parameters(like)]
    optimizer = kind(params, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer.load_state_dict(like.state_dict() if saved is None else saved)
    return optimizer


def _momenta(optimizer: Any) -> list[Tensor]:
    return [entry["exp_avg"] for entry in optimizer.state.values()]


def _moves(optimizer: Any, seed: int) -> list[Tensor]:
    """The directions in which the weights go in a step."""
    params = parameters(optimizer)
    before = [param.detach().clone() for param in params]
    give_gradients(params, seed)
    optimizer.step()
    return [(param - old).sign() for param, old in zip(params, before, strict=True)]


def _check_go_alike(ours: Any, theirs: Any) -> None:
    """Three more steps go the same way, up to bfloat16 mixes that others round to another sign."""
    least = 1.0 if parameters(ours)[0].dtype == torch.float32 else 0.99
    for seed in range(10, 13):
        for mine, other in zip(_moves(ours, seed), _moves(theirs, seed), strict=True):
            assert mine.count_nonzero() > 0
            assert (mine == other).double().mean() >= least


PACKAGES = {
    "lion-pytorch": "lion_pytorch.Lion",
    "cautious lion-pytorch": "lion_pytorch.cautious_lion.Lion",
    "optimi": "optimi.Lion",
    "pytorch-optimizer": "pytorch_optimizer.Lion",
}


@pytest.mark.interop
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("package", PACKAGES)
def test_momentum_of_the_package(package: str, dtype: torch.dtype) -> None:
    """It is theirs in bits, and what we do next is what they do next."""
    theirs = _trained(PACKAGES[package], dtype)
    ours = _ours(theirs)
    assert all(map(torch.equal, _momenta(ours), _momenta(theirs)))
    assert ours.param_groups[0]["betas"] == (0.9, 0.99)
    assert ours.param_groups[0]["cautious_factor"] == (0.0 if package.startswith("cau") else 1.0)
    _check_go_alike(ours, theirs)


@pytest.mark.interop
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bitsandbytes(dtype: torch.dtype) -> None:
    """Its momentum is float32 beside weights of any dtype, and stays so."""
    theirs = _trained("bitsandbytes.optim.Lion", dtype)
    ours = _ours(theirs)
    state1 = [theirs.state[param]["state1"] for param in parameters(theirs)]
    assert all(map(torch.equal, _momenta(ours), state1))
    assert _momenta(ours)[0].dtype == torch.float32
    half = dtype == torch.bfloat16
    assert ours.param_groups[0]["state_dtype"] == ("float32" if half else None)
    _check_go_alike(ours, theirs)


@pytest.mark.interop
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_bitsandbytes_8bit(nested: bool) -> None:
    """The momentum is what its own code makes of the 8 bits, as new and old versions save them."""
    theirs = _trained("bitsandbytes.optim.Lion8bit")
    saved = theirs.state_dict() if nested else torch.optim.Optimizer.state_dict(theirs)
    assert ("state1" in saved["state"][0]) != nested
    state = theirs.state[parameters(theirs)[0]]
    assert state["state1"].dtype == torch.uint8
    dequantize = _package("bitsandbytes.functional.dequantize_blockwise")
    values = dequantize(
        state["state1"], absmax=state["absmax1"], code=state["qmap1"], blocksize=256
    )
    ours = _ours(theirs, saved)
    assert torch.equal(_momenta(ours)[0], values)
    assert values.count_nonzero() > 4000
    assert all(map(torch.equal, _moves(ours, 10), _moves(theirs, 10)))


@pytest.mark.interop
def test_bitsandbytes_8bit_in_blocks_of_old_versions() -> None:
    """Of the 8-bit code there is one scale for 2048 elements or one for 256."""
    dequantize, quantize = (
        _package(f"bitsandbytes.functional.{name}_blockwise") for name in ("dequantize", "quantize")
    )
    codes, how = quantize(_seeds()[0], blocksize=2048)
    entry = {"step": 3, "state1": codes, "qmap1": how.code, "absmax1": how.absmax}
    saved = _saved(group={"eps": 0.0})
    saved["state"] = {0: entry}
    momentum = _momenta(_ours(Lion(_params()), saved))[0]
    assert torch.equal(momentum, dequantize(codes, how))
    entry["absmax1"] = how.absmax[:1]
    with pytest.raises(ValueError, match="8-bit state of 4290 elements has 1 scales, must have on"):
        _ours(Lion(_params()), saved)


@pytest.mark.interop
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "LARS"])
def test_others_of_bitsandbytes_are_refused(name: str) -> None:
    """They keep the same keys, but their state is no momentum of Lion."""
    options = {"momentum": 0.9} if name in ("SGD", "LARS") else {}
    saved = _package(f"bitsandbytes.optim.{name}")(_params(), lr=0.1, **options).state_dict()
    saved["state"] = {0: {"step": 1, "__bnb_optimizer_quant_state__": {"state1": torch.ones(5)}}}
    with pytest.raises(ValueError, match="has no tensor 'exp_avg', found 'step', 'state1'"):
        Lion(_params()).load_state_dict(saved)


@pytest.mark.interop
def test_adam_of_bitsandbytes_is_refused() -> None:
    """Its second moment tells it."""
    theirs = _trained("bitsandbytes.optim.AdamW")
    with pytest.raises(ValueError, match=r"holds 'state2', which is Adam's.* liontool convert"):
        Lion(_params()).load_state_dict(theirs.state_dict())


@pytest.mark.interop
def test_compensation_of_optimi_becomes_the_residual() -> None:
    """With split rounding we go on from weights as wide as optimi's."""
    theirs = _trained("optimi.Lion", torch.bfloat16, lr=1e-4)
    ours = _ours(theirs, rounding="split")
    for mine, other in zip(parameters(ours), parameters(theirs), strict=True):
        compensation = theirs.state[other]["kahan_comp"].float()
        wide = rounding.combined(mine.detach(), ours.state[mine]["residual"])
        assert compensation.count_nonzero()
        # A compensation of half the distance to the next weight falls one bit short.
        torch.testing.assert_close(wide, other.detach().float() + compensation, rtol=2e-7, atol=0)


@pytest.mark.interop
def test_compensation_of_optimi_is_not_lost_in_silence() -> None:
    """The warning says what would keep it."""
    theirs = _trained("optimi.Lion", torch.bfloat16)
    drops = (
        r"drops: foreach, gradient_release, kahan_comp \(only bfloat16 weights with "
        r"rounding='split' can keep it\), kahan_sum, setup, triton$"
    )
    with pytest.warns(UserWarning, match=drops):
        Lion(_params(torch.bfloat16)).load_state_dict(theirs.state_dict())


@pytest.mark.interop
@pytest.mark.parametrize("decouple", [True, False])
def test_decay_of_optimi(decouple: bool) -> None:
    """Decay relative to its `max_lr` is ours relative to `reference_lr`."""
    options = {"weight_decay": 5e-4, "decouple_lr": decouple, "max_lr": 0.5 if decouple else None}
    theirs = _trained("optimi.Lion", **options)
    ours = _ours(theirs, lr=3.0)
    group = ours.param_groups[0]
    assert group["decoupled_weight_decay"] is decouple
    assert group["reference_lr"] == (0.5 if decouple else 3.0)
    assert group.get("max_lr") == options["max_lr"]
    give_gradients(parameters(ours))
    give_gradients(parameters(theirs))
    ours.step()
    theirs.step()
    for mine, other in zip(parameters(ours), parameters(theirs), strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.interop
def test_rules_of_pytorch_optimizer() -> None:
    """What changes its steps and not ours is named with its value."""
    theirs = _trained("pytorch_optimizer.Lion", fixed_decay=True, cautious=True)
    ours = Lion(_params())
    drops = r"drops: fixed_decay=True \(the steps differ without it\), foreach, weight_decouple$"
    with pytest.warns(UserWarning, match=drops):
        ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["cautious_factor"] == 0.0
    assert ours.param_groups[0]["step"] == 3


def _saved(*, group: dict[str, Any] | None = None, **more: dict[int, Tensor]) -> dict[str, Any]:
    """A state dict with a momentum, as the sources of a package have it."""
    state = {
        key: {"exp_avg": momentum, **{name: values[key] for name, values in more.items()}}
        for key, momentum in enumerate(_seeds())
    }
    common = {"lr": 0.125, "betas": (0.9, 0.99), "weight_decay": 0.0}
    return {"state": state, "param_groups": [{**common, **(group or {}), "params": [0, 1]}]}


def _seeds() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def _zeros() -> dict[int, Tensor]:
    return {key: torch.zeros(shape) for key, shape in enumerate(SHAPES)}


SOURCES: dict[str, dict[str, Any]] = {
    "google/automl": _saved(),
    "lion-sf": _saved(),
    "timm": _saved(
        group={
            "caution": False, "corrected_weight_decay": False, "max_lr_snapshot": None,
            "maximize": False, "foreach": None,
        }
    ),
    "DeepSpeed FusedLion": _saved(group={"step": 0}, step={0: 3, 1: 3}),
    "DeepSpeed CPULion": _saved(step={0: 3, 1: 3}, exp_avg_sq=_zeros()),
    "DeepSpeed CPULion, loaded": _saved(group={"amsgrad": False}, exp_avg_sq=_zeros()),
    "FlashLion": _saved(group={"initial_lr": 0.5, "master_bytewidth": 0, "quantize": True}),
}  # fmt: skip
"""What packages save that are not run here."""


@pytest.mark.parametrize("source", SOURCES)
def test_momentum_of_the_source(source: str) -> None:
    """It comes in bits, and the next step is Lion's on it."""
    ours = Lion(_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours.load_state_dict(copy.deepcopy(SOURCES[source]))
    assert all(map(torch.equal, _momenta(ours), _seeds()))
    assert all(set(ours.state[param]) == {"exp_avg"} for param in parameters(ours))
    moves = _moves(ours, 1)
    for param, seed, move in zip(parameters(ours), _seeds(), moves, strict=True):
        assert param.grad is not None
        assert torch.equal(move, -(0.9 * seed + 0.1 * param.grad).sign())


def test_state_of_lion_sf_goes_on_as_published() -> None:
    """Its exponent lives on the object and is given again; the scale is of signs and gradients."""
    ours = LionSF(_params(), pow=2.0)
    before = [param.detach().clone() for param in parameters(ours)]
    ours.load_state_dict(copy.deepcopy(SOURCES["lion-sf"]))
    give_gradients(parameters(ours), 1)
    ours.step()
    for param, old, seed in zip(parameters(ours), before, _seeds(), strict=True):
        assert param.grad is not None
        update = (0.9 * seed + 0.1 * param.grad).sign()
        share = ((update * param.grad) > 0).float().mean()
        expected = old - 0.125 * (2 * share - 1).abs() ** 2 * update
        torch.testing.assert_close(param.detach(), expected)


@pytest.mark.parametrize(
    ("source", "drops"),
    [
        ("google/automl", None),
        ("lion-sf", None),
        ("timm", "corrected_weight_decay, foreach, max_lr_snapshot"),
        ("DeepSpeed FusedLion", None),
        ("DeepSpeed CPULion", "exp_avg_sq (nothing but zeros)"),
        ("FlashLion", "master_bytewidth, quantize"),
    ],
)
def test_warning(source: str, drops: str | None) -> None:
    """One line names every key that goes; there is none where all is taken over."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Lion(_params()).load_state_dict(copy.deepcopy(SOURCES[source]))
    assert [str(warning.message) for warning in caught] == (
        [f"Lion does not know and drops: {drops}"] if drops else []
    )


def test_caution_of_timm() -> None:
    """It is the full mask; a correction of the decay that we lack is named."""
    group = {"caution": True, "corrected_weight_decay": True}
    ours = Lion(_params())
    with pytest.warns(UserWarning, match=r"drops: corrected_weight_decay=True \(the steps differ"):
        ours.load_state_dict(_saved(group=group))
    assert ours.param_groups[0]["cautious_factor"] == 0.0


@pytest.mark.parametrize("group", [{"eps": 1e-8}, {}], ids=["eps", "second moment"])
def test_second_moment_that_is_used_is_adams(group: dict[str, Any]) -> None:
    """CPULion's is told from Adam's by its zeros and by groups without eps."""
    second = _zeros() if group else {key: values + 1e-30 for key, values in _zeros().items()}
    with pytest.raises(ValueError, match="holds 'exp_avg_sq', which is Adam's"):
        Lion(_params()).load_state_dict(_saved(group=group, exp_avg_sq=second))


def test_first_lr_of_flashlion() -> None:
    """Its `initial_lr` is what its decoupled decay, which it does not save, is relative to."""
    ours = _ours(Lion(_params()), SOURCES["FlashLion"], decoupled_weight_decay=True, lr=2.0)
    assert ours.param_groups[0]["reference_lr"] == 0.5


def test_bf16_momentum_of_flashlion() -> None:
    """It saves bfloat16 for any weights; beside float32 ones ours is float32 again."""
    saved = copy.deepcopy(SOURCES["FlashLion"])
    for entry in saved["state"].values():
        entry["exp_avg"] = entry["exp_avg"].bfloat16()
    momenta = _momenta(_ours(Lion(_params()), saved))
    assert momenta[0].dtype == torch.float32
    assert torch.equal(momenta[0], _seeds()[0].bfloat16().float())


def _flash_codes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Groups of 32: the largest as float16 scale; 2x / (1 + |x|) in steps of 1/127, half up."""
    padded = torch.nn.functional.pad(values.flatten(), (0, -values.numel() % 32)).view(-1, 32)
    scales = padded.abs().amax(1, keepdim=True).clamp(min=1e-12)
    shares = padded / scales
    codes = (2 * shares / (1 + shares.abs()) * 127 + 0.5).floor()
    return codes.flatten()[: values.numel()].view(values.shape).char(), scales.flatten().half()


def _compressed() -> dict[str, Any]:
    saved = copy.deepcopy(SOURCES["FlashLion"])
    for entry in saved["state"].values():
        codes, scales = _flash_codes(entry.pop("exp_avg"))
        entry.update({"exp_avg::quantized": codes, "exp_avg::scales": scales})
    return saved


def test_compressed_momentum_of_flashlion() -> None:
    """The 8 bits come back within their step, and signs as they were."""
    for momentum, seed in zip(
        _momenta(_ours(Lion(_params()), _compressed())), _seeds(), strict=True
    ):
        torch.testing.assert_close(momentum, seed, rtol=0.02, atol=0.02)
        clear = seed.abs() > 0.02
        assert torch.equal(momentum.sign()[clear], seed.sign()[clear])


def test_compressed_momentum_of_another_package_is_refused() -> None:
    """llm-foundry has the same names for another code."""
    saved = _compressed()
    del saved["param_groups"][0]["master_bytewidth"]
    with pytest.raises(ValueError, match="has no tensor 'exp_avg', found 'exp_avg::quantized'"):
        Lion(_params()).load_state_dict(saved)


@pytest.mark.parametrize("width", [3, 4])
def test_error_bits_of_flashlion_become_the_residual(width: int) -> None:
    """Errors in parts of half the distance to the next bfloat16, in 127 or 32767 steps."""
    steps, integer = (127, torch.int8) if width == 3 else (32767, torch.int16)
    saved = copy.deepcopy(SOURCES["FlashLion"])
    saved["param_groups"][0]["master_bytewidth"] = width
    wide = [param.detach() for param in _params()]
    weights = [Parameter(values.bfloat16()) for values in wide]
    for key, (values, weight) in enumerate(zip(wide, weights, strict=True)):
        half = torch.exp2(weight.detach().float().abs().log2().floor() - 8)
        errors = ((values - weight.detach().float()) / half * steps).round().to(integer)
        # The optimizer saves them so that torch's loader leaves them alone.
        kept = errors.bfloat16() if width == 3 else errors.view(torch.bfloat16)
        saved["state"][key]["error_bits"] = kept
    ours = Lion(weights, rounding="split")
    with pytest.warns(UserWarning, match="drops: master_bytewidth, quantize$"):
        ours.load_state_dict(saved)
    for weight, values in zip(weights, wide, strict=True):
        found = rounding.combined(weight.detach(), ours.state[weight]["residual"])
        torch.testing.assert_close(found, values, rtol=2.0 ** (-15 if width == 3 else -22), atol=0)


def test_error_bits_are_not_lost_in_silence() -> None:
    """Without split rounding the warning names them."""
    saved = copy.deepcopy(SOURCES["FlashLion"])
    saved["state"][0]["error_bits"] = torch.ones(SHAPES[0], dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match=r"error_bits \(only bfloat16 weights with rounding='sp"):
        Lion(_params()).load_state_dict(saved)


def test_error_bits_of_the_smallest_weights() -> None:
    """Subnormal weights, and zeros, are as far apart as the smallest normal ones."""
    weight = torch.tensor([0, 1, 0x7F, 0x80], dtype=torch.int16).view(torch.bfloat16)
    error = torch.full((4,), 127, dtype=torch.int8)
    wide = _dequantise.corrected(weight, error, 127)
    assert torch.equal(wide.double() - weight.double(), torch.full((4,), 2.0**-134).double())


def test_compensation_in_float16_is_dropped() -> None:
    """It made up for float16 weights, not for these."""
    zeros = {key: torch.zeros(shape).half() for key, shape in enumerate(SHAPES)}
    saved = _saved(kahan_comp=zeros)
    ours = Lion(_params(torch.bfloat16), rounding="split")
    with pytest.warns(UserWarning, match=r"drops: kahan_comp \(only bfloat16 weights"):
        ours.load_state_dict(saved)
    assert set(ours.state[parameters(ours)[0]]) == {"exp_avg"}


def test_8bit_state_without_its_table_is_refused() -> None:
    """Codes alone say nothing."""
    saved = _saved(group={"eps": 0.0})
    codes = torch.zeros(SHAPES[0], dtype=torch.uint8)
    saved["state"] = {0: {"step": 3, "state1": codes, "absmax1": torch.ones(17)}}
    with pytest.raises(ValueError, match="has no tensor 'exp_avg', found 'step', 'state1', 'absma"):
        Lion(_params()).load_state_dict(saved)


def test_residual_of_wide_weights() -> None:
    """It is that of split rounding; what bfloat16 weights cannot be completed to is left out."""
    wide = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    high, low = rounding.split(wide)
    assert torch.equal(_dequantise.residual(high, wide), low)
    weight = torch.tensor([1.0, 1.0, 1.0, -1.0, float("inf"), 1.0], dtype=torch.bfloat16)
    wide = torch.tensor([2.0, 0.5, -1.0, 1.0, 1.0, float("nan")])
    assert _dequantise.residual(weight, wide).tolist() == [0x7FFF, -0x8000, 0, 0, 0, 0]


def test_lion_sf_into_lion() -> None:
    """Our own two read each other's state; the exponent that Lion lacks is named."""
    first = LionSF(_params(), pow=0.5)
    give_gradients(parameters(first))
    first.step()
    ours = Lion(_params())
    drops = r"Lion does not know and drops: agreement, pow=0.5 \(the steps differ without it\)$"
    with pytest.warns(UserWarning, match=drops):
        ours.load_state_dict(first.state_dict())
    assert all(map(torch.equal, _momenta(ours), _momenta(first)))


SAVED_BY = {
    "lion_pytorch.Lion": "Lion",
    "lion_pytorch.cautious_lion.Lion": "Lion",
    "optimi.Lion": "Lion (optimi)",
    "pytorch_optimizer.Lion": "Lion (pytorch-optimizer)",
    "bitsandbytes.optim.Lion": "Lion (bitsandbytes)",
    "bitsandbytes.optim.Lion8bit": "Lion (bitsandbytes)",
    "bitsandbytes.optim.RMSprop": "unknown",
    "bitsandbytes.optim.AdamW": "AdamW (bitsandbytes)",
    "liontool.optim.Lion": "Lion",
    "liontool.optim.LionSF": "LionSF",
}


@pytest.mark.interop
@pytest.mark.parametrize("nested", [True, False], ids=["", "as in the optimizer"])
@pytest.mark.parametrize("path", SAVED_BY)
def test_tables_tell_what_is_saved(path: str, nested: bool) -> None:
    """Every Lion is known by the keys that it saves."""
    optimizer = _trained(path)
    saved = optimizer.state_dict() if nested else torch.optim.Optimizer.state_dict(optimizer)
    assert recognise(saved["param_groups"], saved["state"].values()).kind == SAVED_BY[path]


@pytest.mark.parametrize("kind", [Lion, LionSF])
def test_tables_list_all_that_we_keep(kind: Any) -> None:
    """Group keys and state of ours with every option on."""
    optimizer = kind(
        _params(torch.bfloat16), rounding="split", use_ema=True, gradient_accumulation_steps=2
    )
    optimizer.init_state()
    layout = next(layout for layout in LAYOUTS if layout.kind == kind.__name__)
    keys = optimizer.param_groups[0].keys() - COMMON_GROUP_KEYS
    assert keys == layout.group | layout.group_extra
    assert optimizer.state[parameters(optimizer)[0]].keys() == set(LION_STATE)
    assert set(LION_STATE) | {"step"} == layout.state | layout.state_extra


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("google/automl", "Lion"),
        ("timm", "Lion (timm)"),
        ("DeepSpeed FusedLion", "Lion"),
        ("DeepSpeed CPULion", "Lion (DeepSpeed)"),
        ("FlashLion", "Lion (flashoptim)"),
    ],
)
def test_tables_tell_the_sources(source: str, kind: str) -> None:
    """Those too that are not run here."""
    saved = SOURCES[source]
    assert recognise(saved["param_groups"], saved["state"].values()).kind == kind
