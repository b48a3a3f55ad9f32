"""Who should get it: ids, groups, saved segments and filter trees, compiled to indexed SQL."""

from ...requests.audience import Audience
from .filters import All, Any, Condition, Filter, parse_filter
from .resolve import Audiences, DryRun, Recipient, living_tokens, recipient_pages
from .segments import Segments

__all__ = [
    "All",
    "Any",
    "Audience",
    "Audiences",
    "Condition",
    "DryRun",
    "Filter",
    "Recipient",
    "Segments",
    "living_tokens",
    "parse_filter",
    "recipient_pages",
]
