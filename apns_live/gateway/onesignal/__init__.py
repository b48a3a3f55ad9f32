"""OneSignal's Live Activity API, for servers and for phones.

Servers run against it with another host and another key. Calls that phones make without a key are off
unless the app's setting allows them; see `devices`. Every refusal is ``{"errors": [...]}``.

Source: OneSignal, "Rate limits and error handling", and the official SDKs' list of texts.
"""

from typing import Any, ClassVar

from starlette.exceptions import HTTPException
from starlette.responses import Response

from ...errors import InvalidInput, NotAllowed, TooManyRequests
from ..calls import Call, Face, Handler, operation
from ..credentials import Phone
from ..keys import ApiKey
from ..problems import json_answer, problem_of
from ..reach import is_named
from ..scopes import Dialect
from . import devices, live, segments, users, words

PREFIXES = ("", "/api/v1")
"""Older SDKs put ``/api/v1`` before every address."""
_LIVE = "/apps/{app_id}/live_activities/{activity_id:path}"
_USER = "/apps/{app_id}/users/by/{alias_label}/{alias_id}"
_SUBSCRIPTION = "/apps/{app_id}/subscriptions/{subscription_id}"
_SEGMENT = "/apps/{app_id}/segments/{segment_id}"
_MESSAGE = "/notifications/{notification_id}"
_START_TOKEN = (
    "/apps/{app_id}/activities/tokens/start/{activity_type}/subscriptions/{subscription_id}"
)

# The busiest calls come first. Calls without a scope here check it once they know the body.
_Calls = tuple[tuple[str, Handler, str], ...]
_LIVE_CALLS: _Calls = (
    (f"POST {_LIVE}/notifications", live.change, ""),
    ("POST /apps/{app_id}/activities/activity/{activity_type}", live.start, "activities:start"),
    (f"GET {_MESSAGE}", live.view, "operations:read"),
    (f"DELETE {_MESSAGE}", live.cancel, "activities:end"),
)
# Not for keys that are restricted to groups.
_WHOLE_APP: _Calls = (
    ("POST /apps/{app_id}/users", users.create_user, "devices:write"),
    (f"GET {_USER}", users.view_user, "devices:read"),
    (f"PATCH {_USER}", users.change_user, "devices:write"),
    (f"DELETE {_USER}", users.remove_user, "devices:write"),
    (f"GET {_USER}/identity", users.view_identity, "devices:read"),
    (f"PATCH {_USER}/identity", users.add_aliases, "devices:write"),
    (f"DELETE {_USER}/identity/{{label}}", users.remove_alias, "devices:write"),
    (f"POST {_USER}/subscriptions", users.create_subscription, "devices:write"),
    (f"PATCH {_SUBSCRIPTION}", users.change_subscription, "devices:write"),
    (f"DELETE {_SUBSCRIPTION}", users.remove_subscription, "devices:write"),
    (f"PATCH {_SUBSCRIPTION}/owner", users.transfer_subscription, "devices:write"),
    (f"GET {_SUBSCRIPTION}/user/identity", users.view_identity, "devices:read"),
    (f"PATCH {_SUBSCRIPTION}/user/identity", users.add_aliases, "devices:write"),
    ("GET /apps/{app_id}/segments", segments.view_all, "audiences:read"),
    ("POST /apps/{app_id}/segments", segments.create, "audiences:write"),
    (f"GET {_SEGMENT}", segments.view, "audiences:read"),
    (f"PATCH {_SEGMENT}", segments.change, "audiences:write"),
    (f"DELETE {_SEGMENT}", segments.delete, "audiences:write"),
)
_DEVICE_CALLS: _Calls = (
    (f"POST {_LIVE}/token", devices.enter, ""),
    (f"DELETE {_LIVE}/token/{{subscription_id}}", devices.leave, ""),
    (f"PUT {_START_TOKEN}", devices.register_start, ""),
    (f"DELETE {_START_TOKEN}", devices.withdraw_start, ""),
    (f"PUT {_MESSAGE}/report_received", devices.confirm, ""),
)


class OneSignal(Face):
    """OneSignal's API. Every refusal is ``{"errors": [text]}``."""

    dialect: ClassVar[Dialect] = "onesignal"
    # Current SDKs send ``Key``, older ones ``Bearer`` or ``Basic``, each with the plain key.
    schemes = ("key", "bearer", "basic")
    no_key = words.INVALID_KEY
    hides_others = True
    limit_bytes = 4_194_304  # 20,000 ids of a target fit in. OneSignal publishes no figure.

    def __init__(self) -> None:
        device: dict[str, Any] = {"who": "anyone", "limit_bytes": devices.MAX_BYTES}
        self.operations = [
            operation(self, place.replace(" ", f" {prefix}", 1), handler, scope=scope, **options)
            for prefix in PREFIXES
            for calls, options in (
                (_LIVE_CALLS, {"grouped": True}),
                (_WHOLE_APP, {}),
                (_DEVICE_CALLS, device),
            )
            for place, handler, scope in calls
        ]

    def owns(self, path: str) -> bool:
        """Its own paths, and all below the old prefix."""
        return f"{path}/".startswith(("/apps/", "/notifications/")) or path.startswith("/api/v1/")

    def refuse(self, error: Exception) -> Response:
        """Return the answer to an error."""
        match error:
            case HTTPException(status_code=405):
                return _errors(405, "Method not allowed")
            case HTTPException(status_code=404):
                text = "Not found: this gateway supports the calls that Live Activities need"
                return _errors(404, text)
            case InvalidInput():
                own = error.problem in (words.NO_TARGET, words.ALL_SENT)
                return _errors(400, error.problem if own else str(error))
            case NotAllowed():
                # OneSignal answers 403 also for a missing or wrong key.
                return _errors(403, words.INVALID_KEY if error.status == 401 else str(error))
            case TooManyRequests():
                return _errors(429, words.RATE_LIMITED, error.retry_after)
        if (found := problem_of(error)).status >= 500:
            return _errors(found.status, words.UNAVAILABLE, found.retry_after)
        return _errors(400 if found.status == 422 else found.status, found.detail or found.title)

    async def find(self, call: Call) -> ApiKey | Phone:
        """Return the key, which must belong to the app in the address."""
        key = await super().find(call)
        name = call.parts.get("app_id") or call.params.get("app_id", "")
        if not is_named(key.app, name, devices.APP_SETTING):
            raise NotAllowed(words.WRONG_APP)
        return key


def _errors(status: int, text: str, retry_after: float | None = None) -> Response:
    return json_answer({"errors": [text]}, status, retry_after=retry_after)
