"""The HTTP API: our own under /v1, and the vendors' at their own paths.

``create_app(service)`` returns a FastAPI app; ``apns-live gateway`` serves it.
"""

from __future__ import annotations

from .app import create_app
from .context import Gateway
from .keys import ApiKey, Keys
from .settings import GatewaySettings, Limit

__all__ = ["ApiKey", "Gateway", "GatewaySettings", "Keys", "Limit", "create_app"]
