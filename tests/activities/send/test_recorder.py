"""Results that are being written when the service stops, or when its work is started again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apns_live.activities.send import recorder
from tests.activities.send.test_notifying import operation, pushes, send, with_phones
from tests.activities.send.world import World, a_start


class Held:
    """Holds every write of results back, inside its transaction."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self._write = recorder.write
        monkeypatch.setattr(recorder, "write", self.write)

    async def write(self, *args: Any, **kwargs: Any) -> Any:
        written = await self._write(*args, **kwargs)
        self.began.set()
        await self.go.wait()
        return written


async def let_go_while(held: Held, work: Any) -> None:
    """Let writes go on once ``work`` has come as far as it can without them."""
    task = asyncio.ensure_future(work)
    for _ in range(200):
        await asyncio.sleep(0)
    held.go.set()
    await task


async def test_a_notification_is_not_sent_again_for_a_stop_while_its_results_are_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = await with_phones(world, 20)
    held = Held(monkeypatch)
    name = await send(world, title="Goal")
    await world.until(held.began.is_set)
    await let_go_while(held, world.close())
    await world.open()
    await world.settled()
    assert [len(pushes(phone)) for phone in phones] == [1] * 20
    known = await operation(world, name)
    assert (known["accepted"], known["failed"]) == (20, 0)


async def test_a_start_is_not_unknown_for_a_stop_while_its_results_are_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add_phones(20)
    world.registering = False
    held = Held(monkeypatch)
    done = await world.service.activities.start(world.app, a_start())
    await world.until(held.began.is_set)
    await let_go_while(held, world.close())
    await world.open()
    await world.settled()
    known = await operation(world, done.answer.operation)
    assert (known["accepted"], known["failed"]) == (20, 0)


async def test_results_survive_a_failure_beside_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = await with_phones(world, 20)
    held = Held(monkeypatch)
    name = await send(world, title="Goal")
    await world.until(held.began.is_set)
    backlog = world.service.courier._backlog

    async def fail(rows: Any, known: Any) -> Any:
        monkeypatch.undo()
        raise RuntimeError("a bad moment")

    monkeypatch.setattr(backlog, "read", fail)
    backlog.add(1)
    await let_go_while(held, asyncio.sleep(0))
    await world.settled()
    assert [len(pushes(phone)) for phone in phones] == [1] * 20
    known = await operation(world, name)
    assert (known["accepted"], known["failed"], known["status"]) == (20, 0, "done")
