"""Audiences: ids, groups, saved segments and filter trees, compiled to indexed SQL."""

from ...requests.audience import Audience
from .filters import Filter, parse_filter
from .resolve import Audiences, DryRun, Recipient, living_tokens, recipient_pages
from .segments import Segments

__all__ = [
    "Audience",
    "Audiences",
    "DryRun",
    "Filter",
    "Recipient",
    "Segments",
    "living_tokens",
    "parse_filter",
    "recipient_pages",
]
