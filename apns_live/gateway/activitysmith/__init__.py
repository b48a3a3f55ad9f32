"""ActivitySmith's API: its endpoints, bodies, answers and errors, over the service.

Programs written for ``https://activitysmith.com/api`` run against the gateway with the base address
swapped. The paths answer under ``/api`` and without it.
"""

from typing import ClassVar

from starlette.responses import Response

from ..calls import Call as AnyCall
from ..calls import Face, Handler, operation
from ..credentials import HEAD, Phone
from ..keys import ApiKey
from ..problems import json_answer
from ..scopes import Dialect
from . import live, metrics, pushes
from .buttons import tap
from .dialect import Call, refusal_of

PREFIXES = ("", "/api")
_PATHS = ("/live-activity/", "/push-notification/", "/badge/", "/metrics/")
_STREAM = "/live-activity/stream/{stream_key"

_OPERATIONS: tuple[tuple[str, Handler, str], ...] = (
    ("POST /live-activity/update", live.update, "activities:update"),
    ("POST /live-activity/start", live.start, "activities:start"),
    ("POST /live-activity/end", live.end, "activities:end"),
    (f"POST {_STREAM}}}/pause", live.pause_stream, "streams:write"),
    (f"POST {_STREAM}}}/resume", live.resume_stream, "streams:write"),
    (f"PUT {_STREAM}:path}}", live.put_stream, "streams:write"),
    (f"DELETE {_STREAM}:path}}", live.end_stream, "streams:write"),
    ("POST /push-notification", pushes.send, "notifications:send"),
    ("PUT /push-notification/{notification_id}", pushes.replace, "notifications:send"),
    ("POST /badge", pushes.badge, "notifications:send"),
    ("POST /metrics/{key}/value", metrics.give, "activities:update"),
    ("PUT /metrics/{key}", metrics.make, "admin"),
    ("GET /metrics/{key}", metrics.get, "activities:read"),
    ("DELETE /metrics/{key}", metrics.remove, "admin"),
)
_LIST = ("GET /metrics", metrics.view_all, "activities:read")
"""Only below ``/api``: ``/metrics`` itself is the gateway's own counters."""


class ActivitySmith(Face):
    """ActivitySmith's API under two path prefixes. Phones may read the metrics of their widgets."""

    dialect: ClassVar[Dialect] = "activitysmith"
    call = Call
    no_key = "Give a valid API key of this gateway in the header Authorization: Bearer ask_…"

    def __init__(self) -> None:
        self.operations = [
            operation(self, place.replace(" ", f" {prefix}"), do, scope=scope, grouped=True)
            for prefix in PREFIXES
            for place, do, scope in (*_OPERATIONS, *((_LIST,) if prefix else ()))
        ]
        self.operations += [
            operation(self, f"POST {prefix}/live-activity/taps/{{tap}}", tap, who="anyone")
            for prefix in PREFIXES
        ]

    def owns(self, path: str) -> bool:
        """Its own paths. Paths of metrics are its own only below /api."""
        if path == "/metrics" or path.startswith("/api/v1/"):
            return False
        return path.startswith("/api/") or f"{path}/".startswith(_PATHS)

    def refuse(self, error: Exception) -> Response:
        """Return the answer to an error."""
        refused, headers = refusal_of(error), {"cache-control": "no-store"}
        return json_answer(refused.body, refused.status, headers, retry_after=refused.retry_after)

    async def find(self, call: AnyCall) -> ApiKey | Phone:
        """Return the key. On paths that widgets read, return the phone of a device credential."""
        secret = call.secret()
        if call.operation.scope == "activities:read" and secret.startswith(f"{HEAD}."):
            phone = await call.gateway.credentials.check(secret)
            if phone is not None:
                return phone
        return await super().find(call)
