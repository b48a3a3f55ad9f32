"""The outcome of a push. Every push gets exactly one."""

import datetime
import enum
from collections.abc import Iterable
from itertools import repeat
from typing import TypeVar

import msgspec


class Verdict(enum.StrEnum):
    """What to do about a push. Members are strings, so JSON encodes them as their values.

    There is no "delivered": APNs answers 200 also for pushes that no phone will show.
    """

    ACCEPTED = "accepted"
    """APNs answered 200. It does not prove that a phone shows it or that the activity still exists."""
    DROP_TOKEN = "drop_token"
    """Delete this token; after a 410 only if it was registered before `drop_if_registered_before`."""
    DROP_CHANNEL = "drop_channel"
    """The broadcast channel was deleted or belongs to the other environment."""
    FIX_REQUEST = "fix_request"
    """The request is wrong and would be refused again: change it, do not retry it."""
    OPERATOR = "operator"
    """A key, topic or capability is wrong: stop and alert a person. Keep the token."""
    REFRESH_CREDENTIALS = "refresh_credentials"
    """APNs refused the provider token, and a retry with a current one failed or was not possible."""
    SLOW_DOWN = "slow_down"
    """Too many pushes to this token or channel: wait, then send only the newest state."""
    RETRY_LATER = "retry_later"
    """APNs could not process it now; `retry_at` is when to try again."""
    UNKNOWN = "unknown"
    """No answer came, so APNs may have processed the push."""
    NOT_SENT = "not_sent"
    """The push certainly did not reach APNs (deadline, cancellation, close)."""
    SUPERSEDED = "superseded"
    """A newer state replaced it before it was sent."""
    EXPIRED = "expired"
    """Its deadline or expiration passed before APNs accepted it."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one push. To create one, use keywords: later releases may insert fields.

    ``queue_time``, ``round_trip`` and ``elapsed`` are seconds.
    """

    token: str
    """The device, start or activity token in hex, or the channel id, as the caller gave it."""
    verdict: Verdict
    status: int = 0
    """HTTP status; 0 if no answer came."""
    reason: str = ""
    """Apple's reason as received; or our own in lower case, if APNs sent none."""
    apns_id: str = ""
    """The ``apns-id`` of the push (for a broadcast the ``apns-request-id``). Retries keep it."""
    unique_id: object = ""
    """What `apns_unique_id` reads: text, or the text as it came, which is decoded then."""
    timestamp: datetime.datetime | None = None
    """With a 410: the aware time at which APNs confirmed that the token was no longer valid."""
    attempts: int = 0
    """How many times the push was sent."""
    may_have_been_sent: bool = False
    """Whether a phone may have received it although the verdict is not ACCEPTED."""
    priority: int = 10
    """The ``apns-priority`` it was sent with."""
    demoted: bool = False
    """Whether `Delivery` lowered the priority to save the activity's budget."""
    over_budget: bool = False
    """Whether `Delivery` sent it at priority 10 although the activity's budget was spent."""
    check_environment: bool = False
    """Set with BadDeviceToken: check first for a sandbox token on production, or the reverse."""
    retry_at: float = 0.0
    """Seconds since 1970 at which another try makes sense; 0 if none does."""
    connection_id: int = 0
    """Number of the connection of the last attempt; 0 for none."""
    queue_time: float = 0.0
    round_trip: float = 0.0
    elapsed: float = 0.0
    detail: str = ""
    """An explanation in a sentence, if there is more to say than the reason."""

    def __repr__(self) -> str:
        token = self.token if len(self.token) <= 8 else f"{self.token[:8]}..."
        told = [f"token={token!r}, verdict={self.verdict.name}"]
        for field in self.__struct_fields__[2:]:
            value = getattr(self, field)
            if value or field == "status":
                told.append(f"{field}={value!r}")
        return f"Outcome({', '.join(told)})"

    @property
    def apns_unique_id(self) -> str:
        """The id for the Push Notifications Console's delivery log; empty unless APNs sent one."""
        return str(self.unique_id)

    @property
    def accepted(self) -> bool:
        """Whether APNs accepted the push."""
        return self.verdict is Verdict.ACCEPTED

    @property
    def drop_if_registered_before(self) -> datetime.datetime | None:
        """With DROP_TOKEN after a 410: keep the token if the app registered it after this time."""
        return self.timestamp if self.verdict is Verdict.DROP_TOKEN else None


StructT = TypeVar("StructT", bound=msgspec.Struct)


def alike(like: StructT, **columns: Iterable[object]) -> list[StructT]:
    """Return structs that differ from ``like`` in these fields. It costs half as much as single calls.

    There are as many as the shortest column has values.
    """
    kind = type(like)
    fields = zip(kind.__struct_fields__, msgspec.structs.astuple(like), strict=True)
    return list(map(kind, *(columns.get(name, repeat(value)) for name, value in fields)))
