"""The activities in memory, and loading their tokens from the database.

An activity is loaded when it has something to send. It is unloaded when it has ended, or when idle
activities have too many tokens. Often only the tokens that lack the newest state are loaded. An update
goes to all tokens, so it loads the rest, once.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Row, Select, bindparam, select, tuple_

from ...clock import Clock
from ...delivery import Delivery
from ...outcome import Outcome, Verdict
from ..apps import App
from ..requests import Member, Presentation
from ..store import schema
from ..store.database import Database
from ..store.failures import STORE_FAILURES
from ..store.statements import page_of, with_rows
from ..times import milliseconds
from .apns_clients import Carriers
from .backlog import is_open
from .live import Live, Newest
from .recorder import Recorder
from .refusals import refusal_of, refuses_credentials
from .results import Batch, Written, refusal

PAGE = 2_000
RECENT = 10.0
"""Seconds after a start within which an update gets a later timestamp than the start."""
AFTER_CRASH = 2
"""Seconds that an earlier process's timestamp may be ahead of now. Pushes after the first one
following a crash get timestamps above that.
"""
_OPERATIONS_KEPT = 64
_EVERY = 2**62
_MEMBERS = """
SELECT members.id, members.device_id, members.token, members.environment,
    members.acknowledged_version, devices.language, devices.frequent_updates, members.activity_id
FROM {activity, version} JOIN activity_devices AS members ON members.activity_id = given.activity
    AND members.retired_at IS NULL AND members.acknowledged_version < given.version
