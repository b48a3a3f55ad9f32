"""The results of operations, and answers with their counts."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import func, select

from ...activities.finding import named
from ...activities.read.operations import persons_reached
from ...activities.store import schema
from ...activities.store.statements import row_of, rows_of, view_of
from ...outcome import Verdict
from .dialect import Call

_ERRORS_SHOWN = 20
_ALWAYS = ("activity_id", "effective_channel_slugs")
"""Keys that clients read even if they are null. Other empty keys are left out."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an operation so far."""

    finished: bool = False
    targeted: int = 0
    accepted: int = 0
    failed: int = 0
    unregistered: int = 0
    persons: int = 0
    errors: list[str] = []

    @property
    def success(self) -> bool:
        """Whether APNs accepted a push, or may still accept one."""
        return self.accepted > 0 or not self.finished

    def counts(self, *, devices: int, queued: int) -> dict[str, Any]:
        """Return the counters of a change that ``devices`` can receive now and ``queued`` later.

        Devices that have not answered yet are counted as well: they get the change, or a newer state.
        """
        settled = self.finished and (self.accepted or self.failed)
        notified = self.accepted if settled else max(devices, self.accepted)
        return {
            "devices_notified": notified,
            "devices_queued": max(0, min(queued, devices + queued - notified)),
        }


async def await_result(call: Call, operation: str) -> Result:
    """Wait for APNs as long as the app's setting says; return the result so far.

    It is empty if ``operation`` is, because nothing was to be done, and if the operation was pruned.
    """
    wait = call.chosen.answer_wait

    async def finish() -> None:
        async for _ in call.service.watch(call.app, operation=operation):
            pass

    if operation and wait > 0:
        both = (
            asyncio.ensure_future(finish()),
            asyncio.ensure_future(call.gateway.clock.sleep(wait)),
        )
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
    table, outcomes, devices = schema.operations, schema.outcomes, schema.devices
    async with call.service.database.read() as connection:
        row = await row_of(connection, select(table).where(named(call.app, table, operation)))
        if row is None:
            return Result()
        persons = await persons_reached(connection, row.id)
        unregistered = 0
        failures: Sequence[Any] = ()
        if row.failed:
            ours, verdict = outcomes.c.operation_id == row.id, outcomes.c.verdict
            dropped = select(func.count()).where(ours, verdict == Verdict.DROP_TOKEN.value)
            unregistered = await connection.scalar(dropped) or 0
            failures = await rows_of(
                connection,
                select(devices.c.public_id, verdict, outcomes.c.reason)
                .select_from(outcomes)
                .outerjoin(devices, devices.c.id == outcomes.c.device_id)
                .where(ours, verdict != Verdict.ACCEPTED.value)
                .order_by(outcomes.c.id)
                .limit(_ERRORS_SHOWN),
            )
    errors = [f"device {one.public_id}: {one.reason or one.verdict}" for one in failures]
    return view_of(
        Result,
        row,
        finished=row.finished_at is not None,
        errors=[*errors, row.reason] if row.reason else errors,
        unregistered=unregistered,
        persons=persons,
    )


async def end_answer(
    call: Call, operation: str, devices: int, queued: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the answer to an end that ``devices`` can receive now and ``queued`` later.

    It has a warning if APNs accepted the end for no device. The activity has ended even then.
    """
    result = await await_result(call, operation)
    counted = result.counts(devices=devices, queued=queued)
    if devices and result.finished and result.failed and not result.accepted:
        counted["forced_completion"] = True
        counted["warning"] = (
            "The activity has ended here, but APNs accepted the end for none of its devices."
        )
    return answered(call, result, success=True, **about, **counted)


def answered(call: Call, result: Result | None, **said: Any) -> dict[str, Any]:
    """Return an answer without its empty keys, with a timestamp and the errors of its result."""
    said["timestamp"] = call.timestamp
    said["errors"] = result and result.errors
    empty: tuple[Any, ...] = (None, "", [], ())
    return {name: value for name, value in said.items() if name in _ALWAYS or value not in empty}
