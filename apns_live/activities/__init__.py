"""The service above delivery: activities by id, streams by key, the people and devices behind them.

Names are loaded when they are first used, so that a part of it can be used alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .accept.broadcast_channels import ChannelView, CreateChannel
    from .accept.idempotency import Key, Once
    from .accept.receipts import ReceiptRecord
    from .accept.streams import Streamed
    from .apps import App
    from .people.records import DeviceRecord, TokenRecord
    from .requests import Accepted, AlertText, CatalogText, End, Presentation, Start, Update
    from .requests.audience import Audience
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
    "Accepted": ".requests",
    "AlertText": ".requests",
    "App": ".apps",
    "Audience": ".requests.audience",
    "CatalogText": ".requests",
    "ChannelView": ".accept.broadcast_channels",
    "CreateChannel": ".accept.broadcast_channels",
    "Database": ".store.database",
    "DeviceRecord": ".people.records",
    "End": ".requests",
    "Key": ".accept.idempotency",
    "Notify": ".requests.notify",
    "Once": ".accept.idempotency",
    "Presentation": ".requests",
    "ReceiptRecord": ".accept.receipts",
    "Sealer": ".store.sealing",
    "Service": ".service",
    "ServiceSettings": ".settings",
    "Start": ".requests",
    "Streamed": ".accept.streams",
    "TokenRecord": ".people.records",
    "Update": ".requests",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        value = getattr(import_module(_ROOMS[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
