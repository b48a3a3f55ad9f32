"""Bulk import of devices, people and tokens from CSV and JSON Lines."""

from .importer import BATCH, Imports, Layout, LineError, Progress, Report, Source

__all__ = ["BATCH", "Imports", "Layout", "LineError", "Progress", "Report", "Source"]
