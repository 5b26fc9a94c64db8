"""What each optimizer keeps in its state and its groups: data only, imports nothing of ours.

`recognise` tells AdamW from its look-alikes by whole sets of keys, and `LIONS` says what every Lion that
can be a target reads from a file. A test compares these tables with what the packages really save.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

# Keys that schedulers, loaders and torch itself add to a group of any optimizer.
COMMON_GROUP_KEYS = frozenset(
    {"params", "param_names", "lr", "initial_lr", "max_lr", "min_lr", "swa_lr"}
    | {"max_momentum", "base_momentum"}
)
