"""What a caller says, checked, and the push messages that it becomes. Accept and send both use these."""

from .requests import (
    Accepted,
    AlertText,
    CatalogText,
    End,
    Presentation,
    Start,
    Text,
    Update,
    Urgency,
)

__all__ = [
    "Accepted",
    "AlertText",
    "CatalogText",
    "End",
    "Presentation",
    "Start",
    "Text",
    "Update",
    "Urgency",
]
