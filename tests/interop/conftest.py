"""What holds for the tests with real frameworks: each needs its own, and may warn about itself."""

from __future__ import annotations

from importlib.util import find_spec

_NEEDS = {
    "test_edit_hf_trainer.py": ("transformers", "accelerate"),
    "test_edit_lightning.py": ("lightning",),
    "test_hf_trainer.py": ("transformers", "accelerate", "lion_pytorch"),
    "test_lightning.py": ("lightning",),
    "test_trainer_curve.py": ("transformers", "accelerate"),
}

collect_ignore = [name for name, packages in _NEEDS.items() if None in map(find_spec, packages)]
