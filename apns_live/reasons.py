"""Reads APNs' answers, and the table of Apple's reasons, each with its verdict and retry policy.

Sources: Apple, "Handling notification responses from APNs" and "Handling error responses from
Apple Push Notification service"; if APNs sends another spelling of a reason, both are listed. An
unknown reason is classified by its status and kept as received.

Apple advises to retry a 5xx after 15 minutes. The state of a live activity is out of date by then, so
the policies retry within a minute, up to the deadline.
"""

import datetime
import email.utils
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from . import explain
from .errors import InvalidInput
from .outcome import Verdict

Headers = Sequence[tuple[bytes, bytes]]

_REASON_LIMIT = 100
_MILLISECONDS_LIMIT = 253_402_300_799_000
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Seconds before each further try. If ``endless``, the last one is repeated."""

    delays: tuple[float, ...]
    endless: bool
    words: str
    """The text of docs/errors.md."""

    def delay(self, tries: int) -> float | None:
        """Return the seconds before the next try after ``tries`` tries; None if none follows."""
        if tries < len(self.delays):
            return self.delays[tries]
        return self.delays[-1] if self.endless else None

    def backoff(self, tries: int) -> float:
        """Return the seconds of the next wait, even if no other try follows."""
        return self.delays[min(tries, len(self.delays) - 1)]


REPLAY_DELAYS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before a push that was certainly not processed is sent again."""


# One line a policy.
# fmt: off
class Retry(enum.Enum):
    """What the client does by itself before it reports the verdict. The value is a `Policy`."""

    NEVER = Policy((), False, "nothing")
    NEW_TOKEN_ONCE = Policy((0.0,), False, "closes the connection; once more if a current provider token differs")
    NEW_LINK_ONCE = Policy((0.0,), False, "once more on another connection, with the oldest provider token still valid")
    NEW_KEY_LINK = Policy((0.0,), False, "once more on a new connection")
    NEW_LINK = Policy(REPLAY_DELAYS, True, "on another connection: at once, then after 0.1 s, growing to 8 s")
    BACKOFF_POOL = Policy((1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0), True, "everything waits: 1 s, doubling to 60 s")
    BACKOFF_TOKEN = Policy((5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0), True, "this token waits, and no other: 5 s, doubling to 5 min")
    TWO_TRIES = Policy((1.0, 10.0), False, "after 1 s and after 10 s; never what must not come twice (a start)")
# fmt: on


@dataclass(frozen=True, slots=True)
class Reason:
    """One row: what a status and reason mean, and what to do about it."""

    name: str
    statuses: tuple[int, ...]
    verdict: Verdict
    retry: Retry
    meaning: str
    remedy: str


_FIX, _DROP, _OPER = Verdict.FIX_REQUEST, Verdict.DROP_TOKEN, Verdict.OPERATOR


def _row(
    name: str,
    statuses: int | tuple[int, ...],
    verdict: Verdict,
    meaning: str,
    remedy: str,
    retry: Retry = Retry.NEVER,
) -> Reason:
    codes = (statuses,) if isinstance(statuses, int) else statuses
    return Reason(name, codes, verdict, retry, meaning, remedy)


_CAPABILITY = (
    "Switch Broadcast on for this App ID under Identifiers, Push Notifications; "
    "switching it off again deletes every channel."
)
_OTHER_ENVIRONMENT_KEY = "Use a key of this environment or connect to the other host; the device tokens are not at fault."

