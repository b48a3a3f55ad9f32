"""Firebase Cloud Messaging's HTTP v1 API for messages to Apple devices, without a store behind it.

A server that sends Live Activities through FCM runs against it: ``messages:send`` becomes one push,
and what APNs answers is the answer.
"""

from .answers import refusal
from .routes import routes

__all__ = ["refusal", "routes"]
