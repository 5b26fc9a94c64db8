"""The optimizers: Lion and its schedule-free variant."""

from liontool.optim._dispatch import backends
from liontool.optim.lion import Lion
from liontool.optim.lion_sf import LionSF

__all__ = ["Lion", "LionSF", "backends"]
