"""What all steps of the scheduler share, and the starts, ends, hand-overs and expiry of activities.

A hand-over starts a second card before iOS ends the first one at 8 hours. The step stores an operation for each
activity that has a card old enough. The sender then starts the second card with the newest state, and ends the
first one when the second one's token comes. An activity that its caller has not updated for as long as a card
lives is left to iOS: the caller may have forgotten to end it.

Apple, "Displaying live data with Live Activities": a card is active for 8 hours at most, then the
system ends it, and shows it for up to 4 more. The 8 hours count from each device's own start, so a device
that joined late keeps its card longer. The activity has ended when its last card has. It needs no push then:
a phone ignores pushes for a card that has ended. Tokens are deleted once no card can still be visible.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Row, ScalarSelect, case, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ..accept.activities import Activities
from ..accept.idempotency import Writing
from ..apps import App, apps_of
from ..core import Core, Part
from ..requests import End, Presentation
from ..store import hand_over, schema
from ..store.statements import change_row, hold, rows_of, with_rows
from ..times import ACTIVE_MILLISECONDS

logger = logging.getLogger("apns_live.activities")

MISSED = "its end had passed before it could be started"
AGAIN = 300_000
"""Milliseconds until an activity is checked again while a card of it is due for a hand-over."""

SHOWN_MILLISECONDS = 4 * 3600 * 1000
"""How long an ended card may stay on the Lock Screen."""
GONE_MILLISECONDS = ACTIVE_MILLISECONDS + SHOWN_MILLISECONDS
TOKENS = 2_000
"""Tokens that are retired in one transaction."""
_PATIENCE = 300_000
"""Milliseconds between two checks of an activity that devices join over time."""

_table = schema.activities
_operations = schema.operations
_cards = schema.activity_devices
_begun = hand_over.begun(_cards)


@dataclass
class Done:
    """The result of a batch. The scheduler sends its notifications after the commit."""

    written: list[tuple[App, int]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)
    activities: list[int] = field(default_factory=list)
    operations: list[int] = field(default_factory=list)
    noted: bool = False
    """True if rows changed that matter only to other steps."""

    def __bool__(self) -> bool:
        return self.noted or bool(self.written or self.left or self.activities or self.operations)


class Step(Part):
    """One kind of work. A row is due ``after`` milliseconds from the time in its column ``time``."""

    batch = 100
    """Rows that are handled in one transaction."""

    def __init__(self, core: Core, time: ColumnElement[int], after: int = 0) -> None:
        super().__init__(core)
        self.time = time
        self.after = after

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions of rows that are due now or later."""
        raise NotImplementedError

    async def run(self, done: Done, now: int) -> int | None:
        """Handle one batch of what is due at ``now``; return when to look again, in milliseconds.

        A past time means that more work is due; None means that no work is known.
        """
        raise NotImplementedError

    def first(self, *more: ColumnElement[bool]) -> ScalarSelect[int]:
        """Return the query for the time when the first row is due; NULL if there is none."""
        query = select(self.time + self.after if self.after else self.time)
        query = query.where(*self.waiting(), *more).order_by(self.time).limit(1)
        return query.scalar_subquery()

    async def due(self, now: int, *columns: Any) -> tuple[list[Row[Any]], int | None]:
        """Return a batch of due rows, and the due time of the first row after them."""
        query = select(*columns, self.time.label("due")).where(*self.waiting()).order_by(self.time)
        found = await self.database.rows(query.limit(self.batch + 1))
        rows = [row for row in found[: self.batch] if row.due + self.after <= now]
        return rows, found[len(rows)].due + self.after if len(rows) < len(found) else None


class StepOfActivities(Step):
    """A step over the activities of one status in the partitions that this process owns."""

    def __init__(self, core: Core, status: str, time: str, after: int = 0) -> None:
        super().__init__(core, _table.c[time], after)
        self.status = status

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """See `Step`."""
        mine = self.core.ownership.mine(_table)
        return _table.c.status == self.status, self.time.is_not(None), mine

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        due, later = await self.due(now, _table.c.id)
        looks = [] if later is None else [later]
        if due:
            async with self.database.write() as connection:
                rows = await self.held(connection, due, self.time <= now)
                apps = await apps_of(connection, (row.app_id for row in rows))
                for row in rows:
                    again = await self.act(Writing(connection, apps[row.app_id], now), row, done)
                    looks += [] if again is None else [again]
        return min(looks, default=None)

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> int | None:
        """Handle an activity that is due, in a transaction; return when it is due again."""
        raise NotImplementedError

    async def held(
        self, connection: AsyncConnection, rows: Sequence[Row[Any]], still: ColumnElement[bool]
    ) -> Sequence[Row[Any]]:
        """Lock and return the rows that are still due; another process may have handled some."""
        ids = [row.id for row in rows]
        query = select(_table).where(_table.c.id.in_(ids), _table.c.status == self.status, still)
        query = query.order_by(_table.c.id).with_for_update(skip_locked=True)
        return await rows_of(connection, query)


