"""The control API of the fake APNs: HTTP JSON for any language, and the inspector page."""

from .api import ControlApi
from .server import make_app, serve_control

__all__ = ["ControlApi", "make_app", "serve_control"]
