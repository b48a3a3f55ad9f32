"""What became of one push: the outcome that every push gets, exactly once."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable
from itertools import repeat
from typing import TypeVar

import msgspec


class Verdict(enum.StrEnum):
    """What the caller should make of a push. It is its value's text, so JSON carries it.

    There is no "delivered": APNs answers 200 also for pushes that no phone will show.
    """

    ACCEPTED = "accepted"
    """APNs took the push (status 200). Not proof of display, nor that the activity still exists."""
    DROP_TOKEN = "drop_token"
    """Forget this token; after a 410 only if it was registered before `drop_if_registered_before`."""
    DROP_CHANNEL = "drop_channel"
    """The broadcast channel is gone or belongs to the other environment."""
    FIX_REQUEST = "fix_request"
    """The request is wrong and stays wrong: change it, do not retry it."""
    OPERATOR = "operator"
    """Keys, topics or capabilities are wrong: stop and tell a person. Says nothing of the token."""
    REFRESH_CREDENTIALS = "refresh_credentials"
    """The provider token was refused and one replay with a current one did not help or was not due."""
    SLOW_DOWN = "slow_down"
    """Too many pushes to this one token or channel: wait, and send only the newest state then."""
    RETRY_LATER = "retry_later"
    """APNs could not serve it now; `retry_at` says when it is worth another try."""
    UNKNOWN = "unknown"
    """No answer came; the push may have been processed."""
    NOT_SENT = "not_sent"
    """It certainly did not reach APNs (deadline, cancellation, close)."""
    SUPERSEDED = "superseded"
    """A newer state took its place before it left."""
    EXPIRED = "expired"
    """Its deadline or expiration passed before APNs accepted it."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one push. Make one with keywords: fields may be added between others.

    Times ending in ``_time``, ``round_trip`` and ``elapsed`` are seconds.
    """

    token: str
    """The device, start or activity token in hex, or the channel id, as the caller gave it."""
    verdict: Verdict
    status: int = 0
    """HTTP status; 0 when no answer came."""
    reason: str = ""
    """Apple's reason, kept as received, known or not; or ours, in lower case, when none came."""
    apns_id: str = ""
    """The ``apns-id`` (for a broadcast the ``apns-request-id``) of the push: stable over retries."""
    unique_id: object = ""
    """What `apns_unique_id` reads: text, or the text as it came, which is decoded then."""
    timestamp: datetime.datetime | None = None
    """The aware time that a 410 carries: when APNs confirmed that the token was no longer valid."""
    attempts: int = 0
    """How many times the push left; 0 for one that never did."""
    may_have_been_sent: bool = False
    """Whether a phone may have got it although the verdict is not ACCEPTED."""
    priority: int = 10
    """The ``apns-priority`` it was sent with."""
    demoted: bool = False
    """Whether delivery lowered the priority to save the activity's budget."""
    over_budget: bool = False
    """Whether delivery sent it at priority 10 although the activity's budget was spent."""
    check_environment: bool = False
    """Set with BadDeviceToken: first suspect a sandbox token on production, or the reverse."""
    retry_at: float = 0.0
    """Seconds since 1970 when another try makes sense; 0 when there is no such time."""
    connection_id: int = 0
    """The connection that carried the last attempt; 0 when none did."""
    queue_time: float = 0.0
    round_trip: float = 0.0
    elapsed: float = 0.0
    detail: str = ""
    """A sentence for a person where there is more to say than the reason."""

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
        """The key of the Push Notifications Console's delivery log, where APNs sent one."""
        return str(self.unique_id)

    @property
    def accepted(self) -> bool:
        """Whether APNs took the push."""
        return self.verdict is Verdict.ACCEPTED

    @property
    def drop_if_registered_before(self) -> datetime.datetime | None:
        """With DROP_TOKEN after a 410: keep the token if the app registered it after this time."""
        return self.timestamp if self.verdict is Verdict.DROP_TOKEN else None


StructT = TypeVar("StructT", bound=msgspec.Struct)


def alike(like: StructT, **columns: Iterable[object]) -> list[StructT]:
    """Return structs that differ from ``like`` in these fields: half the cost of a call for each.

    There are as many as the shortest column has values.
    """
    kind = type(like)
    fields = zip(kind.__struct_fields__, msgspec.structs.astuple(like), strict=True)
    return list(map(kind, *(columns.get(name, repeat(value)) for name, value in fields)))
