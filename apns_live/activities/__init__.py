"""The service over one database: activities by id, streams by key, devices, users, outcomes.

Names are imported on first use, so that a part can be used without loading the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .accept.broadcast_channels import ChannelView, CreateChannel
    from .accept.idempotency import Key, Once
    from .accept.receipts import ReceiptRecord
    from .accept.streams import Streamed
    from .apps import App
    from .people.records import DeviceRecord, TokenRecord
    from .requests import (
        Accepted,
        AlertText,
        Audience,
        CatalogText,
        End,
        Presentation,
        Start,
        Update,
    )
    from .requests.notify import Notify
    from .service import Service
    from .settings import ServiceSettings
    from .store.database import Database
    from .store.sealing import Sealer

__all__ = [
    "Accepted",
    "AlertText",
    "App",
    "Audience",
    "CatalogText",
    "ChannelView",
    "CreateChannel",
    "Database",
    "DeviceRecord",
    "End",
    "Key",
    "Notify",
    "Once",
    "Presentation",
    "ReceiptRecord",
    "Sealer",
    "Service",
    "ServiceSettings",
    "Start",
    "Streamed",
    "TokenRecord",
    "Update",
]

_ROOMS = {
    ".requests": "Accepted AlertText Audience CatalogText End Presentation Start Update",
    ".requests.notify": "Notify",
    ".apps": "App",
    ".accept.broadcast_channels": "ChannelView CreateChannel",
    ".accept.idempotency": "Key Once",
    ".accept.receipts": "ReceiptRecord",
    ".accept.streams": "Streamed",
    ".people.records": "DeviceRecord TokenRecord",
    ".service": "Service",
    ".settings": "ServiceSettings",
    ".store.database": "Database",
    ".store.sealing": "Sealer",
}


def __getattr__(name: str) -> object:
    for room, names in _ROOMS.items():
        if name in names.split():
            value = globals()[name] = getattr(import_module(room, __name__), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