# One line a reason.
# fmt: off
ROWS: tuple[Reason, ...] = (
    _row("BadCollapseId", 400, _FIX, "the collapse id is too long", "Use at most 64 bytes."),
    _row("BadDeviceToken", 400, _DROP, "the token is malformed or belongs to the other environment", "Check first whether it is a sandbox token on production or the reverse, then drop it."),
    _row("BadExpirationDate", 400, _FIX, "apns-expiration is missing, no epoch in seconds, or not 0 on a channel that stores nothing", "Give seconds since 1970; a channel with storage policy 0 accepts only 0."),
    _row("BadMessageId", 400, _FIX, "the apns-id is not a valid UUID", "Use a lower-case UUID."),
    _row("BadPriority", 400, _FIX, "the priority is not allowed here", "Use 5 or 10."),
    _row("BadTopic", 400, _FIX, "the topic is malformed", "Give the plain bundle id."),
    _row("DeviceTokenNotForTopic", 400, _DROP, "the token belongs to another topic, or is an ordinary device token", "Send Live Activity pushes to start or activity tokens of this bundle id only."),
    _row("DuplicateHeaders", 400, _FIX, "a header is repeated", "This is a defect: report it."),
    _row("IdleTimeout", 400, Verdict.RETRY_LATER, "the connection was idle too long", "Nothing to do: another connection is used.", Retry.NEW_LINK),
    _row("InvalidPushType", 400, _FIX, "the push type is unknown or not allowed here", "Use liveactivity."),
    _row("MissingPushType", 400, _FIX, "the push type is missing", "Send apns-push-type."),
    _row("MissingDeviceToken", 400, _FIX, "the path has no token", "Give the token in hex."),
    _row("MissingTopic", 400, _FIX, "there is no apns-topic", "Give the bundle id."),
    _row("PayloadEmpty", 400, _FIX, "the body is empty", "Send a payload."),
    _row("TopicDisallowed", 400, _OPER, "the key may not push to this topic, or the bundle id carries a suffix", "Check the bundle id, the team and the key's topics."),
    _row("BadCertificate", 403, _OPER, "the certificate is bad", "Use a provider token."),
    _row("BadCertificateEnvironment", 403, _OPER, "the certificate is of the other environment", "Use a provider token, or the other host."),
    _row("ExpiredProviderToken", 403, Verdict.REFRESH_CREDENTIALS, "the provider token is more than an hour old", "Check this machine's clock.", Retry.NEW_TOKEN_ONCE),
    _row("Forbidden", 403, _OPER, "the action is not allowed", "Check the key and the team."),
    _row("InvalidProviderToken", 403, _OPER, "the signature, key id or team id is wrong, or the key was revoked", "Check key file, key id and team id together."),
    _row("MissingProviderToken", 403, _FIX, "the request carries no provider token", "A proxy may strip the authorization header."),
    _row("UnrelatedKeyIdInToken", 403, Verdict.REFRESH_CREDENTIALS, "the connection was bound to another key by its first push", "Another connection is used by itself; use one client a key.", Retry.NEW_KEY_LINK),
    _row("BadEnvironmentKeyIdInToken", 403, _OPER, "the key is restricted to the other environment", _OTHER_ENVIRONMENT_KEY),
    _row("BadEnvironmentKeyInToken", 403, _OPER, "the key is restricted to the other environment", _OTHER_ENVIRONMENT_KEY),
    _row("TopicMismatch", 403, _OPER, "the key does not cover the bundle id", "Check the key's topics."),
    _row("BadPath", 404, _FIX, "the path is wrong, or a deleted channel was deleted", "Check the token."),
    _row("MethodNotAllowed", 405, _FIX, "the method is not allowed", "This is a defect: report it."),
    _row("ExpiredToken", 410, _DROP, "the token has expired", "Drop it unless it was registered since."),
    _row("Unregistered", 410, _DROP, "the token is no longer active", "Drop it unless it was registered since."),
    _row("PayloadTooLarge", 413, _FIX, "the payload is too large", "See the bytes per key of `lint`."),
    _row("TooManyProviderTokenUpdates", 429, Verdict.REFRESH_CREDENTIALS, "the connection saw provider tokens change more than once in 20 minutes", "Let no other process mint tokens for shared connections.", Retry.NEW_LINK_ONCE),
    _row("TooManyRequests", 429, Verdict.SLOW_DOWN, "too many requests in a row to this token or channel", "Send less often; only the newest state matters.", Retry.BACKOFF_TOKEN),
    _row("InternalServerError", 500, Verdict.RETRY_LATER, "APNs failed", "Retry, but not a start: it may have been processed.", Retry.TWO_TRIES),
    _row("ServiceUnavailable", 503, Verdict.RETRY_LATER, "APNs is overloaded", "Wait; the whole pool does.", Retry.BACKOFF_POOL),
    _row("Shutdown", 503, Verdict.RETRY_LATER, "this server is going away", "Nothing to do: another connection is used.", Retry.NEW_LINK),
    _row("FeatureNotEnabled", 400, _OPER, "broadcast is not enabled for this App ID", _CAPABILITY),
    _row("BroadcastFeatureNotEnabled", 400, _OPER, "broadcast is not enabled for this App ID", _CAPABILITY),
    _row("MissingChannelId", 400, _FIX, "there is no apns-channel-id", "Give the channel id."),
    _row("BadChannelId", 400, Verdict.DROP_CHANNEL, "the channel id cannot be decoded or never existed", "Create the channel again and store the new id."),
    _row("ChannelNotRegistered", 400, Verdict.DROP_CHANNEL, "the channel was deleted or belongs to the other environment", "Create the channel again and store the new id."),
    _row("BadRequestParams", 400, _FIX, "the JSON has an unknown attribute", "This is a defect: report it."),
    _row("BadRequestPayload", 400, _FIX, "the JSON cannot be parsed", "This is a defect: report it."),
    _row("CannotCreateChannelConfig", 400, _OPER, "the app has its 10,000 channels", "Delete channels that are no longer used."),
)
# fmt: on

TABLE: dict[str, Reason] = {row.name: row for row in ROWS}

