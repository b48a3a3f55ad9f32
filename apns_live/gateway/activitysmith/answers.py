"""Makes ActivitySmith's answers. Empty keys are left out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from .dialect import Call
from .store import Result, result_of


async def await_result(call: Call, operation: str) -> Result:
    """Wait for APNs as long as the app's setting says; return what became of it so far.

    ``operation`` is empty where nothing was to be done.
    """
    if not operation:
        return Result()
    wait = call.chosen.answer_wait
    if wait > 0:
        following = asyncio.ensure_future(_finish(call, operation))
        sleeping = asyncio.ensure_future(call.gateway.clock.sleep(wait))
        try:
            await asyncio.wait((following, sleeping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            following.cancel()
            sleeping.cancel()
            await asyncio.gather(following, sleeping, return_exceptions=True)
    return await result_of(call, operation)


async def _finish(call: Call, operation: str) -> None:
    async for _ in call.service.watch(call.app, operation=operation):
        pass


def counts(result: Result, *, devices: int, queued: int) -> dict[str, Any]:
    """Return the counters of a change that ``devices`` can have now and ``queued`` later.

    Devices that it is still on its way to are counted as well: they get it, or a newer state.
    """
    settled = result.finished and (result.accepted or result.failed)
    notified = result.accepted if settled else max(devices, result.accepted)
    return {
        "devices_notified": notified,
        "devices_queued": max(0, min(queued, devices + queued - notified)),
    }


async def end_answer(
    call: Call, operation: str, devices: int, queued: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the answer of an end that ``devices`` can have now and ``queued`` later.

    It says so when the activity counts as ended although APNs took the end for none of its devices.
    """
    result = await await_result(call, operation)
    counted = counts(result, devices=devices, queued=queued)
    if devices and result.finished and result.failed and not result.accepted:
        counted["forced_completion"] = True
        counted["warning"] = (
            "The activity has ended here, but APNs accepted the end for none of its devices."
        )
    return answered(call, result, success=True, **about, **counted)


def without_nothing(said: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is None or an empty list or text, except what callers look for."""
    kept = {"activity_id", "effective_channel_slugs"}
    return {
        name: value
        for name, value in said.items()
        if name in kept or not (value is None or value in ("", []))
    }


def answered(call: Call, result: Result | None, **said: Any) -> dict[str, Any]:
    """Return what a call came to, with what every answer says at the end."""
    errors = [] if result is None else result.errors
    return without_nothing({**said, "timestamp": call.timestamp, "errors": errors})


def start_answer(
    call: Call,
    activity: str,
    result: Result,
    *,
    slugs: Sequence[str] | None,
    tags: Sequence[str] | None,
    ended: str | None = None,
) -> dict[str, Any]:
    """Return the answer of a start."""
    return answered(
        call,
        result,
        success=bool(result.accepted) or not result.finished,
        activity_id=activity,
        devices_notified=result.accepted,
        users_notified=result.persons,
        effective_channel_slugs=None if slugs is None else list(slugs),
        tags=list(tags or ()),
        ended_activity_id=ended,
        message=None if result.finished else "The start is still being sent.",
    )
