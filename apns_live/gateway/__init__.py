"""The HTTP APIs: our own under /v1, and the vendors' under their paths.

``create_app(service)`` returns a FastAPI app; ``apns-live gateway`` serves it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import create_app
    from .context import Gateway
    from .keys import ApiKey, Keys
    from .settings import GatewaySettings, Limit

__all__ = ["ApiKey", "Gateway", "GatewaySettings", "Keys", "Limit", "create_app"]

_ROOMS = {
    "ApiKey": ".keys",
    "Gateway": ".context",
    "GatewaySettings": ".settings",
    "Keys": ".keys",
    "Limit": ".settings",
    "create_app": ".app",
}
"""Where each name lives: a command reads the settings without loading the server."""


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        value = getattr(import_module(_ROOMS[name], __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
