"""`exp_avg:bf16`, `exp_avg:zeros@head.*`: state tensors in another dtype, or emptied.

Values are made block by block while the result is written, rounded to nearest, ties to even. Step
counts stay. What is part of a quantised state is not touched: its zeros are no zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from liontool.checkpoint import encoding, values
from liontool.checkpoint.document import Computed, TensorRef
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Slot
from liontool.convert.seeding import zeros
from liontool.edit import patterns
from liontool.edit.draft import Draft, Notice
from liontool.edit.noting import noted
from liontool.edit.strip import without_horizon
from liontool.edit.words import ZEROS, State
from liontool.errors import EditError
from liontool.states import ADAM_MOMENTS, MOMENT

_COUNTS = ("step",)
_STATE_DTYPE = "state_dtype"
_LION_DTYPES = ("bfloat16", "float32")
# What liontool's Lion keeps as whole numbers, and 0 means 0.
_WHOLE = ("residual",)


def restate(draft: Draft, word: State) -> Draft:
    """The draft with the tensors that `word` means in another dtype, or all zeros.

    Raises:
        EditError: There is no such state, it is none that can be changed so, or a value would not
            fit the dtype.
    """
    optimizers = draft.optimizers()
    _check_there(optimizers, word)
    made: dict[int, TensorRef] = {}
    after = tuple(_changed(optimizer, word, made) for optimizer in optimizers)
    if not made:
        raise EditError(_nothing(optimizers, word))
    checkpoint = replace(draft.checkpoint, optimizers=after)
    return noted(replace(draft, checkpoint=checkpoint), _notes(optimizers, word))


def _check_there(optimizers: Collection[Optimizer], word: State) -> None:
    if word.name in _COUNTS:
        raise EditError(f"{word.name} counts, and stays; to start anew: strip")
    slots = [slot for optimizer in optimizers for slot in optimizer.slots.values()]
    names = dict.fromkeys(name for slot in slots for name, _ in slot.tensors())
    if not names:
        raise EditError("the optimizer has no state")
    if word.name not in names:
        there = [name for name in names if name not in _COUNTS]
        raise EditError(f"no state is called '{word.name}'; there is {', '.join(there)}")
    if not any(True for optimizer in optimizers for _ in _meant(optimizer, word)):
        raise patterns.nothing(word.glob, [slot.label for slot in slots])


def _meant(optimizer: Optimizer, word: State) -> Iterator[tuple[int | str, TensorRef]]:
    """The tensors that the word speaks of, by the keys of their slots."""
    fits = patterns.matcher(word.glob)
    for key, slot in optimizer.slots.items():
        tensor = slot.state.get(word.name)
        if isinstance(tensor, TensorRef) and fits(slot.label):
            yield key, tensor


def _nothing(optimizers: Collection[Optimizer], word: State) -> str:
    return f"all {word.name} that it names are {word.to} already"


def _changed(optimizer: Optimizer, word: State, made: dict[int, TensorRef]) -> Optimizer:
    slots = dict(optimizer.slots)
    for key, tensor in _meant(optimizer, word):
        slots[key] = _changed_slot(slots[key], tensor, word, made)
    whole = {key for key, _ in _meant(optimizer, word)}
    groups = tuple(_changed_group(group, word, whole, slots) for group in optimizer.groups)
    return replace(optimizer, slots=slots, groups=groups)


def _changed_slot(slot: Slot, tensor: TensorRef, word: State, made: dict[int, TensorRef]) -> Slot:
    """The slot with a new tensor; one that two optimizers of a file share stays shared."""
    if tensor.dtype == word.to:
        return slot
    if id(tensor) not in made:
        _check_dtype(slot, tensor, word)
        made[id(tensor)] = zeros(tensor) if word.to == ZEROS else cast(tensor, word.to)
    return replace(slot, state=slot.state.replaced({word.name: made[id(tensor)]}))


def _check_dtype(slot: Slot, tensor: TensorRef, word: State) -> None:
    where = f"{slot.label}: {word.name}"
    is_zero = word.to == ZEROS and (tensor.dtype.startswith("complex") or word.name in _WHOLE)
    if not (encoding.is_float(tensor.dtype) or is_zero):
        raise EditError(
            f"{where} is {tensor.dtype}, codes or whole numbers, and only floats become {word.to}"
        )
    if tensor.dtype in encoding.FP8:
        raise EditError(f"{where} is {tensor.dtype}, whose scale lies elsewhere; strip drops it")
    if word.to != ZEROS:
        _check_fits(where, tensor, word.to)


def _check_fits(where: str, tensor: TensorRef, dtype: str) -> None:
    """No finite value may become infinite; a type that has every exponent needs no look."""
    if dtype != "float16" and tensor.dtype != "float64":
        return
    for _ in _cast_blocks(where, tensor, dtype):
        pass


def cast(tensor: TensorRef, dtype: str) -> TensorRef:
    """The tensor in another dtype, rounded to nearest, ties to even.

    Raises:
        EditError: While it is written: a finite value is too large for the dtype.
    """
    where = tensor.label or "a tensor"
    blocks = Computed(lambda: _cast_blocks(where, tensor, dtype))
    return TensorRef(dtype, tensor.shape, blocks, tensor.label)


def _cast_blocks(where: str, tensor: TensorRef, dtype: str) -> Iterator[bytes]:
    import numpy as np

    for block in values.blocks(tensor):
        data = values.to_bytes(block, dtype)
        lost = np.isinf(encoding.decoded(data, dtype)) & np.isfinite(block)
        if lost.any():
            largest = float(np.abs(block[lost]).max())
            way_out = "take bf16" if dtype == "float16" else "leave it as it is"
            raise EditError(f"{where} has {largest:g}, which {dtype} cannot hold; {way_out}")
        yield data


def _changed_group(
    group: ParamGroup, word: State, changed: Collection[int | str], slots: dict[int | str, Slot]
) -> ParamGroup:
    """What liontool's Lion says in a group of its momentum, where all of that changes."""
    held = [key for key in group.params if key in slots]
    if word.name != MOMENT or not held or not set(held) <= set(changed):
        return group
    if word.to == ZEROS:
        return without_horizon(group)
    if _STATE_DTYPE not in group.fields or word.to not in _LION_DTYPES:
        return group
    return replace(group, fields=_with_dtype(group.fields, word.to))


def _with_dtype(fields: Fields, dtype: str) -> Fields:
    return fields if fields[_STATE_DTYPE] == dtype else fields.replaced({_STATE_DTYPE: dtype})


def _notes(optimizers: Collection[Optimizer], word: State) -> Iterator[Notice]:
    if word.to != ZEROS:
        if any(_STATE_DTYPE not in group.fields for one in optimizers for group in one.groups):
            yield Notice(
                "cast-on-load",
                f"torch's own loaders cast state to the dtype of the weights: {word.name} stays "
                f"{word.to} in training only where they are {word.to} too",
            )
    elif word.name in ADAM_MOMENTS:
        yield Notice(
            "zero-variance",
            f"{word.name} is zero and the step counts stay, so that nothing corrects for it: the "
            "first updates are many times too large; strip starts all anew",
        )
