"""Fails operations that cannot be sent, permanently or until a provider key is added."""

import logging
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Row

from ...errors import InvalidInput
from ..apps import App
from ..requests import Presentation
from ..store.schema import SHARDED
from .apns_clients import Carrier, Carriers, NoKey
from .backlog import ActivityBacklog, is_open
from .fan_out import FanOut
from .recorder import Recorder
from .refusals import Pauses

logger = logging.getLogger("apns_live.activities")


@dataclass(eq=False, repr=False, slots=True)
class Failing:
    """Stores why operations fail."""

    recorder: Recorder
    carriers: Carriers
    backlog: ActivityBacklog
    pauses: Pauses
    for_key: set[int] = field(default_factory=set)
    """Operations that failed here only for now. They continue once a key is added."""

    async def fail(self, operations: Sequence[Row[Any]], reason: str, *, final: bool) -> None:
        """Fail operations; those that are not final are tried again when a key is added."""
        if not final:
            self.for_key.update(row.id for row in operations)
        for row in operations:
            batch = self.recorder.noting(row.partition)
            batch.started.append((row.id, "failed", reason[:255], final, None))
            logger.warning("operation %s failed: %s", row.public_id, reason)
        await self.recorder.written()

    async def note(
        self,
        operation: Row[Any],
        status: str,
        reason: str | None,
        *,
        final: bool = False,
        persons: int | None = None,
    ) -> None:
        """Store the result of a start or notification."""
        batch = self.recorder.noting(operation.partition)
        batch.started.append((operation.id, status, reason, final, persons))
        await self.recorder.written()

    async def settle(
        self, place: Hashable, operation: Row[Any], fan_out: FanOut, *, final: bool
    ) -> bool:
        """Store why a fan-out did not complete; return whether it did complete.

        A stopped one fails permanently if that is ``final``.
        """
        if fan_out.refused:
            reason = self.pauses.put_off(operation.app_id, place, fan_out.refused)
            logger.warning("operation %s waits: %s", operation.public_id, reason)
            await self.note(operation, SHARDED, reason)
            return False
        self.pauses.done(place)
        if fan_out.stopped:
            await self.fail([operation], fan_out.stopped, final=final)
        return not fan_out.stopped

    async def fail_changes(self, row: int, reason: str, *, final: bool) -> None:
        """Fail all open updates and ends of an activity, including those known only in memory."""
        await self.fail(await self._open_changes(row), reason, final=final)

    async def fail_unreadable(self, row: int, error: Exception) -> None:
        """Fail the changes of an activity that cannot be decoded; all of them if its state cannot."""
        changes = await self._open_changes(row)
        broken = [operation for operation in changes if not _decodes(operation)]
        await self.fail(broken or changes, f"it cannot be sent: {error}", final=True)
        if broken:
            self.backlog.add(row)

    async def _open_changes(self, row: int) -> list[Row[Any]]:
        _, operations = await self.backlog.read([row])
        return open_changes(operations.get(row, []))

    @asynccontextmanager
    async def carrier(
        self, app: App, environment: str, operations: Sequence[Row[Any]]
    ) -> AsyncIterator[Carrier | None]:
        """Hold the carrier; return None, with the operations failed, if its key is missing."""
        async with AsyncExitStack() as stack:
            carrier = None
            try:
                carrier = await stack.enter_async_context(self.carriers.use(app, environment))
            except (NoKey, InvalidInput) as error:
                await self.fail(operations, str(error), final=False)
            yield carrier


def open_changes(operations: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Return the unfinished updates and ends."""
    return [row for row in operations if row.kind != "start" and is_open(row)]


def _decodes(operation: Row[Any]) -> bool:
    try:
        msgspec.json.decode(operation.request, type=Presentation)
    except msgspec.MsgspecError:
        return False
    return True
