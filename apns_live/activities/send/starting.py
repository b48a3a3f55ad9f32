"""The start of an activity on all devices of an audience.

Each page carries the newest state, so a long start does not end with an old score. A start is never sent
twice: what a crash leaves of a page without an outcome is reported as UNKNOWN. An end stops a start behind
the page that is under way. One that comes at once does not take its place: the first page leaves, and the
end follows to each device when its token comes. One with the reason "cancelled" calls the start off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, select

from ...client import WorkItem
from ...outcome import Outcome, Verdict
from ..apps import App
from ..people.audience import Recipient
from ..requests.audience import Audience
from ..requests.messages import languages_of, start_alert_of, start_message
from ..requests.requests import CANCELLED
from ..requests.start_again import Started, read_further
from ..store import schema
from ..times import milliseconds
from . import fan_out
from .apns_clients import Carrier
from .fan_out import FanOut, Setting, item_for
from .results import Batch, intend, refusal, report_unknown

AT_ONCE = 10.0
"""Seconds after a start within which an end lets its first page leave all the same."""


class StartFanOut(FanOut[Sequence[Recipient]]):
    """One start. ``resumed``: if it had begun, then in an earlier process, which may have died."""

    def __init__(
        self,
        setting: Setting,
        app: App,
        activity: Row[Any],
        operation: Row[Any],
        carrier: Carrier,
        *,
        resumed: bool = True,
    ) -> None:
        super().__init__(setting, app, operation, carrier)
        self._activity = activity
        self._further = read_further(operation)
        self.taken_over = not resumed
        """Whether what an earlier process began has been reported."""

    async def _recover(self) -> None:
        if self._operation.status == "running" and not self.taken_over:
            async with self._setting.database.write() as connection:
                await self._keep(connection)
                await report_unknown(
                    connection,
                    app=self._app.row,
                    activity=self._activity.id,
                    operation=self._operation.id,
                    now=milliseconds(self._setting.clock),
                )
        self.taken_over = True

    def _pages(self) -> AsyncIterator[list[Recipient]]:
        return self._setting.audiences.recipients(
            self._app,
            self._further.audience or msgspec.json.decode(self._activity.audience, type=Audience),
            attributes_type=self._activity.attributes_type,
            environment=self._activity.environment,
            after=self._operation.cursor,
            page=fan_out.PAGE,
        )

    async def _intend(self, page: Sequence[Recipient]) -> list[WorkItem] | None:
        setting, table = self._setting, schema.activities
        async with setting.database.write() as connection:
            await self._keep(connection)
            # The row is held: an end that came first is seen, and one that comes later finds
            # these devices among those that it must reach.
            activity = (
                await connection.execute(
                    select(table).where(table.c.id == self._activity.id).with_for_update()
                )
            ).one_or_none()
            # A state that is accepted after this moment has a later timestamp than this page.
            now = setting.clock.time()
            if activity is None or not self._may_start(activity, now):
                return None
            living = activity.status == "active"
            fresh = await intend(
                connection,
                app=self._app.row,
                activity=activity.id,
                operation=self._operation.id,
                environment=self._activity.environment,
                version=activity.version if living else activity.version - 1,  # the end follows
                devices=[recipient.device for recipient in page],
                cursor=page[-1].row,
                now=int(now * 1000),
            )
            evicted = await setting.limits.within(
                connection,
                self._app,
                [(activity.id, device) for device in fresh],
                int(now * 1000),
            )
        setting.limits.tell(evicted)
        if not living:
            now = min(now, activity.ended_at / 1000)  # phones want the end to be newer
        started = Started(activity, self._further)
        message_in = self._worded(
            (activity.version, int(now)),
            languages_of(start_alert_of(started)),
            lambda language: start_message(started, language, now=now),
            now,
        )
        # A device with two tokens is started once.
        first = {recipient.device: recipient for recipient in reversed(page)}
        return [
            item_for(recipient, message_in(recipient.language))
            for recipient in page
            if recipient.device in fresh and first[recipient.device] is recipient
        ]

    def _may_start(self, activity: Row[Any], now: float) -> bool:
        if activity.status == "active":
            return True
        began = max(activity.started_at or 0, self._operation.created_at)
        return (
            activity.status == "ended"
            and activity.end_reason != CANCELLED  # called off: it is not to be shown at all
            and activity.retired_at is None
            and now - began / 1000 < AT_ONCE
            and not (self.sent or self._operation.cursor)
        )

    def _noted(self, batch: Batch, device: int, outcome: Outcome) -> None:
        if outcome.verdict is Verdict.DROP_TOKEN:
            now = milliseconds(self._setting.clock)
            batch.refused_starts.append(refusal(self._app.row, outcome, now))
        if not outcome.may_have_been_sent:
            batch.unstarted.append((self._activity.id, device))

    def _put_back(self, batch: Batch, taken_back: Sequence[tuple[int, int]]) -> None:
        first = min(row for row, _ in taken_back)
        batch.unstarted += [(self._activity.id, device) for _, device in taken_back]
        batch.rewound.append((self._operation.id, first - 1, len(taken_back)))
