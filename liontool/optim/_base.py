"""What Lion and LionSF share: groups, state, the frame of a step. Knows no update rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from liontool.optim import (
    _agreement,
    _averages,
    _dispatch,
    _fused,
    _gradients,
    _groups,
    _kernel_triton,
    _kernels,
    _loading,
    _options,
    _scalars,
    _sharding,
    _state,
    _telemetry,
    _update,
)
from liontool.optim._batch import Average, Batch, Group, Piece, real_gradient, reals
from liontool.optim.kernels.triton_owner import Owner

# Arguments of the constructors that are not options of a group.
_NOT_OPTIONS = ("self", "params", "use_triton", "__class__")
# Options that no constructor takes.
_WITHOUT_ARGUMENT = {"horizon": None, "rounding_seed": 0}


class LionBase(Optimizer):
    """Frame of the Lions: every option is in `param_groups`, whatever else they need in `state`.

    Each group has, beside its options:

    - `step`: steps since construction or conversion, and `micro_step`: gradients summed up since;
      0-d int64 tensors, on the CPU, or with the weights where a device flag may hold a step back,
    - `horizon`: how many gradients its momentum averages at step 0, or None,
    - `reference_lr`: its first lr, to which `decoupled_weight_decay` is relative,
    - `rounding_seed`: seeds stochastic rounding.

    State of a parameter: `exp_avg`, the momentum; and with their options `residual` (int16),
    `accumulator` and `ema`, all of the parameter's shape.
    """

    def __init__(self, params: ParamsT, arguments: dict[str, Any]) -> None:
        options = {name: arguments[name] for name in arguments if name not in _NOT_OPTIONS}
        options["fused"] = _options.fused(options["fused"], arguments["use_triton"])
        _options.check(options)
        super().__init__(params, {**options, **_WITHOUT_ARGUMENT})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A class that is built on Lion may have arguments that are no options.
        ours = next(kind for kind in type(self).__mro__ if LionBase in kind.__bases__)
        parameters = inspect.signature(ours).parameters.values()
        known = {each.name: each.default for each in parameters if each.name not in _NOT_OPTIONS}
        self.defaults = {**known, **_WITHOUT_ARGUMENT, **self.defaults}
        for group in self.param_groups:
            _complete(group, self.defaults)

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for index, group in enumerate(self.param_groups):
            shown = {**group, "path": _fused.path_name(group, self)}
            names = sorted(name for name in shown if name != "params")
            lines += [f"Parameter Group {index}", *(f"    {name}: {shown[name]}" for name in names)]
        return "\n".join([*lines, ")"])

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether GradScaler leaves scale and flag to the step, which then waits for no device."""
        return _dispatch.scales_gradients(self.param_groups)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group with its own counters; see `torch.optim.Optimizer.add_param_group`.

        Raises:
            ValueError: An option has an illegal value, or differs between groups and must not.
        """
        if isinstance(param_group, dict):  # else torch has the right words
            _options.check({**self.defaults, **param_group}, known=self.defaults)
        super().add_param_group(param_group)
        try:
            _complete(self.param_groups[-1], self.defaults)
            _options.check_once(self.param_groups)
        except Exception:
            self.param_groups.pop()
            raise

    def state_dict(self) -> dict[str, Any]:
        """The state and the groups; see `torch.optim.Optimizer.state_dict`.

        A `residual` is int32 in it: no backend sends int16 from rank to rank.
        """
        handle = self.register_state_dict_post_hook(_state.widen_residuals, prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a Lion, ours or another's, bit for bit.

        Options that the loaded groups lack stay as they were constructed; keys of other optimizers
        are dropped with a warning, the user's own stay; without `step` and `horizon` the momentum
        counts as long and the steps from 0. Load the model first: what other Lions keep beside
        bfloat16 weights becomes the residual of the weights that are there.

        Raises:
            ValueError: The state is Adam's (see `liontool convert`) or no Lion's, does not fit, or
                lacks though steps were made.
        """
        _loading.load(self, state_dict, super().load_state_dict)

    def init_state(self) -> None:
        """Create the state of every parameter that requires a gradient and has none yet."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.requires_grad:
                    self._init_state(param, group)

    def reset_residuals(self) -> None:
        """Forget what `rounding="split"` keeps beside the weights, after others changed them.

        Not needed for safety: without it a changed weight is off by at most half a unit in its last
        place.
        """
        for state in self.state.values():
            if "residual" in state:
                state["residual"].zero_()

    @torch.no_grad()
    def finalize_variable_values(self) -> None:
        """Overwrite the weights with their running averages, as Keras does when training ends.

        Raises:
            ValueError: `use_ema` is off.
        """
        for average in self._all_averages():
            average.write(average.ema)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Evaluate with the running averages; the weights come back in the end, bit for bit.

        Raises:
            ValueError: `use_ema` is off.
        """
        averages = self._all_averages()
        with torch.no_grad():
            kept = [
                (each.weight.clone(), None if each.residual is None else each.residual.clone())
                for each in averages
            ]
            for average in averages:
                average.write(average.ema)
        self._is_averaged = True
        try:
            yield
        finally:
            self._is_averaged = False
            with torch.no_grad():
                for average, (weight, residual) in zip(averages, kept, strict=True):
                    average.restore(weight, residual)

    def step_metrics(self) -> list[dict[str, Tensor]]:
        """What the last step did, for each parameter group: 0-d float64 tensors, none of them read.

        The first call switches the recording on and returns an empty list. Recording costs another
        pass over the weights and takes the path without kernels; steps under torch.compile are not
        recorded. A micro-step that only sums up gradients changes nothing here.

        Returns:
            agreement: Share of the elements whose update points where their gradient does.
            scale: LionSF's factor on the update, the mean over the elements; 1 for Lion.
            skipped: Share of the elements that got no update, for caution or a skipped step.
            vanished: Share of the updates that rounding took.
        """
        metrics: list[dict[str, Tensor]] | None = self.__dict__.get("_metrics")
        if metrics is None:
            self._metrics = metrics = []
        return metrics

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on every parameter that has a gradient.

        The first step of an optimizer without state, with every lr 0 and every gradient 0, only
        creates state and is not counted: so torch.distributed.checkpoint initialises an optimizer.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Raises:
            RuntimeError: A gradient is sparse, or not finite with `nonfinite="raise"`, or
                `fused=True` is asked for where there is no kernel.
        """
        self._accelerator_graph_capture_health_check()
        if self.__dict__.get("_is_averaged"):
            raise RuntimeError(
                "step() inside averaged_weights() would be undone at its end; leave it first"
            )
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            if self._only_initialises():
                self.init_state()
            else:
                self._advance()
        return loss

    def _advance(self) -> None:
        is_compiling = torch.compiler.is_compiling()
        if not (self._advance_traced() if is_compiling else self._advance_fused()):
            self._advance_plain()

    def _advance_traced(self) -> bool:
        """Put the step of a kernel into the graph that is traced, if there is one for all of it."""
        groups = [group for group in self.param_groups if _has_gradients(group)]
        if not groups or self._is_recording() or _kernels.for_groups(groups) is None:
            return False
        self._init_group()
        batches = [batch for batch in self._batches() if batch.pieces]
        grad_scale, found_inf = self._amp()
        if not _kernel_triton.trace(self._owner, batches, grad_scale, found_inf):
            return False
        self._finish(groups, found_inf)
        return True

    def _advance_fused(self) -> bool:
        """Let a kernel do the step, if there is one for all of it."""
        if self._is_recording() or not self._stall_was_looked_for():
            return False
        fused: _fused.Fused | None = self.__dict__.get("_fused")
        if fused is None or not fused.holds():
            self._init_group()
            self._fused = fused = _fused.Fused(self, self._batches())
        grad_scale, found_inf = self._amp()
        if not fused.step(grad_scale, found_inf):
            return False
        self._finish(fused.groups, found_inf)
        return True

    def _finish(self, groups: list[Group], found_inf: Tensor | None) -> None:
        """What a step is beside the work of a kernel: averages, and counts of these groups."""
        gate = _gradients.Gate(False if found_inf is None else found_inf.reshape(()) != 0)
        batches = [Batch(group, [], self._averages_of(group)) for group in self.param_groups]
        _averages.average(batches, gate)
        for group in groups:
            _add(group["step"], gate.skip)

    def _amp(self) -> tuple[Tensor | None, Tensor | None]:
        """What GradScaler hands over: its scale, and whether it found what is not finite."""
        return getattr(self, "grad_scale", None), getattr(self, "found_inf", None)

    def _advance_plain(self) -> None:
        self._init_group()
        batches = self._batches()
        if not any(batch.pieces for batch in batches):
            return
        gate = _gradients.prepare(batches, *self._amp())
        looks_for_stall = self._looks_for_stall(gate)
        if gate.hold is not True:
            self._update(batches, gate, looks_for_stall)
            _gradients.clear_sums(self._sums(), gate)
        _averages.average(batches, gate)
        self._count(batches, gate)
        if looks_for_stall:
            _telemetry.warn_if_stalled(batches)

    def _update(self, batches: list[Batch], gate: _gradients.Gate, looks_for_stall: bool) -> None:
        recording = self._is_recording()
        counts = _agreement.set_sizes(batches, always=recording)
        is_watched = _telemetry.is_coarse if looks_for_stall else None
        for batch in batches:
            _update.update(batch, gate.stay, (lambda *_: True) if recording else is_watched)
        if recording:
            self._metrics = _telemetry.metrics(batches, counts, gate.stay)

    def _is_recording(self) -> bool:
        return self.__dict__.get("_metrics") is not None

    def _stall_was_looked_for(self) -> bool:
        """Whether no weight can stall unseen; the plain path looks, in the first step."""
        if not self.__dict__.get("_looked_for_stall"):
            self._looked_for_stall = not any(
                _telemetry.is_coarse(param, group)
                for group in self.param_groups
                for param in group["params"]
            )
        return self._looked_for_stall

    def _looks_for_stall(self, gate: _gradients.Gate) -> bool:
        """Whether this is the first step that moves weights, as far as that is known."""
        if torch.compiler.is_compiling() or gate.stay is not False or self._is_recording():
            return False
        if self._stall_was_looked_for():
            return False
        self._looked_for_stall = any(map(_scalars.is_moving, self.param_groups))
        return True

    def _count(self, batches: list[Batch], gate: _gradients.Gate) -> None:
        for batch in batches:
            if batch.pieces:
                _add(batch.group["step"], gate.stay)
        steps = self.param_groups[0]["gradient_accumulation_steps"]
        if steps is not None:
            # One number for all groups, those that came later included.
            micro_step = _scalars.most(self.param_groups, "micro_step")
            for group in self.param_groups:
                group["micro_step"].fill_(micro_step)
                _add(group["micro_step"], gate.skip)
                group["micro_step"].remainder_(steps)

    def _batches(self) -> list[Batch]:
        batches, ordinal = [], 0
        for group in self.param_groups:
            pieces = [
                self._piece(param, group, ordinal + place)
                for place, param in enumerate(group["params"])
                if param.grad is not None
            ]
            batches.append(Batch(group, pieces, self._averages_of(group)))
            ordinal += len(group["params"])
        return batches

    def _init_group(self) -> None:
        # torch.compile calls the method of this name while it traces, instead of tracing it, and
        # reads the state after the first call: so this one is for all groups.
        if "_owner" not in self.__dict__:
            self._owner = Owner()
        for group in self.param_groups:
            _scalars.place_counters(group)
            _kernels.check(group)
            for param in group["params"]:
                if param.grad is not None:
                    _refuse_sparse(param.grad, self)
                    _refuse_misshapen(param.grad, param)
                if param.grad is not None or (group["use_ema"] and param.requires_grad):
                    self._init_state(param, group)

    def _init_state(self, param: Tensor, group: Group) -> None:
        state = self.state[param]
        for name, dtype in _state.dtypes(param, group).items():
            if name not in state:
                state[name] = _state.beginning(name, param, dtype)

    def _piece(self, param: Tensor, group: Group, ordinal: int) -> Piece:
        state = self.state[param]
        # State of an option that was switched off since stays, and counts for nothing.
        options = _state.dtypes(param, group)
        residual, accumulator = (
            state[name] if name in options else None for name in ("residual", "accumulator")
        )
        return Piece(
            param,
            ordinal,
            weight=reals(param),
            grad=real_gradient(param),
            exp_avg=reals(state["exp_avg"]),
            residual=None if residual is None else reals(residual),
            accumulator=None if accumulator is None else reals(accumulator),
        )

    def _sums(self) -> list[Tensor]:
        # Of every parameter: as in Keras, whoever has no gradient in the last micro-step loses it.
        params = [param for group in self.param_groups for param in group["params"]]
        states = [self.state[param] for param in params if param in self.state]
        return [reals(state["accumulator"]) for state in states if "accumulator" in state]

    def _averages_of(self, group: Group) -> list[Average]:
        if not group["use_ema"]:
            return []
        params = [param for param in group["params"] if "ema" in self.state.get(param, {})]
        return [
            Average(
                param,
                reals(param),
                reals(self.state[param]["residual"]) if "residual" in self.state[param] else None,
                reals(self.state[param]["ema"]),
            )
            for param in params
        ]

    def _all_averages(self) -> list[Average]:
        if not any(group["use_ema"] for group in self.param_groups):
            raise ValueError("Invalid use_ema: False, must be True for averages of the weights")
        return [each for group in self.param_groups for each in self._averages_of(group)]

    def _only_initialises(self) -> bool:
        if torch.compiler.is_compiling() or any(self.state.values()):
            return False
        if any(group["lr"] != 0 for group in self.param_groups):
            return False
        params = [param for group in self.param_groups for param in group["params"]]
        if any(param.grad is not None and param.grad.is_sparse for param in params):
            return False  # and be refused
        grads = [_sharding.local(param.grad) for param in params if param.grad is not None]
        given = torch.tensor(any(bool(grad.count_nonzero()) for grad in grads))
        return not bool(_sharding.any_rank(given, params))


def _complete(group: Group, defaults: dict[str, Any]) -> None:
    """Put what a group has beside its options, and check it."""
    for name, default in defaults.items():
        group.setdefault(name, default)
    group.setdefault("reference_lr", float(_scalars.detached(group["lr"])))
    _groups.complete(group)
    _kernels.check(group)


def _has_gradients(group: Group) -> bool:
    return any(param.grad is not None for param in group["params"])


def _refuse_sparse(grad: Tensor, optimizer: Optimizer) -> None:
    if grad.is_sparse:
        raise RuntimeError(
            f"{type(optimizer).__name__} does not support sparse gradients: its momentum moves "
            "every row; build the embedding with sparse=False"
        )


def _refuse_misshapen(grad: Tensor, param: Tensor) -> None:
    # Only `grad.data = ...` gets past torch's own check, and broadcasting would hide it.
    if not torch.compiler.is_compiling() and grad.shape != param.shape:
        raise RuntimeError(
            f"a gradient of shape {tuple(grad.shape)} for a parameter of shape "
            f"{tuple(param.shape)}; both must be equal: set it by param.grad, which checks it"
        )


def _add(counter: Tensor, stay: bool | Tensor) -> None:
    if isinstance(stay, Tensor):
        counter.add_((~stay).to(counter))
    elif not stay:
        counter.add_(1)