JOIN devices ON devices.id = members.device_id
WHERE members.token IS NOT NULL AND NOT members.by_channel LIMIT :most
"""


@dataclass(eq=False, repr=False, kw_only=True)
class Lives:
    """Every activity in memory."""

    database: Database
    clock: Clock
    carriers: Carriers
    recorder: Recorder
    most: int
    refused: Callable[[App, int, str], object]

    def __post_init__(self) -> None:
        self.on_channel: Callable[[Row[Any]], str | None] = lambda activity: ""
        """Returns why the newest state was not broadcast, None while it is being sent."""
        self._lives: dict[int, Live] = {}
        self._touched: set[Live] = set()

    def __len__(self) -> int:
        return len(self._lives)

    @property
    def tokens(self) -> int:
        """How many tokens are in memory."""
        return sum(
            len(group.target.audience)
            for live in self._lives.values()
            for group in live.groups.values()
        )

    @property
    def busy(self) -> bool:
        """Whether a device lacks the newest state, or results are not yet stored."""
        return bool(self._touched) or any(
            live.unfinished or not live.settled for live in self._lives.values()
        )

    def lacks(self, row: int) -> bool:
        """Whether an activity is in memory and lacks devices that are in the store."""
        live = self._lives.get(row)
        return live is not None and (live.incomplete or live.to_read)

    def known(self, rows: Iterable[int]) -> dict[int, tuple[int, int]]:
        """Return the version up to which the open changes of each activity are known, if they are.

        Starts may be open from the second number, also a version, on.
        """
        return {
            row: (live.version, live.newest.starts_since)
            for row in rows
            if (live := self._lives.get(row)) is not None
            and live.newest is not None
            and live.unfinished
            and live.complete
            and not live.incomplete
        }

    # The newest state.

    def advance(
        self, app: App, activity: Row[Any], operations: Sequence[Row[Any]], *, recovered: bool
    ) -> Live | None:
        """Publish the newest state to tokens in memory; return the activity if others must be read.

        ``recovered``: an earlier process may have sent it to some devices. Raises `InvalidInput` if
        the state cannot be sent.
        """
        if activity.version == 0:
            return None
        if (live := self._lives.pop(activity.id, None)) is None:
            live = Live(app, activity.id, activity.partition, self._decided)
        self._lives[activity.id] = live
        for environment in live.environments:
            self.carriers.known(app, environment)  # marks it as used
        live.operations.update((row.version, row.id) for row in operations)
        while len(live.operations) > _OPERATIONS_KEPT:
            del live.operations[next(iter(live.operations))]
        changes = [row for row in operations if row.kind != "start" and is_open(row)]
        newer = activity.version > live.version
        if newer:
            in_doubt = min(max(len(changes) - 1, 0), AFTER_CRASH) if recovered else 0
            floor = self._floor(activity, operations, in_doubt if recovered else None)
            if recovered:
                live.ahead = int(self.clock.time()) + AFTER_CRASH
            else:
                # Also if the first state after a crash was not sent in time.
                floor = max(floor, live.ahead)
            try:
                newest = self._newest(activity, changes, live)
                newest.in_doubt = max(in_doubt, live.newest.in_doubt if live.newest else 0)
                live.advance(newest, floor=floor, now=self.clock.time())
            except Exception:
                live.unfinished = False  # its open operations fail: none of their alerts may ring
                raise
        if live.newest is not None:
            # A start that is accepted later has this version or a newer one.
            starts = (row.version for row in operations if row.kind == "start" and is_open(row))
            live.newest.starts_since = min(starts, default=activity.version)
        live.unfinished |= bool(changes)
        self.touch(live)
        # After a crash, devices that already have the state get no second push.
        live.read_whole |= bool(changes) and activity.status != "ended" and not recovered
        if live.complete:
            live.to_read = False  # all devices are here, and get the newest state
        elif newer or live.incomplete:
            live.to_read = True
        if not live.to_read:
            return None
        # It stays True until the read is done: a running read may have begun before this state.
        live.incomplete = False
        return live

    @staticmethod
    def _newest(activity: Row[Any], changes: Sequence[Row[Any]], live: Live) -> Newest:
        """Return the state with the alert that must ring: its own, or a replaced state's.

        Only unfinished operations ring; devices that join later get the state alone.
        """
        for row in reversed(changes):
            if (alert := msgspec.json.decode(row.request, type=Presentation).alert) is not None:
                return Newest(activity, alert, row.version)
        before = live.newest
        if live.unfinished and before is not None and before.alert is not None:
            return Newest(activity, before.alert, before.alert_version)
        return Newest(activity, None, 0)

    def _floor(
        self, activity: Row[Any], operations: Sequence[Row[Any]], in_doubt: int | None
    ) -> int:
        """Return a timestamp in seconds that the state must exceed, so that phones accept it.

        When a process died, it may have sent a state in that same second, and ``in_doubt`` further
        ones, each with a timestamp one second later. None if no process died.
        """
        now = int(self.clock.time())
        floor = activity.last_timestamp or 0
        if in_doubt is not None:
            floor = max(floor, now + in_doubt)
        starting = any(row.kind == "start" and is_open(row) for row in operations)
        if starting or (activity.started_at or 0) / 1000 + RECENT > now:
            floor = max(floor, now)
        return int(floor)

    # Reading tokens.

    async def read_together(
        self, lives: Sequence[Live]
    ) -> tuple[dict[int, Exception], Sequence[Live]]:
        """Join the stored tokens of several activities, read in one page if they fit.

        Returns the errors of failed activities, and the activities with too many tokens for a page.
        """
        lives = [live for live in lives if not live.abandoned]
        whole = {live: self._begin(live) for live in lives}
        done: set[Live] = set()
        failed: dict[int, Exception] = {}
        rows: dict[int, list[Sequence[Any]]] = {}
        try:
            given = [(live.row, _EVERY if whole[live] else live.version) for live in lives]
            async with self.database.read() as connection:
                found = (await with_rows(connection, _MEMBERS, given, most=PAGE + 1)).all()
            if len(found) <= PAGE:
                for row in found:
                    rows.setdefault(row[-1], []).append(row[:-1])
                for live in lives:
                    try:
                        await self._join_read(live, rows.get(live.row, ()))
                    except STORE_FAILURES:
                        raise
                    except Exception as error:  # noqa: BLE001 - it is this activity's alone
                        failed[live.row] = error
                    else:
                        done.add(live)
            left = [live for live in lives if live not in done and live.row not in failed]
        except BaseException:
            left = []
            raise
        finally:
            for live in set(lives).difference(left):
                self._finish(live, whole[live], read=live in done)
        for live in left:
            live.loading = False
            live.read_whole |= whole[live]
        if len(left) < 2:
            return failed, left
        large: list[Live] = []
        for half in (left[: len(left) // 2], left[len(left) // 2 :]):
            more_failed, too_large = await self.read_together(half)
            failed |= more_failed
            large += too_large
        return failed, large

    @staticmethod
    def _begin(live: Live) -> bool:
        whole, live.read_whole = live.read_whole, False
        live.loading, live.to_read = True, False
        return whole

    def _finish(self, live: Live, whole: bool, *, read: bool) -> None:
        if read:
            live.complete = live.complete or whole
            live.to_read &= not live.complete
        else:
            # The operations are not finished here: the caller decides what becomes of them.
            live.incomplete, live.unfinished = True, False
        live.loading = False
        live.gone.clear()
        self.touch(live)

    async def read(self, live: Live) -> dict[int, Exception]:
        """Join the tokens of one activity, a page at a time; return its error, if it failed."""
        whole = self._begin(live)
        read = False
        try:
            query = _members(live.row, None if whole else live.version)
            after = (-1, 0)
            while not live.abandoned:
                async with self.database.read() as connection:
                    rows = await page_of(
                        connection, query, {"version_after": after[0], "row_after": after[1]}
                    )
                if not rows:
                    break
                after = max((row[4], row[0]) for row in rows)
                await self._join_read(live, rows)
                if len(rows) < PAGE:
                    break
                await asyncio.sleep(0)
            read = True
        except STORE_FAILURES:
            raise
        except Exception as error:  # noqa: BLE001 - it is this activity's alone
            return {live.row: error}
        finally:
            self._finish(live, whole, read=read)
        return {}

    async def _join_read(self, live: Live, rows: Iterable[Sequence[Any]]) -> None:
        members = [
            Member(
                device, token, environment, acknowledged, language,
                None if frequent is None else bool(frequent),
            )
            for _, device, token, environment, acknowledged, language, frequent in rows
            if token not in live.gone
        ]  # fmt: skip
        async with AsyncExitStack() as stack:
            deliveries = {
                environment: (
                    await stack.enter_async_context(self.carriers.use(live.app, environment))
                ).delivery
                for environment in {member.environment for member in members}
            }
            if not live.abandoned:
                left = [member for member in members if member.token not in live.gone]
                live.join(left, deliveries, now=self.clock.time())

    # Joining and leaving.

    def join(self, app: App, row: int, members: Sequence[Member]) -> bool:
        """Add devices with a new token; return False if the activity must be read first."""
        if (live := self._lives.get(row)) is None:
            return False
        carriers = {
            environment: self.carriers.known(app, environment)
            for environment in {member.environment for member in members}
        }
        if live.newest is None or None in carriers.values():
            live.complete, live.incomplete = False, True
            return False
        deliveries = {
            environment: carrier.delivery
            for environment, carrier in carriers.items()
            if carrier is not None
        }
        live.join(members, deliveries, now=self.clock.time(), late=True)
        self.touch(live)
        return True

    def leave(self, row: int, token: str) -> None:
        """Remove a token."""
        if (live := self._lives.get(row)) is not None:
            live.leave(token)
            self.touch(live)

    def abandon(self, partitions: frozenset[int]) -> dict[Live, bool]:
        """Stop sending for partitions that another worker now owns.

        Returns the abandoned activities, and for each whether its newest timestamp may not be
        stored. Answers to pushes in flight are recorded until it takes `Takes.NOTHING`.
        """
        gone: dict[Live, bool] = {}
        for live in [each for each in self._lives.values() if each.partition in partitions]:
            gone[live] = live in self._touched or not live.settled
            del self._lives[live.row]
            self._touched.discard(live)
            live.abandon()
        return gone

    def grew(self, row: int) -> None:
        """Note that the store may have devices that are not in memory."""
        if (live := self._lives.get(row)) is not None:
            live.complete, live.incomplete = False, True

    def forget(self, row: int) -> None:
        """Unload an activity that has no card left."""
        if (live := self._lives.get(row)) is not None:
            live.to_read = False  # there is nothing left to read
        if live is not None and live.settled:
            self._touched.discard(live)
            self._let_go(live)

    # Results.

    def touch(self, live: Live) -> None:
        """Check soon whether an activity has settled."""
        self._touched.add(live)
        self.recorder.soon(1)

    def _decided(self, live: Live, device: int, version: int, outcome: Outcome) -> None:
        if refuses_credentials(outcome):
            # This says nothing about the device, which stays behind and is read again.
            live.refusal = refusal_of(outcome)
            self.touch(live)
            return
        batch = self.recorder.noting(live.partition)
        if (operation := live.operations.get(version)) is not None:
            batch.add(live.app.row, operation, device, outcome)
        batch.activities.add(live.row)
        if outcome.verdict is Verdict.ACCEPTED:
            batch.acknowledged.append((live.row, device, outcome.token, version))
            if live.unfinished and live.newest is not None and version == live.version:
                age = self.clock.time() - live.newest.activity.updated_at / 1000
                self.recorder.observed.state_age.add(max(0.0, age))
        elif outcome.verdict is Verdict.DROP_TOKEN:
            batch.refused.append(refusal(live.app.row, outcome, milliseconds(self.clock)))
        self.touch(live)

    def close_settled(self) -> None:
        """Record the operations that the recorded results complete."""
        touched, self._touched = self._touched, set()
        for live in touched:
            if self._lives.get(live.row) is not live or live.newest is None:
                continue
            if not live.settled:
                if not (live.behind or live.loading or live.to_read):
                    # A held state without recipients: nothing else would trigger this check.
                    self.touch(live)
                elif live.groups:
                    # Stores the budget used, also if this process ends before all answers arrive.
                    self.recorder.noting(live.partition).stamps.append(live.stamp())
                continue
            batch = self.recorder.noting(live.partition)
            if live.refusal:
                batch.stamps.append(live.stamp())
                self._let_go(live)
                self.refused(live.app, live.row, live.refusal)
                continue
            if live.unfinished:
                if (on_channel := self.on_channel(live.newest.activity)) is None:
                    continue  # `broadcast` triggers the next check
                live.unfinished = False
                reason = live.stopped[:255] or on_channel or None
                batch.finished.append((live.row, live.version, reason))
            batch.stamps.append(live.stamp())
            if live.newest.ends:
                batch.ended.append((live.row, live.version))

    def broadcast(self, row: int) -> None:
        """Notify that the newest state of an activity was broadcast, or cannot be."""
        if (live := self._lives.get(row)) is not None:
            self.touch(live)

    def put_off(self, row: int) -> None:
        """Notify that a broadcast waits for credentials; the activity is looked at again later."""
        if (live := self._lives.get(row)) is not None:
            live.unfinished = False
            self.touch(live)

    def wrote(self, batch: Batch, written: Written) -> None:
        """Unload ended activities, and idle ones above the limit."""
        for row, version in batch.ended:
            live = self._lives.get(row)
            if live is not None and live.settled and live.version == version:
                self._let_go(live)
        for row in written.kept:
            self.grew(row)
        self._make_room()

    @staticmethod
    def rows_of(batch: Batch) -> set[int]:
        """Return the activities whose outcomes or operations a batch changes."""
        return {row[0] for row in batch.acknowledged} | {row[0] for row in batch.finished}

    def _let_go(self, live: Live) -> None:
        if live not in self._touched:
            del self._lives[live.row]
            live.let_go()

    def release(self, delivery: Delivery) -> bool:
        """Unload the idle activities of a delivery; return whether nothing is left on it."""
        bound = [
            live
            for live in self._lives.values()
            if any(group.delivery is delivery for group in live.groups.values())
        ]
        if not all(self._idles(live) for live in bound):
            return False
        for live in bound:
            self._let_go(live)
        return True

    def _idles(self, live: Live) -> bool:
        return live.settled and not live.unfinished and live not in self._touched

    def _make_room(self) -> None:
        """Unload idle activities, the least recently used first, until memory is below a limit."""
        weight = sum(live.weight for live in self._lives.values())
        for live in list(self._lives.values()):
            if weight <= self.most:
                return
            if self._idles(live):
                weight -= live.weight
                self._let_go(live)


def _members(activity: int, behind: int | None) -> Select[Any]:
    """Return the query for a page of an activity's living tokens: those behind a version, or all.

    It follows the index of tokens behind, so that all pages cost the same.
    """
    members, devices = schema.activity_devices, schema.devices
    version, row = members.c.acknowledged_version, members.c.id
    after_version = bindparam("version_after", type_=BigInteger)
    after_row = bindparam("row_after", type_=BigInteger)
    columns = (row, members.c.device_id, members.c.token, members.c.environment, version)
    query = (
        select(*columns, devices.c.language, devices.c.frequent_updates)
        .join(devices, devices.c.id == members.c.device_id)
        .where(
            members.c.activity_id == activity,
            members.c.retired_at.is_(None),
            members.c.token.is_not(None),
            ~members.c.by_channel,
            tuple_(version, row) > tuple_(after_version, after_row),
        )
        .order_by(version, row)
        .limit(PAGE)
    )
    return query if behind is None else query.where(version < behind)
