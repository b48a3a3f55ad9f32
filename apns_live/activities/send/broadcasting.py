"""Sends the newest state of activities on a broadcast channel, in one push each.

Apple, "Sending broadcast push notification requests to APNs". A broadcast has one text, so
an alert by language uses the app's language. It has one outcome, of device 0. Devices that do not follow
the channel are served by token in parallel; an operation is finished when both are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Row, select

from ...channels import BroadcastChannel
from ...clock import Clock
from ...delivery.lane import HEADROOM_URGENT
from ...delivery.pacing import Trouble, follows, with_tries
from ...errors import ApnsLiveError, InvalidInput
from ...outcome import Outcome, Verdict
from ..apps import App
from ..requests import Presentation
from ..requests.messages import KEPT, change_message, presentation_of, spoken_on_channels
from ..store import schema
from ..store.database import Database
from ..store.ownership import NotOwner, Ownership
from .apns_clients import Carriers
from .recorder import Recorder
from .refusals import refusal_of, refuses_credentials

TRIES = 4
STAMPS_KEPT = 10_000
_PRIORITIES = {"urgent": 10, "quiet": 5}


@dataclass(eq=False, repr=False)
class Broadcasting:
    """Sends the newest state of an activity to its channel. The caller runs one call at a time."""

    database: Database
    clock: Clock
    carriers: Carriers
    recorder: Recorder
    ownership: Ownership
    sent: Callable[[int], object]
    """Called with an activity's row when its newest state was broadcast, or cannot be."""

    def __post_init__(self) -> None:
        self._stamps: dict[int, int] = {}
        self._done: dict[int, tuple[int, str]] = {}
        """The newest broadcast version of each activity, and why APNs refused it."""

    def not_before(self, activity: Row[Any]) -> float:
        """Return the earliest time of the next push in seconds: timestamps stay near the clock."""
        return float(self._stamp_after(activity) - HEADROOM_URGENT)

    def _stamp_after(self, activity: Row[Any]) -> int:
        return max(self._stamps.get(activity.id, 0), activity.last_timestamp or 0) + 1

    async def send(self, app: App, activity: Row[Any], operations: Sequence[Row[Any]]) -> str:
        """Send a state and store the result; ``operations`` are the ones that it fulfils.

        Returns why APNs refuses the credentials, if it does; then nothing is stored. Raises
        `NotOwner` before a push if another worker may have sent a newer one.
        """
        newest = operations[-1]
        alert = None
        for row in operations:
            newest = row if row.version == activity.version else newest
            alert = msgspec.json.decode(row.request, type=Presentation).alert or alert
        if self.result(activity) is not None or await self._was_sent(activity, newest):
            return ""
        try:
            outcome = await self._send(app, activity, alert)
        except InvalidInput as error:
            self._finished(activity, str(error))
            return ""
        if refuses_credentials(outcome):
            return refusal_of(outcome)
        batch = self.recorder.noting(activity.partition)
        batch.add(app.row, newest.id, 0, outcome)
        batch.stamps.append((activity.id, self._stamps.get(activity.id, 0), None))
        await self.recorder.written()
        reason = ""
        if not outcome.accepted:
            reason = f"{outcome.reason or outcome.verdict.value} {outcome.detail}".strip()
        self._finished(activity, reason)
        return ""

    def result(self, activity: Row[Any]) -> str | None:
        """Return why the newest state was not broadcast, empty if it was; None while it is being sent."""
        if activity.channel_id is None:
            return ""
        version, reason = self._done.get(activity.id, (0, ""))
        return reason if version >= activity.version else None

    async def _was_sent(self, activity: Row[Any], newest: Row[Any]) -> bool:
        """Return True if an earlier process broadcast the newest state and stored APNs' answer."""
        if activity.id in self._done:
            return False
        table = schema.outcomes
        query = select(table.c.verdict, table.c.reason).where(
            table.c.operation_id == newest.id, table.c.device_id == 0
        )
        if (row := await self.database.row(query.limit(1))) is None:
            return False
        self._finished(activity, "" if row.verdict == "accepted" else row.reason or row.verdict)
        return True

    def _finished(self, activity: Row[Any], reason: str) -> None:
        self._done.pop(activity.id, None)
        self._done[activity.id] = int(activity.version), reason[:255]
        if len(self._done) > STAMPS_KEPT:
            del self._done[next(iter(self._done))]
        if activity.status == "ended" or len(self._stamps) > STAMPS_KEPT:
            self._stamps.pop(activity.id, None)  # the store has it by now
        self.sent(activity.id)

    async def _send(self, app: App, activity: Row[Any], alert: Any) -> Outcome:
        channel = await self._channel(app, activity)
        trouble: Trouble | None = None
        while True:
            now = self.clock.time()
            kept = KEPT if channel.storage_policy == 1 else None
            message = change_message(activity, alert, spoken_on_channels(app), now=now, kept=kept)
            # One second ahead, so that a start in this same second does not look newer to a phone.
            stamp = max(int(now) + 1, self._stamp_after(activity))
            self._stamps[activity.id] = stamp
            urgency = presentation_of(activity).urgency
            message = replace(
                message,
                timestamp=stamp,
                # An alert rings at once whatever the urgency of its state, and an end is shown at
                # once.
                priority=None
                if alert is not None or activity.status == "ended"
                else _PRIORITIES.get(urgency or ""),
            )
            async with self.carriers.use(app, activity.environment) as carrier:
                if not self.ownership.holds(activity.partition):
                    raise NotOwner(frozenset({activity.partition}))
                try:
                    outcome = await carrier.client.broadcast(message, channel)
                except InvalidInput:
                    raise
                except ApnsLiveError as error:
                    return Outcome(
                        token=activity.channel_id, verdict=Verdict.NOT_SENT, detail=str(error)
                    )
            outcome = with_tries(outcome, trouble)
            next_ = follows(outcome, trouble, now)
            if isinstance(next_, Outcome):
                return next_
            if next_.failures == TRIES:
                return outcome
            trouble = next_
            await self.clock.sleep(max(0.0, trouble.not_before - self.clock.time()))

    async def _channel(self, app: App, activity: Row[Any]) -> BroadcastChannel:
        """Return the channel and its storage policy, if known. The policy decides the expiration."""
        table = schema.channels
        query = select(table.c.storage_policy).where(
            table.c.app_id == app.row,
            table.c.environment == activity.environment,
            table.c.channel_id == activity.channel_id,
        )
        row = await self.database.row(query)
        policy = None if row is None else row.storage_policy
        known = policy if policy in (0, 1) else None
        return BroadcastChannel(activity.channel_id, storage_policy=known)
