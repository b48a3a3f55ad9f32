"""Braze's Live Activity API: ``/messages/live_activity/start`` and ``/messages/live_activity/update``.

A server that was written for Braze runs against it with another REST endpoint and another key.
"""

from .answers import refusal
from .routes import routes

__all__ = ["refusal", "routes"]