class Ends(StepOfActivities):
    """The ends at a set time."""

    def __init__(self, core: Core, activities: Activities) -> None:
        super().__init__(core, "active", "end_at")
        self._activities = activities

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> None:
        """See `StepOfActivities`."""
        try:
            presentation = msgspec.json.decode(row.end_message, type=Presentation)
        except msgspec.MsgspecError:
            logger.exception("the stored end of %r cannot be read", row.public_id)
            presentation = Presentation()
        end = End(
            id=row.public_id, reason="scheduled", presentation=presentation, dialect=row.dialect
        )
        await self._activities.change_within(writing, row, end)
        done.written.append((writing.app, row.id))


class Starts(StepOfActivities):
    """The starts at a set time."""

    def __init__(self, core: Core) -> None:
        super().__init__(core, "scheduled", "start_at")

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> None:
        """See `StepOfActivities`."""
        connection, now = writing.connection, writing.now
        done.written.append((writing.app, row.id))
        waiting = update(_operations).where(
            _operations.c.activity_id == row.id, _operations.c.status == "scheduled"
        )
        if row.end_at is not None and row.end_at <= now:
            logger.warning("the activity %r was not started: %s", row.public_id, MISSED)
            values: dict[str, Any] = {"status": "ended", "end_reason": "missed"}
            values |= dict.fromkeys(("ended_at", "retired_at", "updated_at"), now)
            await change_row(connection, _table, row.id, **values)
            failed = {"status": "failed", "reason": MISSED, "finished_at": now}
            await connection.execute(waiting.values(failed))
            return
        values = {"status": "active", "started_at": now, "updated_at": now}
        values["expires_at"] = now + ACTIVE_MILLISECONDS
        if row.hand_over_after is not None:
            values["hand_over_at"] = now + row.hand_over_after
        await change_row(connection, _table, row.id, **values)
        # The start carries the newest state, so the updates before it need no push.
        before = waiting.where(_operations.c.kind != "start")
        await connection.execute(before.values(status="superseded", finished_at=now))
        await connection.execute(waiting.values(status="accepted"))


class HandOvers(StepOfActivities):
    """Activities with cards that are due for a hand-over."""

    def __init__(self, core: Core, activities: Activities) -> None:
        super().__init__(core, "active", "hand_over_at")
        self._activities = activities

    async def act(self, writing: Writing, row: Row[Any], done: Done) -> int:
        """See `StepOfActivities`."""
        connection, now = writing.connection, writing.now
        done.left += [(row.id, one) for one in await hand_over.leave_first(connection, row, now)]
        if await _is_wanted(connection, row, now):
            await self._activities.hand_over_within(writing, row)
            done.written.append((writing.app, row.id))
            logger.info("the cards of %r are replaced before iOS ends them", row.public_id)
        again = await _next_look(connection, row, now)
        await change_row(connection, _table, row.id, hand_over_at=again)
        return again


async def _is_wanted(connection: AsyncConnection, row: Row[Any], now: int) -> bool:
    """Return True if the caller still updates an activity, and a card of it can be handed over."""
    streams = schema.streams
    since = now - row.hand_over_after
    at_work = row.updated_at > since or await _holds(
        connection, streams.c.activity_id == row.id, streams.c.updated_at > since
    )
    soon_over = row.end_at is not None and row.end_at <= since + ACTIVE_MILLISECONDS
    unfinished_start = (
        _operations.c.activity_id == row.id,
        _operations.c.kind == "start",
        _operations.c.finished_at.is_(None),
    )
    if not at_work or soon_over or await _holds(connection, *unfinished_start):
        return False
    if await _holds(connection, hand_over.eligible(row, now)):
        return True
    return row.stream_key is not None and await _holds(connection, hand_over.over(row, now))


async def _holds(connection: AsyncConnection, *conditions: Any) -> bool:
    return bool(await connection.scalar(select(exists().where(*conditions))))


async def _next_look(connection: AsyncConnection, row: Row[Any], now: int) -> int:
    """Return when to check again: soon while a card is due, else when the next card is."""
    if await _holds(connection, hand_over.due(row, now)):
        return now + AGAIN
    younger = (_cards.c.activity_id == row.id, _cards.c.retired_at.is_(None))
    after = int(row.hand_over_after)
    query = select(func.min(_begun)).where(*younger, _begun > now - after)
    least: int | None = await connection.scalar(query)
    again = max(now + AGAIN, (now if least is None else least) + after)
    waiting = select(func.min(hand_over.first_begun())).where(hand_over.awaited(row))
    first: int | None = await connection.scalar(waiting)
    return again if first is None else min(again, max(now, first + ACTIVE_MILLISECONDS))


