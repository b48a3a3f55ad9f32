"""Bulk import of devices, people and tokens from CSV and JSON Lines."""

from __future__ import annotations

from .importer import BATCH, Imports, Layout, Source
from .report import LineError, Progress, Report

__all__ = ["BATCH", "Imports", "Layout", "LineError", "Progress", "Report", "Source"]
