"""Activities that follow a broadcast channel: one push for each newest state, whoever listens.

Apple, "Sending broadcast push notification requests to APNs". A broadcast has one text, so an
alert by language goes out in English. It is counted as one outcome, of device 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Row

from ...clock import Clock
from ...delivery.pacing import NEVER, again_at
from ...errors import ApnsLiveError, InvalidInput
from ...outcome import Outcome, Verdict
from ..apps import App
from ..requests import Presentation
from ..wording import change_message
from .carrier import Carriers
from .recorder import Recorder

TRIES = 4
LANGUAGE = "en"


class Broadcasting:
    """Sends the newest state of an activity to its channel. Its caller keeps it to one at a time."""

    def __init__(self, clock: Clock, carriers: Carriers, recorder: Recorder) -> None:
        self._clock = clock
        self._carriers = carriers
        self._recorder = recorder
        self._stamps: dict[int, int] = {}

    async def send(self, app: App, activity: Row[Any], operations: Sequence[Row[Any]]) -> None:
        """Send a state and note what became of it; ``operations`` are those that it fulfils."""
        newest = next(
            (row for row in reversed(operations) if row.version == activity.version),
            operations[-1],
        )
        alert = next(
            (
                presentation.alert
                for row in reversed(operations)
                if (presentation := msgspec.json.decode(row.request, type=Presentation)).alert
            ),
            None,
        )
        try:
            outcome = await self._send(app, activity, alert)
        except InvalidInput as error:
            self._recorder.batch.finished.append((activity.id, activity.version, str(error)[:255]))
            await self._recorder.written()
            return
        batch = self._recorder.batch
        batch.add(app.row, newest.id, 0, outcome)
        reason = None
        if not outcome.accepted:
            reason = f"{outcome.reason or outcome.verdict.value} {outcome.detail}".strip()[:255]
        batch.finished.append((activity.id, activity.version, reason))
        batch.stamps.append((activity.id, self._stamps.get(activity.id, 0)))
        if activity.status == "ended":
            batch.ended.append((activity.id, activity.version))
            self._stamps.pop(activity.id, None)
        await self._recorder.written()

    async def _send(self, app: App, activity: Row[Any], alert: Any) -> Outcome:
        carrier = await self._carriers.get(app, activity.environment)
        attempt = 0
        while True:
            now = self._clock.time()
            message = change_message(activity, alert, LANGUAGE, now=now)
            floor = max(self._stamps.get(activity.id, 0), activity.last_timestamp or 0)
            # A second ahead: a start of this very second must not look newer to a phone.
            stamp = self._stamps[activity.id] = max(int(now), floor) + 1
            message = replace(message, timestamp=stamp)
            try:
                outcome = await carrier.client.broadcast(message, activity.channel_id)
            except InvalidInput:
                raise
            except ApnsLiveError as error:
                return Outcome(
                    token=activity.channel_id, verdict=Verdict.NOT_SENT, detail=str(error)
                )
            when = again_at(outcome, attempt, now)
            if outcome.accepted or when == NEVER or attempt == TRIES - 1:
                return outcome
            attempt += 1
            await self._clock.sleep(max(0.0, when - self._clock.time()))