BY_STATUS: dict[int, tuple[Verdict, Retry]] = {
    410: (Verdict.DROP_TOKEN, Retry.NEVER),
    429: (Verdict.SLOW_DOWN, Retry.BACKOFF_TOKEN),
    500: (Verdict.RETRY_LATER, Retry.TWO_TRIES),
    503: (Verdict.RETRY_LATER, Retry.BACKOFF_POOL),
}


def normalise(name: str) -> str:
    """Return Apple's spelling without spaces (one page writes ``Service Unavailable``)."""
    return name.replace(" ", "")


def classify(status: int, name: str) -> Reason:
    """Return the row for a response. Never raises for the server's answer.

    An unknown reason gets a new row, with the verdict of its status.
    """
    known = TABLE.get(normalise(name))
    if known is not None and status in known.statuses:
        return known
    if status == 200:
        return Reason(name, (200,), Verdict.ACCEPTED, Retry.NEVER, "accepted", "")
    verdict, retry = BY_STATUS.get(
        status,
        (Verdict.RETRY_LATER, Retry.TWO_TRIES)
        if status >= 500
        else (Verdict.OPERATOR, Retry.NEVER)
        if status in (401, 403, 407)
        else (Verdict.FIX_REQUEST, Retry.NEVER),
    )
    if known is not None and known.verdict is not Verdict.RETRY_LATER:
        # The reason decides over an unexpected status, unless it suggests a retry.
        verdict, retry = known.verdict, Retry.NEVER
    return Reason(name, (status,), verdict, retry, "not in Apple's documentation", "Report it.")


class _Body(msgspec.Struct, gc=False):
    reason: object = None
    timestamp: object = None


_decode = msgspec.json.Decoder(_Body).decode


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A refusal, decoded. ``retry_after`` is seconds from now, or None."""

    status: int
    reason: str
    row: Reason
    timestamp: datetime.datetime | None = None
    retry_after: float | None = None
    skew: float | None = None
    """Seconds that our clock is ahead of the server's, or None if the answer has no date."""


def header(headers: Headers, name: bytes) -> str:
    """Return a header's text, or ""."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return ""


def read_answer(status: int, headers: Headers, body: bytes, wall: float) -> Answer:
    """Return a decoded refusal. ``wall`` is our time in seconds since 1970.

    An answer may contain anything, also from a proxy in between; this never raises.
    """
    reason, timestamp = "", None
    if body:
        try:
            parsed = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            parsed = None
        if parsed is not None:
            if isinstance(parsed.reason, str):
                reason = parsed.reason[:_REASON_LIMIT]
            if status == 410:
                timestamp = _milliseconds(parsed.timestamp)
    retry_after = skew = None
    date = header(headers, b"date")
    if date and (told := _http_date(date)) is not None:
        skew = wall - told
    text = header(headers, b"retry-after").strip()
    # Seconds or an HTTP date (RFC 9110, 10.2.3).
    if text.isascii() and text.isdigit():
        retry_after = float(text[:9])
    elif text and (told := _http_date(text)) is not None:
        retry_after = max(0.0, told - wall)
    return Answer(status, reason, classify(status, reason), timestamp, retry_after, skew)


def _http_date(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def _milliseconds(value: object) -> datetime.datetime | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not math.isfinite(value) or not 0 <= value <= _MILLISECONDS_LIMIT:
        return None
    return datetime.datetime.fromtimestamp(value / 1000, datetime.UTC)


def listed() -> list[dict[str, str]]:
    """Return every word that `explained` accepts, with its ``kind`` and ``meaning``."""
    rows = [(row.kind, row.name, row.meaning) for row in explain.ROWS]
    rows += [("reason", row.name, row.meaning) for row in ROWS]
    return [dict(zip(("kind", "name", "meaning"), row, strict=True)) for row in rows]


def explained(word: str, field: str) -> dict[str, Any]:
    """Return what a reason, an outcome or a symptom means, whose fault it is, and what to do.

    Raises `InvalidInput` for an unknown word of ``field``, with similar words.
    """
    wanted = normalise(word).casefold()
    reason = next((row for row in ROWS if row.name.casefold() == wanted), None)
    row = explain.find(word)
    if reason is None and row is None:
        nearest = explain.near(word) or ["nothing shown"]
        raise InvalidInput(
            f"nothing is known of {word!r:.80}",
            field=field,
            remedy=f"Did you mean {' or '.join(map(repr, nearest))}? Without a word all are listed.",
        )
    facts: dict[str, Any] = {}
    if reason is not None:
        facts = {"name": reason.name, "kind": "reason", "meaning": reason.meaning}
        facts |= {"remedy": reason.remedy, "statuses": list(reason.statuses)}
        facts["verdict"] = reason.verdict.value
    if row is not None:
        more = {name: value for name, value in row._asdict().items() if name != "words"}
        facts = {**more, **facts, "fault": row.fault}
        if reason is not None:
            facts["remedy"] = f"{reason.remedy} {row.remedy}"
    return facts