_STATEMENT = (
    "UPDATE activities SET {} FROM {{activity, at, now}} WHERE activities.id = given.activity"
)
_ENDED = _STATEMENT.format(
    "status = 'ended', ended_at = given.at, end_reason = 'expired', updated_at = given.now"
)
_GONE = _STATEMENT.format("retired_at = given.now")
_LATER = _STATEMENT.format("expires_at = given.at")


class Expiry(StepOfActivities):
    """Activities of one status that may have expired: ``active`` ones end, ``ended`` retire."""

    batch = 200

    def __init__(self, core: Core, status: Literal["active", "ended"]) -> None:
        after = 0 if status == "active" else SHOWN_MILLISECONDS
        super().__init__(core, status, "expires_at", after)

    def waiting(self) -> tuple[ColumnElement[bool], ...]:
        """See `Step`."""
        living = _table.c.retired_at.is_(None)
        return _table.c.status == self.status, living, self.core.ownership.mine(_table)

    async def run(self, done: Done, now: int) -> int | None:
        """See `Step`."""
        due, later = await self.due(now, _table)
        old = [row.id for row in due if _since(row) + GONE_MILLISECONDS <= now]
        if old and not await self._retire(old, done, now):
            return now  # more tokens of large activities are left
        if due:
            await self._look(due, done, now)
        return later

    async def _look(self, due: Sequence[Row[Any]], done: Done, now: int) -> None:
        """End, retire or postpone activities, by the age of their cards."""
        async with self.database.write() as connection:
            living = _table.c.retired_at.is_(None)
            held = {row.id for row in await self.held(connection, due, living)}
            newest, oldest = func.max(_begun).label("newest"), func.min(_begun).label("oldest")
            query = select(_cards.c.activity_id, newest, oldest).group_by(_cards.c.activity_id)
            cards = {
                row.activity_id: row
                for row in await connection.execute(
                    query.where(_cards.c.activity_id.in_(held), _cards.c.retired_at.is_(None))
                )
            }
            over: list[Row[Any]] = []
            changes: dict[str, list[tuple[int, int, int]]] = {}
            for row in due:
                if row.id not in held:
                    continue
                statement, at = self._change(row, cards.get(row.id), now)
                changes.setdefault(statement, []).append((row.id, at, now))
                if statement is not _LATER:
                    over.append(row)
            for statement, rows in changes.items():
                await with_rows(connection, statement, rows)
            if over and self.status == "active":
                await _close(connection, over, now)
            apps = await apps_of(connection, (row.app_id for row in over))
        done.written += [(apps[row.app_id], row.id) for row in over]

    def _change(self, row: Row[Any], cards: Row[Any] | None, now: int) -> tuple[str, int]:
        """Return the statement that changes an activity's row, and its time."""
        newest = max(_since(row), 0 if cards is None else cards.newest or 0)
        expiry = newest + ACTIVE_MILLISECONDS
        if self.status == "active":
            if expiry <= now:
                return _ENDED, expiry
            if cards is not None and cards.oldest is not None:
                gone = cards.oldest + GONE_MILLISECONDS
                expiry = max(gone, now + _PATIENCE) if gone < expiry else expiry
        elif newest + GONE_MILLISECONDS <= now:
            return _GONE, now
        return _LATER, expiry

    async def _retire(self, ids: Sequence[int], done: Done, now: int) -> bool:
        """Retire a batch of tokens whose card has disappeared; return True if none is left."""
        living = _cards.c.retired_at.is_(None)
        old = select(_cards.c.id).where(
            _cards.c.activity_id.in_(ids), living, _begun <= now - GONE_MILLISECONDS
        )
        retired = update(_cards).where(_cards.c.id.in_(old.limit(TOKENS)), living)
        retired = retired.values(retired_at=now, retired_reason="expired", ending_at=None)
        async with self.database.write() as connection:
            await hold(connection, _table, ids)
            gone = retired.returning(_cards.c.activity_id, _cards.c.token)
            tokens = (await connection.execute(gone)).all()
        done.left += [(row.activity_id, row.token) for row in tokens if row.token is not None]
        return len(tokens) < TOKENS


def _since(row: Row[Any]) -> int:
    return int(row.started_at or row.created_at)


async def _close(connection: AsyncConnection, rows: Sequence[Row[Any]], now: int) -> None:
    """Finish the operations that waited for devices which will get no more pushes."""
    status = case(
        (_operations.c.reason.is_not(None), "failed"),  # it waited for credentials
        (_operations.c.accepted + _operations.c.failed == 0, "superseded"),
        else_="done",
    )
    unfinished = (_operations.c.status.in_(["accepted", "running"]), _operations.c.kind != "start")
    theirs = _operations.c.activity_id.in_([row.id for row in rows])
    await connection.execute(
        update(_operations).where(theirs, *unfinished).values(status=status, finished_at=now)
    )
    for row in rows:
        logger.info("the activity %r was ended by iOS, 8 hours after its start", row.public_id)
