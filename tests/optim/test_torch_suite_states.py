"""What torch tests of its own optimizers, of both Lions: state dicts, copies and hooks."""

from __future__ import annotations

import io
from copy import deepcopy
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.testing._internal.common_optimizers import OptimizerInfo, optims
from torch.testing._internal.common_utils import TestCase, parametrize

from support.lions import give_gradients, model, plain, same, train
from support.optimizer_info import infos, on_each_device, paths

INFOS = infos()


def _pair(device: str, named: bool = False) -> Any:
    """Parameters of a small model, always the same, with or without their names."""
    built = model().to(device)
    return list(built.named_parameters() if named else built.parameters())


class TestStates(TestCase):
    """What is saved is all there is, and it can be saved and loaded anywhere."""

    @parametrize("named_first", [True, False])
    @parametrize("named_second", [True, False])
    @optims(INFOS)
    def test_state_dict_is_deterministic(
        self,
        device: str,
        dtype: torch.dtype,
        optim_info: OptimizerInfo,
        named_first: bool,
        named_second: bool,
    ) -> None:
        """Two optimizers with one history have one state dict and one future, names or not."""
        for each in paths(device, optim_info):
            first, second = (
                optim_info.optim_cls(_pair(device, named), **deepcopy(each.kwargs))
                for named in (named_first, named_second)
            )
            train(first)
            with torch.no_grad():
                for old, new in zip(_params(first), _params(second), strict=True):
                    new.copy_(old)
            second.load_state_dict(deepcopy(first.state_dict()))
            assert same(train(first, 2), train(second, 2)), each.desc
            assert _nameless(first) == _nameless(second), each.desc
            names = second.state_dict()["param_groups"][0].get("param_names")
            expected = ["0.weight", "0.bias", "1.weight", "1.bias"]
            assert names == (expected if named_first or named_second else None), each.desc

    @optims(INFOS)
    def test_repeated_groups_have_one_form(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Parameters that occur twice have the same numbers in the state dict each time."""
        optimizer = optim_info.optim_cls(_pair(device))
        before = optimizer.state_dict()["param_groups"][-1]
        optimizer.param_groups.extend(optimizer.param_groups)
        assert optimizer.state_dict()["param_groups"][-1] == before

    @optims(INFOS)
    def test_can_load_older_state_dict(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Keys that were not there in older versions are those of the constructor."""
        for each in paths(device, optim_info):
            optimizer = optim_info.optim_cls(_pair(device), **each.kwargs)
            train(optimizer)
            saved = deepcopy(optimizer.state_dict())
            for flag in optim_info.not_og_supported_flags:
                del saved["param_groups"][0][flag]
            before = deepcopy(optimizer.param_groups[0])
            optimizer.load_state_dict(saved)
            for flag in optim_info.not_og_supported_flags:
                assert optimizer.param_groups[0][flag] == before[flag], each.desc
            train(optimizer, 1)

    @optims(INFOS)
    def test_weights_only_file_is_equal(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """What comes out of a file is what went in, with and without pickled classes."""
        for each in paths(device, optim_info):
            optimizer = optim_info.optim_cls(_pair(device), **each.kwargs)
            train(optimizer)
            saved = optimizer.state_dict()
            file = io.BytesIO()
            torch.save(saved, file)
            for weights_only in (True, False):
                file.seek(0)
                loaded = torch.load(file, weights_only=weights_only)
                assert plain(loaded) == plain(saved), each.desc

    @optims(INFOS)
    def test_load_nontensor_step(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Counters may be plain integers in what is loaded; they are tensors afterwards."""
        for each in paths(device, optim_info):
            optimizer = optim_info.optim_cls(_pair(device), **each.kwargs)
            train(optimizer)
            saved = deepcopy(optimizer.state_dict())
            group = saved["param_groups"][0]
            counters = {name: int(group[name]) for name in ("step", "micro_step")}
            group.update(counters)
            optimizer.load_state_dict(saved)
            for name, value in counters.items():
                counter = optimizer.param_groups[0][name]
                assert (counter.dtype, int(counter)) == (torch.int64, value), each.desc
            train(optimizer, 1)

    @optims(INFOS)
    def test_deepcopy_copies_all_public_attributes(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """A copy has the attributes of the original."""
        for each in paths(device, optim_info):
            optimizer = optim_info.optim_cls(_pair(device), **each.kwargs)
            train(optimizer)
            public = [
                {name for name in vars(one) if not name.startswith("_")}
                for one in (optimizer, deepcopy(optimizer))
            ]
            assert public[0] == public[1], each.desc

    @optims(INFOS)
    def test_state_is_not_empty_after_a_step(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Every parameter that had a gradient has state."""
        for each in paths(device, optim_info):
            optimizer = optim_info.optim_cls(_pair(device), **each.kwargs)
            train(optimizer, 1)
            assert len(optimizer.state) == 4, each.desc
            assert all(optimizer.state.values()), each.desc

    @optims(INFOS)
    def test_can_be_printed(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """On any path, before and after a step."""
        for each in paths(device, optim_info, differentiable=True):
            optimizer = optim_info.optim_cls([torch.ones(3, device=device)], **each.kwargs)
            for _ in range(2):
                assert "weight_decay" in repr(optimizer), each.desc
                train(optimizer, 1)


class TestHooks(TestCase):
    """Hooks run, in their order, and see and change what they are promised."""

    @optims(INFOS)
    def test_step_hooks(self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo) -> None:
        """Before and after each step until they are removed; global ones lie around own ones."""
        for each in paths(device, optim_info, differentiable=True):
            optimizer = optim_info.optim_cls([torch.ones(2, device=device)], **each.kwargs)
            seen: list[str] = []
            handles = [
                register_optimizer_step_pre_hook(lambda *_, seen=seen: seen.append("global pre")),
                optimizer.register_step_pre_hook(lambda *_, seen=seen: seen.append("pre")),
                optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append("post")),
                register_optimizer_step_post_hook(lambda *_, seen=seen: seen.append("global post")),
            ]
            optimizer.step()
            optimizer.step()
            for handle in handles:
                handle.remove()
            optimizer.step()
            assert seen == ["global pre", "pre", "post", "global post"] * 2, each.desc

    @optims(INFOS)
    def test_step_pre_hook_gives_the_gradient(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """The step takes the gradients that a hook before it leaves."""
        for each in paths(device, optim_info):
            hooked, plain = (Parameter(torch.ones(3, device=device)) for _ in range(2))
            optimizers = [optim_info.optim_cls([p], **each.kwargs) for p in (hooked, plain)]

            def hook(optimizer: Optimizer, *_: Any) -> None:
                give_gradients(_params(optimizer))

            optimizers[0].register_step_pre_hook(hook)
            give_gradients([plain])
            for optimizer in optimizers:
                optimizer.step()
            assert same([hooked], [plain]), each.desc

    @optims(INFOS)
    def test_state_dict_hooks(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """One changes the optimizer before, the other the dict afterwards."""

        def before(optimizer: Optimizer) -> None:
            optimizer.state["note"] = 1  # type: ignore[index,assignment]

        def after(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            return {**saved, "note": saved["state"].pop("note", None)}

        for each in paths(device, optim_info, differentiable=True):
            optimizer = optim_info.optim_cls([torch.ones(2, device=device)], **each.kwargs)
            handle = optimizer.register_state_dict_post_hook(after)
            assert optimizer.state_dict()["note"] is None, each.desc
            optimizer.register_state_dict_pre_hook(before)
            assert optimizer.state_dict()["note"] == 1, each.desc
            handle.remove()
            assert optimizer.state_dict()["state"]["note"] == 1, each.desc

    @optims(INFOS)
    def test_load_state_dict_hooks(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Those before change what is loaded, in order; those afterwards see what was loaded."""

        def in_place(optimizer: Optimizer, saved: dict[str, Any]) -> None:
            saved["param_groups"][0]["lr"] = 0.002

        def anew(optimizer: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
            saved = deepcopy(saved)
            saved["param_groups"][0]["lr"] = 0.003
            return saved

        for each in paths(device, optim_info, differentiable=True):
            optimizer = optim_info.optim_cls([torch.ones(2, device=device)], **each.kwargs)
            seen: list[float] = []
            optimizer.register_load_state_dict_post_hook(
                lambda one, seen=seen: seen.append(one.param_groups[0]["lr"])
            )
            optimizer.register_load_state_dict_pre_hook(in_place)
            optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
            handle = optimizer.register_load_state_dict_pre_hook(anew, prepend=True)
            optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
            handle.remove()
            optimizer.register_load_state_dict_pre_hook(anew)
            optimizer.load_state_dict(deepcopy(optimizer.state_dict()))
            assert seen == [0.002, 0.002, 0.003], each.desc

    @optims(INFOS)
    def test_post_hook_may_put_anything_into_state(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """State that belongs to no parameter is left alone, also by the next load."""

        def note(optimizer: Optimizer) -> None:
            optimizer.state["note"] = True  # type: ignore[index,assignment]

        for each in paths(device, optim_info, differentiable=True):
            optimizer = optim_info.optim_cls([torch.ones(2, device=device)], **each.kwargs)
            handle = optimizer.register_load_state_dict_post_hook(note)
            optimizer.load_state_dict(optimizer.state_dict())
            handle.remove()
            optimizer.load_state_dict(optimizer.state_dict())
            assert optimizer.state["note"] is True, each.desc
            optimizer.step()


def _params(optimizer: Optimizer) -> list[Parameter]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _nameless(optimizer: Optimizer) -> dict[str, Any]:
    saved: dict[str, Any] = plain(optimizer.state_dict())
    for group in saved["param_groups"]:
        group.pop("param_names", None)
    return saved


on_each_device(TestStates, globals())
on_each_device(TestHooks, globals())
