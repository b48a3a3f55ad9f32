"""OneSignal's Live Activity API, for servers and for phones that were written for OneSignal.

Servers run against it with another host and another key. What phones call without a key is off
unless the app's setting says otherwise; see `devices`.
"""

from .answers import refusal
from .routes import routes

__all__ = ["refusal", "routes"]
