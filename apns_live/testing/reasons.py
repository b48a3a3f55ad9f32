"""The reasons that the fake APNs gives, each with its source.

This table is the fake's own, on purpose: it does not import the client's. A test compares the two
and explains every difference. Pages meant by the short names:

- *responses*: Apple, "Handling notification responses from APNs"
- *broadcast errors*: Apple, "Handling error responses from Apple Push Notification service"
- *token connection*: Apple, "Establishing a token-based connection to APNs"
- *sandbox*: seen on the wire of Apple's sandbox and written down in public
"""

from dataclasses import dataclass
from typing import Literal

Where = Literal["device", "broadcast", "manage"]
Needs = Literal["request", "connection", "state", "fault"]

DEVICE: frozenset[Where] = frozenset({"device"})
CHANNELS: frozenset[Where] = frozenset({"broadcast", "manage"})
BROADCAST: frozenset[Where] = frozenset({"broadcast"})
MANAGE: frozenset[Where] = frozenset({"manage"})
ALL: frozenset[Where] = DEVICE | CHANNELS


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason: its status, where it is given, what makes the fake give it, and the source.

    ``name`` is the spelling of the documentation, ``wire`` the one seen on the wire. ``needs`` says
    what produces it: a ``request`` alone, the history of a ``connection``, the ``state`` (a token's
    status, an app's capability, a key), or a configured ``fault``.
    """

    name: str
    status: int
    where: frozenset[Where]
    needs: Needs
    source: str
    wire: str = ""

    def spelled(self, documented: bool) -> str:
        """Return the name as the wire or as the documentation spells it."""
        return self.name if documented or not self.wire else self.wire


_RESPONSES = "responses"
_BROADCAST = "broadcast errors"
_BOTH = "responses; broadcast errors"

ROWS: tuple[Reason, ...] = (
    Reason("BadCollapseId", 400, DEVICE, "request", _RESPONSES),
    Reason("BadDeviceToken", 400, DEVICE, "request", _RESPONSES),
    Reason("BadExpirationDate", 400, DEVICE | BROADCAST, "request", _BOTH),
    Reason("BadMessageId", 400, ALL, "request", _BOTH),
    Reason("BadPriority", 400, DEVICE | BROADCAST, "request", _BOTH),
    Reason("BadTopic", 400, DEVICE, "request", _RESPONSES),
    Reason("DeviceTokenNotForTopic", 400, DEVICE, "request", _RESPONSES),
    Reason("DuplicateHeaders", 400, ALL, "request", _RESPONSES),
    Reason("IdleTimeout", 400, ALL, "fault", _RESPONSES),
    Reason("InvalidPushType", 400, ALL, "request", _BOTH),
    Reason("MissingDeviceToken", 400, DEVICE, "request", _RESPONSES),
    Reason("MissingTopic", 400, DEVICE, "request", _RESPONSES),
    Reason("PayloadEmpty", 400, ALL, "request", _BOTH),
    Reason("TopicDisallowed", 400, ALL, "request", _BOTH),
    Reason("BadCertificate", 403, ALL, "fault", _BOTH),
    Reason("BadCertificateEnvironment", 403, ALL, "fault", _BOTH),
    Reason("ExpiredProviderToken", 403, ALL, "request", f"{_BOTH}; token connection"),
    Reason("Forbidden", 403, ALL, "connection", f"{_RESPONSES}; token connection"),
    Reason("InvalidProviderToken", 403, ALL, "request", f"{_BOTH}; sandbox"),
    Reason("MissingProviderToken", 403, ALL, "request", f"{_BOTH}; sandbox"),
    Reason("UnrelatedKeyIdInToken", 403, ALL, "connection", f"{_RESPONSES}; token connection"),
    Reason(
        "BadEnvironmentKeyIdInToken",
        403,
        ALL,
        "state",
        f"{_RESPONSES}; the other spelling: the wire of six unrelated projects",
        wire="BadEnvironmentKeyInToken",
    ),
    Reason("BadPath", 404, ALL, "request", f"{_BOTH}; sandbox for an unknown channel on DELETE"),
    Reason("MethodNotAllowed", 405, ALL, "request", _BOTH),
    Reason("ExpiredToken", 410, DEVICE, "state", _RESPONSES),
    Reason("Unregistered", 410, DEVICE, "state", _RESPONSES),
    Reason("PayloadTooLarge", 413, ALL, "request", _BOTH),
    Reason("TooManyProviderTokenUpdates", 429, ALL, "connection", f"{_BOTH}; token connection"),
    Reason("TooManyRequests", 429, ALL, "fault", _BOTH),
    Reason("InternalServerError", 500, ALL, "fault", _BOTH),
    Reason("ServiceUnavailable", 503, ALL, "fault", f"{_BOTH}, one with a space in the name"),
    Reason("Shutdown", 503, ALL, "fault", _BOTH),
    Reason(
        "FeatureNotEnabled",
        400,
        CHANNELS,
        "state",
        f"{_BROADCAST}; the other spelling: sandbox and four more projects",
        wire="BroadcastFeatureNotEnabled",
    ),
    Reason("MissingChannelId", 400, CHANNELS, "request", _BROADCAST),
    Reason(
        "BadChannelId", 400, CHANNELS, "request", f"{_BROADCAST}; sandbox for a never existing id"
    ),
    Reason("ChannelNotRegistered", 400, BROADCAST, "state", f"{_BROADCAST}; sandbox"),
    Reason("BadRequestParams", 400, MANAGE, "request", _BROADCAST),
    Reason("BadRequestPayload", 400, MANAGE, "request", _BROADCAST),
    Reason("CannotCreateChannelConfig", 400, MANAGE, "state", _BROADCAST),
    Reason("MissingPushType", 400, CHANNELS, "request", _BROADCAST),
    Reason("TopicMismatch", 403, CHANNELS, "request", _BROADCAST),
)

TABLE: dict[str, Reason] = {row.name: row for row in ROWS}


def find(name: str) -> Reason | None:
    """Return the row of ``name`` in either spelling, or None."""
    return TABLE.get(name) or next((row for row in ROWS if row.wire == name), None)
