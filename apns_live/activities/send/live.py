"""An activity in memory: its tokens in delivery, and the device of each token.

Devices are grouped by environment and language. Each group is one `LiveActivity` of delivery, so that
a translated alert is encoded once per language, and the latest state wins within each group.
"""

from __future__ import annotations

import enum
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Row

from ...delivery import Delivery, LiveActivity, Version
from ...delivery.budget import FULL, Account, for_device
from ...errors import InvalidInput, PayloadTooLarge
from ...outcome import Outcome
from ...payload import End, Update
from ..apps import App
from ..requests import AlertText, Member
from ..requests.messages import change_message, presentation_of
from ..store.statements import json_text

_VERSIONS_KEPT = 64


@dataclass(slots=True)
class Newest:
    """The newest state. ``alert_version`` is 0 if it has no alert."""

    activity: Row[Any]
    alert: AlertText | None
    alert_version: int
    starts_since: int = 0
    """Starts may be open from this version on."""
    in_doubt: int = 0
    """Pushes that a process which died may have sent without storing that they used the budget."""

    @property
    def version(self) -> int:
        """The stored version."""
        return int(self.activity.version)

    @property
    def ends(self) -> bool:
        """Whether this is the end of the activity."""
        return bool(self.activity.status == "ended")


Decided = Callable[["Live", int, int, Outcome], object]
"""Called with the live activity, a device, the stored version, and the outcome."""


class Group:
    """The devices of an activity that share environment and language."""

    def __init__(self, live: Live, delivery: Delivery, place: tuple[str, str], now: float) -> None:
        self._live = live
        self.delivery = delivery
        self.place = place
        self.language = place[1]
        self._devices = array("q")
        self._numbers: dict[int, int] = {}
        self._tickets: deque[tuple[Version, int]] = deque()
        self._version = 0
        self.target: LiveActivity = self._open(now)

    def _open(self, now: float) -> LiveActivity:
        target = self.delivery.activity(f"{self._live.row} {self.language}")
        target.on_decided = self._decided
        # An earlier process may have used some budget. The most recently charged account is the
        # most complete.
        stored = self._live.stored_accounts().get(" ".join(self.place), (*FULL, *FULL))
        used, slow = Account(*stored[:2]), Account(*stored[2:])
        newest, budget = self._live.newest, self.delivery.budget
        if newest is not None and newest.in_doubt and budget is not None:
            used, slow = (
                Account(start or now, count + newest.in_doubt)
                for start, count in (budget.at(used, now), for_device(budget, False).at(slow, now))
            )
        target.lane.account = max(target.lane.account, used)
        target.published.slow_account = max(target.published.slow_account, slow)
        return target

    @property
    def settled(self) -> bool:
        """Whether all devices have the newest state or cannot get it."""
        return self.target.idle

    def put(self, newest: Newest, *, floor: int, now: float) -> None:
        """Make a state the newest. Its timestamp must be above ``floor`` (seconds)."""
        target = self.target
        if target.over or (target.lane.ended and not newest.ends):
            self._numbers.clear()
            self._tickets.clear()
            target = self.target = self._open(now)
            self._version = 0
        if target.lane.ended:
            return
        # Delivery carries an alert that was put here before to the devices that lack it.
        alert = newest.alert if newest.alert_version > self._version else None
        target.lane.last_timestamp = max(target.lane.last_timestamp, floor)
        if target.guard.stopped:
            target.resume()
        shown = presentation_of(newest.activity)
        message = change_message(newest.activity, alert, self.language, now=now)
        # An alert of a replaced state makes this one urgent, whatever its own urgency.
        borrowed = alert is not None and newest.alert_version != newest.version
        urgency = None if borrowed else shown.urgency
        try:
            ticket = self._offer(target, message, urgency)
        except PayloadTooLarge:
            if alert is None or newest.alert_version == newest.version:
                raise
            # The replaced state's alert does not fit into this push.
            message = change_message(newest.activity, None, self.language, now=now)
            ticket = self._offer(target, message, shown.urgency)
        if ticket.number is not None:
            # It is sent or about to be sent, so later timestamps are above all that an earlier
            # process can have used.
            target.lane.last_timestamp = max(target.lane.last_timestamp, self._live.ahead)
        self._version = newest.version
        self._tickets.append((ticket, newest.version))
        self._settle_numbers()

    @staticmethod
    def _offer(target: LiveActivity, message: Update | End, urgency: Any) -> Version:
        if isinstance(message, End):
            return target.end(message)
        return target.put(message, urgency=urgency)

    def _settle_numbers(self) -> None:
        """Map delivery's version numbers to the stored versions."""
        waiting: deque[tuple[Version, int]] = deque()
        for ticket, version in self._tickets:
            if ticket.number is not None:
                self._numbers[ticket.number] = version
            elif not ticket.done():
                waiting.append((ticket, version))
        self._tickets = waiting
        while len(self._numbers) > _VERSIONS_KEPT:
            del self._numbers[next(iter(self._numbers))]

    def join(self, member: Member, newest: Newest | None, *, late: bool = False) -> bool:
        """Add a device; return False if its token is already a member.

        ``late`` means that it has just registered its token, and gets no earlier alerts.
        """
        standing: Any = "new"
        if newest is not None:
            if member.acknowledged >= newest.version:
                standing = "current"
            elif member.acknowledged < newest.alert_version and not late:
                standing = "behind"
        target = self.target
        if not target.join(
            member.token, frequent_pushes_enabled=member.frequent_updates, standing=standing
        ):
            return False
        place = target.audience.index[member.token]
        devices = self._devices
        while len(devices) <= place:
            devices.append(0)
        devices[place] = member.device
        # Joining is cheap and may be for thousands, so the caller notifies delivery once.
        return True

    def leave(self, token: str) -> bool:
        """Remove a token; return False if it is not here."""
        return self.target.leave(token)

    def _decided(self, place: int, number: int, outcome: Outcome) -> None:
        if self._live.takes is Takes.NOTHING:
            return
        if number not in self._numbers:
            self._settle_numbers()
        self._live.decided(self._live, self._devices[place], self._numbers.get(number, 0), outcome)


