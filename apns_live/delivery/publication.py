"""The newest version of a live activity, encoded for tokens that missed different alerts.

A state is encoded once per version. A token that missed the last alert, or the last push at priority
10, gets it with the newest state, so a version has a few encodings at most.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ..payload import EncodedMessage
from .budget import FULL, Account, Decision
from .encoding import carry_alert, restamp, without_alert
from .journal import ActivityRecord, LaneRecord
from .pacing import NEVER
from .state import State


@dataclass(slots=True, eq=False)
class Variant:
    """One encoding of a version, as the client sends it."""

    version: int
    sendable: object


@dataclass(slots=True, eq=False)
class Publication:
    """The newest version, and which versions had an alert (``alert_version``) and priority 10.

    ``ten_version`` is the newest with priority 10, ``slow_ten_version`` the same for devices
    without frequent pushes, which have an account of their own.
    """

    prepare: Callable[[EncodedMessage], object]
    version: int = 0
    current: EncodedMessage | None = None
    alert: EncodedMessage | None = None
    alert_version: int = 0
    ten_version: int = 0
    slow_ten_version: int = 0
    slow_account: Account = FULL
    last_moment: float = NEVER
    """Steady seconds since 1970 after which the newest version is no longer sent."""
    expired: bool = False
    """Whether the newest version was given up for the tokens that waited for it."""
    quiet: set[int] = field(default_factory=set)
    """Places that joined after the alert of the newest version."""
    lifetime: float = 0.0
    variants: dict[tuple[bool, bool], Variant] = field(default_factory=dict)

    def publish(self, version: int, state: State, slow: Decision) -> None:
        """Make a state the newest version. It has its timestamp and priority from its lane."""
        encoded = state.encoded
        self.version = version
        self.current = encoded
        self.slow_account = slow.account
        if encoded.priority == 10:
            self.ten_version = version
        if slow.priority == 10:
            self.slow_ten_version = version
        if encoded.has_alert:
            self.alert, self.alert_version = encoded, version
        self.last_moment, self.expired = state.last_moment, False
        self.lifetime = state.lifetime
        self.quiet.clear()
        self.variants.clear()

    def record(self, activity: str, lane: LaneRecord) -> ActivityRecord:
        """Return the journal record of an activity, including its lane."""
        return ActivityRecord(
            activity=activity,
            lane=lane,
            version=self.version,
            current=self.current,
            alert=self.alert,
            alert_version=self.alert_version,
            ten_version=self.ten_version,
            deadline=None if self.last_moment == NEVER else self.last_moment,
        )

    def restore(self, record: ActivityRecord) -> None:
        """Fill a new publication from its record."""
        self.version, self.current = record.version, record.current
        self.alert, self.alert_version = record.alert, record.alert_version
        self.ten_version = self.slow_ten_version = record.ten_version
        self.last_moment = NEVER if record.deadline is None else record.deadline

    @property
    def timestamp(self) -> int:
        """The payload timestamp of the newest version, 0 if there is none."""
        return (self.current.timestamp or 0) if self.current is not None else 0

    @property
    def is_pressing(self) -> bool:
        """Whether it ends the activity or has an alert."""
        return self.current is not None and (self.current.event == "end" or self.current.has_alert)

    def variant(self, confirmed: int, *, quiet: bool = False, slow: bool = False) -> Variant:
        """Return the encoding for a token that has version ``confirmed``."""
        ring = confirmed < self.alert_version and not quiet
        ten = ring or confirmed < (self.slow_ten_version if slow else self.ten_version)
        key = (ring, ten)
        variant = self.variants.get(key)
        if variant is None:
            encoded = self.current
            assert encoded is not None  # noqa: S101 - asked for only when something was published
            if ring and not encoded.has_alert and self.alert is not None:
                encoded = carry_alert(encoded, self.alert) or encoded
            elif not ring and encoded.has_alert:
                encoded = without_alert(encoded)
            encoded = restamp(encoded, encoded.timestamp or 0, 10 if ten else 5)
            variant = self.variants[key] = Variant(self.version, self.prepare(encoded))
        return variant

    def restamp(self, stamp: int) -> None:
        """Give the newest version a newer timestamp."""
        if self.current is not None:
            self.current = restamp(self.current, stamp, self.current.priority)
            self.variants.clear()

    def renew(self, now: float, step: float) -> bool:
        """Give the newest version a new expiration, for a token that joins after the old one.

        Only if neither an expiration time nor a deadline was given, so that the state may still be
        useful. Returns True if it did.
        """
        if self.current is None or now < self.last_moment or not self.lifetime:
            return False
        self.last_moment, self.expired = now + self.lifetime, False
        expiration = int(self.last_moment + step)
        self.current = msgspec.structs.replace(self.current, expiration=expiration)
        self.variants.clear()
        return True
