"""The service above delivery: activities by id, streams by key, the people and devices behind them.

Names are loaded when they are first used, so that a part of it can be used alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .apps import App
    from .audience import Audience
    from .broadcast_channels import ChannelView, CreateChannel
    from .idempotency import Key, Once
    from .notifications import Notify
    from .receipts import ReceiptRecord
    from .records import DeviceRecord, TokenRecord
    from .requests import Accepted, AlertText, CatalogText, End, Presentation, Start, Update
    from .service import Service
    from .settings import ServiceSettings
    from .store.database import Database
    from .store.sealing import Sealer
    from .streams import Streamed

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
    "Audience": ".audience",
    "CatalogText": ".requests",
    "ChannelView": ".broadcast_channels",
    "CreateChannel": ".broadcast_channels",
    "Database": ".store.database",
    "DeviceRecord": ".records",
    "End": ".requests",
    "Key": ".idempotency",
    "Notify": ".notifications",
    "Once": ".idempotency",
    "Presentation": ".requests",
    "ReceiptRecord": ".receipts",
    "Sealer": ".store.sealing",
    "Service": ".service",
    "ServiceSettings": ".settings",
    "Start": ".requests",
    "Streamed": ".streams",
    "TokenRecord": ".records",
    "Update": ".requests",
}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        value = getattr(import_module(_ROOMS[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