class Takes(enum.Enum):
    """What an activity in memory still accepts. Unless it is all, another worker owns it or soon will."""

    ALL = "states to send, and answers"
    ANSWERS = "answers to what is in flight"
    NOTHING = "nothing"


class Live:
    """An activity in memory: its groups, and which results are stored."""

    def __init__(self, app: App, row: int, partition: int, decided: Decided) -> None:
        self.app = app
        self.row = row
        self.partition = partition
        self.decided = decided
        self.newest: Newest | None = None
        self.groups: dict[tuple[str, str], Group] = {}
        self.operations: dict[int, int] = {}
        """The operation of each version that may still get outcomes."""
        self.complete = False
        """Whether every device with a token is in a group: an update need not read."""
        self.incomplete = False
        """Whether devices are known to be missing and must be read."""
        self.loading = False
        self.to_read = False
        """Whether its devices are about to be read, so that the groups may be incomplete."""
        self.read_whole = False
        """Whether to read all of them, and not only those that are behind."""
        self.unfinished = False
        """Whether operations up to the newest version are open."""
        self.gone: set[str] = set()
        """Tokens that left during a read of the store."""
        self.floor = 0
        self.ahead = 0
        """Lower bound in seconds for timestamps after the first state that is put here."""
        self.refusal = ""
        """Why APNs refused the credentials, if it did."""
        self.takes = Takes.ALL

    @property
    def abandoned(self) -> bool:
        """Whether another worker owns it now, or soon will."""
        return self.takes is not Takes.ALL

    @property
    def environments(self) -> set[str]:
        """The environments of its devices."""
        return {environment for environment, _ in self.groups}

    @property
    def version(self) -> int:
        """The newest version here; 0 before the first."""
        return 0 if self.newest is None else self.newest.version

    @property
    def settled(self) -> bool:
        """Whether all devices have the newest state or cannot get it."""
        reading = self.loading or self.to_read
        return not reading and all(group.settled for group in self.groups.values())

    @property
    def behind(self) -> bool:
        """Whether any device of the group lacks the newest published state."""
        return any(group.target.audience.behind for group in self.groups.values())

    @property
    def stopped(self) -> str:
        """Why sending was stopped; empty if it was not."""
        reasons = (group.target.guard.stopped for group in self.groups.values())
        return next(filter(None, reasons), "")

    @property
    def weight(self) -> int:
        """Roughly its memory, counted in tokens."""
        return 20 + sum(len(group.target.audience) + 20 for group in self.groups.values())

    def advance(self, newest: Newest, *, floor: int, now: float) -> None:
        """Publish a newer state to the group. Raises `InvalidInput` if it cannot be encoded."""
        self.newest = newest
        self.floor = max(self.floor, floor)
        for group in self.groups.values():
            group.put(newest, floor=self.floor, now=now)

    def group(
        self, environment: str, language: str | None, delivery: Delivery, now: float
    ) -> Group:
        """Return the group, or create it with the newest state."""
        place = (environment, (language or "").lower())
        known = self.groups.get(place)
        group = Group(self, delivery, place, now) if known is None else known
        self.groups[place] = group
        if self.newest is not None and (known is None or group.target.over):
            group.put(self.newest, floor=self.floor, now=now)
        return group

    def join(
        self,
        members: Iterable[Member],
        deliveries: Mapping[str, Delivery],
        *,
        now: float,
        late: bool = False,
    ) -> None:
        """Add members one by one; a token of another activity is moved here. ``late`` as in `Group`."""
        for member in members:
            delivery = deliveries[member.environment]
            group = self.group(member.environment, member.language, delivery, now)
            try:
                group.join(member, self.newest, late=late)
            except InvalidInput:
                other = delivery.owner(member.token)
                if other is None or not other.leave(member.token):
                    raise
                group.join(member, self.newest, late=late)

    def leave(self, token: str) -> None:
        """Remove a token from its group."""
        if self.loading:
            self.gone.add(token)
        for group in self.groups.values():
            if group.leave(token):
                return

    def abandon(self) -> None:
        """Stop sending, because another worker owns the activity now."""
        self.takes = Takes.ANSWERS
        for group in self.groups.values():
            # A held state would stay in delivery and be sent later.
            group.target.close("another worker sends for this activity")
            for token in list(group.target.audience.index):
                group.leave(token)
        self.let_go()

    @property
    def in_flight(self) -> bool:
        """Whether answers are pending after it was abandoned: its tokens stay until then."""
        return any(group.target.audience.index for group in self.groups.values())

    def let_go(self) -> None:
        """Remove it from memory; the database has everything."""
        for group in self.groups.values():
            group.delivery.let_go(group.target)

    def stored_accounts(self) -> dict[str, list[float]]:
        """Return the stored budget accounts: of all devices, and of devices with slow updates."""
        stored = None if self.newest is None else self.newest.activity.budgets
        found: dict[str, list[float]] = msgspec.json.decode(stored or "{}")
        return found

    def stamp(self) -> tuple[int, int, str]:
        """Return the row, the newest timestamp of its pushes in seconds, and the budget's accounts as JSON."""
        accounts, newest = self.stored_accounts(), 0
        for place, group in self.groups.items():
            lane, slow = group.target.lane, group.target.published.slow_account
            accounts[" ".join(place)] = [*lane.account, *slow]
            newest = max(newest, lane.last_timestamp)
        return self.row, newest, json_text(accounts)
