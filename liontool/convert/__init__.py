"""From AdamW to Lion."""

from __future__ import annotations

from liontool.convert.conversion import convert_checkpoint
from liontool.convert.report import ConversionReport, Notice, OptimizerReport

__all__ = ["ConversionReport", "Notice", "OptimizerReport", "convert_checkpoint"]
