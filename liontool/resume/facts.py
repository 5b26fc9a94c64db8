"""What run.json says beside the step: classes, names, data, versions and settings of a run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy
import torch

from liontool.checkpoint.run_folder.layout import FACTS
from liontool.errors import FormatError
from liontool.version import __version__

Facts = Mapping[str, Any]

_PRECISIONS = (
    "cuda.matmul", "cudnn", "cudnn.conv", "cudnn.rnn",
    "mkldnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn",
)  # fmt: skip
_DATA = ("batch_size", "num_workers", "drop_last")


def class_name(thing: object) -> str:
    """The class of an object as "module.Class", without what `torch.compile` and DDP put around."""
    kind = type(unwrapped(thing))
    return f"{kind.__module__}.{kind.__qualname__}"


def unwrapped(thing: object) -> object:
    """The model inside of `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    while isinstance(thing, torch.nn.Module):
        inner = thing._modules.get("_orig_mod")
        if isinstance(thing, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
            inner = thing.module
        if inner is None:
            return thing
        thing = inner
    return thing


def same_class(one: str, other: str) -> bool:
    """A class that the script itself defines is the same one where the script is imported."""
    if "__main__" in (one.split(".")[0], other.split(".")[0]):
        return one.rsplit(".", 1)[-1] == other.rsplit(".", 1)[-1]
    return one == other


def versions() -> dict[str, str]:
    """Of everything that computes."""
    return {
        "liontool": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "cuda": str(torch.version.cuda),
    }


def settings() -> dict[str, Any]:
    """Global settings that decide about the bits of a result. They are recorded, never changed."""
    return {
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "num_threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        **{f"float32 in {path}": kind for path, kind in _precisions().items()},
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def _precisions() -> dict[str, str]:
    """How float32 is computed with. Torch has two ways to say it, and may not be asked in both."""
    if not hasattr(torch.backends, "fp32_precision"):
        tf32 = str(torch.backends.cudnn.allow_tf32)
        return {"matmul": torch.get_float32_matmul_precision(), "cudnn.tf32": tf32}
    return {path: str(attrgetter(path)(torch.backends).fp32_precision) for path in _PRECISIONS}


def data(loader: Any) -> dict[str, Any] | None:
    """What says that a loader goes over the same data in the same way; None without one."""
    if loader is None:
        return None
    dataset = getattr(loader, "dataset", None)
    found = {name: getattr(loader, name, None) for name in _DATA}
    found = {name: value for name, value in found.items() if isinstance(value, int | None)}
    return {
        "batches": _length(loader),
        "samples": _length(dataset),
        **found,
        "dataset": class_name(dataset),
        "sampler": class_name(getattr(loader, "sampler", None)),
    }


def _length(thing: Any) -> int | None:
    """None for a stream, which has no length."""
    try:
        return len(thing)
    except (TypeError, NotImplementedError):
        return None


def checked(facts: Facts) -> Facts:
    """The facts of a checkpoint, after a look at how they are laid out.

    Raises:
        FormatError: They are not what liontool writes.
    """
    for name, fits in _LAYOUT.items():
        if not fits(facts.get(name)):
            raise FormatError(f"{FACTS}: '{name}' is not what liontool writes there")
    return facts


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_names(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(groups, list) and all(_is_group(group) for group in groups)
        for groups in value.values()
    )


def _is_group(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str | None) for name in value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_none_or_object(value: Any) -> bool:
    return isinstance(value, dict | None)


_LAYOUT: Mapping[str, Callable[[Any], bool]] = {
    "classes": _is_texts,
    "param_names": _is_names,
    "config": _is_none_or_object,
    "data": _is_none_or_object,
    "overrides": _is_none_or_object,
    "versions": _is_object,
    "settings": _is_object,
}


def changed_settings(facts: Facts) -> list[str]:
    """Why the numbers of this process may differ in bits from those of the checkpoint."""
    return [
        f"{title}{name} is {now.get(name)}, and was {then[name]}"
        for title, then, now in (
            ("", facts["settings"], settings()),
            ("the version of ", facts["versions"], versions()),
        )
        for name in then
        if name != "liontool" and then[name] != now.get(name)
    ]
