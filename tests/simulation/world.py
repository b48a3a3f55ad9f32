"""One simulated world: callers, client, delivery and journal on one side, the fake APNs on the other."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
from collections.abc import Callable
from time import perf_counter
from typing import Any

from apns_live.client import reading
from apns_live.delivery.journal import _TABLES, _VERSION
from apns_live.errors import ApnsLiveError
from apns_live.pool import PushState
from apns_live.testing import FakeApns, Fault
from apns_live.testing.listener import FaceOptions
from apns_live.testing.state import Push, QuietPhones

from .callers import CALLS, Callers
from .effects import Effects, is_provoked
from .loop import SimulatedClock, SimulatedLoop
from .network import Network, Weather
from .plan import Action, Plan
from .process import REGISTERED, Life, current

CALM = 3_600.0
"""Seconds that everything gets to settle once all troubles are over."""
_LIFETIME = 12 * 3_600.0
"""Seconds after which delivery forgets an idle lane."""
_logger = logging.getLogger("apns_live")


class _Logged(logging.Handler):
    """Fails the world for each error of ours that is logged and that the world did not provoke."""

    def __init__(self, complain: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._complain = complain

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not is_provoked(error):
            self._complain(f"logged: {record.getMessage()}: {error!r}")


class World:
    """Runs a plan and keeps the account of what was said and what APNs processed."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.die = random.Random(f"world {plan.seed}")
        self.loop = SimulatedLoop()
        self.clock = SimulatedClock(self.loop)
        self.true_clock = SimulatedClock(self.loop)
        self.weather = Weather(str(plan.seed))
        self.disk = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.disk.executescript(f"{_TABLES} PRAGMA user_version={_VERSION};")
        self.effects = Effects(plan)
        self.callers = Callers(plan.seed, self.effects, self.complain)
        self.processed: list[tuple[float, Push]] = []
        self.complaints: list[str] = []
        self.lives: list[Life] = []
        self.doubtful = False
        """Whether pushes may be processed without an answer in this world."""
        self.bytes_were_lost = False
        """Whether what a client wrote may not have reached APNs."""
        self.requested: set[str] = set()
        """The id of each request that reached APNs whole."""
        self.crashes = 0
        self.clock_was_wrong = False
        self.began_too_late = False
        """Whether a process began when, by its clock, every lane in the journal was past its life."""

    # Running

    def run(self) -> None:
        """Run the plan to its end; what is wrong is in ``complaints``."""
        loop = self.loop
        settings = self.plan.settings
        weather = self.weather
        weather.delay, weather.jitter = settings["delay"], settings["jitter"]
        weather.splitting = settings["splitting"]
        loop.set_exception_handler(self._complain_of)
        loop.set_task_factory(self._make_task)
        asyncio.set_event_loop(loop)
        # A generator counts as slow by the machine's clock, and how busy that is must not matter.
        reading.perf_counter = self.loop.time  # type: ignore[assignment]
        level = _logger.level
        _logger.setLevel(logging.ERROR)  # what is logged below costs, and is of no interest
        logged = _Logged(self.complain)
        _logger.addHandler(logged)
        _logger.propagate = False
        try:
            self.fake = FakeApns(
                clock=self.true_clock,
                phones=QuietPhones(),
                environment="production",
                first_streams=settings["first_streams"],
                max_streams=settings["max_streams"],
                latency=settings["latency"],
                spread=settings["spread"],
                seed=self.plan.seed,
            )
            self.fake.state.verifier.register(REGISTERED)
            options = FaceOptions(settings["first_streams"], settings["max_streams"], None)
            self.network = Network(
                loop, self.fake.engine, options, weather, self.effects, self.complain
            )
            self.network.disk_delay = settings["disk_delay"]
            if "alpn" in settings:
                weather.alpn = settings["alpn"]
            loop.network = self.network
            self.fake.listen(self._heard)
            self._watch_requests()
            try:
                loop.run_until_complete(self._story())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what was looked for
                self.complain(f"the world ended early: {type(error).__name__}: {error}")
                self._say_who_waits()
        finally:
            _logger.setLevel(level)
            _logger.removeHandler(logged)
            _logger.propagate = True
            reading.perf_counter = perf_counter
            asyncio.set_event_loop(None)
            self._bury()
            for each in loop.sockets:
                each.close()
            loop.close()
            self.disk.close()

    def complain(self, text: str) -> None:
        if len(self.complaints) < 20:
            self.complaints.append(f"{self.loop.time():.3f} s: {text}")

    def _complain_of(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        del loop
        error = context.get("exception")
        if is_provoked(error):
            return
        self.complain(f"on the event loop: {context.get('message')}: {error!r}")

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        task = asyncio.Task(coro, loop=loop, **options)
        life = current.get()
        if life is not None:
            life.tasks.add(task)
            task.add_done_callback(life.tasks.discard)
        return task

    def _say_who_waits(self) -> None:
        for task in list(asyncio.all_tasks(self.loop))[:6]:
            stack = task.get_stack(limit=1)
            where = f"{stack[0].f_code.co_qualname} line {stack[0].f_lineno}" if stack else "?"
            self.complain(f"still waiting: {task.get_name()} in {where}")

    def _bury(self) -> None:
        loop = self.loop
        loop.turns_left, loop.longest = 10_000, float("inf")
        with contextlib.suppress(Exception):
            for _ in range(3):
                tasks = asyncio.all_tasks(loop)
                if not tasks:
                    break
                for task in tasks:
                    task.cancel()
                loop.call_soon(loop.stop)
                loop.run_forever()
        loop.set_exception_handler(lambda *_: None)

    async def resolve(self, host: str, port: int) -> Any:
        return await self.loop.network.resolve(host, port)

    # The story

    async def _story(self) -> None:
        life = await self._begin_life()
        for action in self.plan.actions:
            wait = action.at - self.loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            if action.what == "crash":
                await self._crash(life)
                life = await self._begin_life()
                self._join_again(life)
            elif action.what in CALLS:
                self._start(life, action)
            else:
                self._trouble(action)
        await asyncio.sleep(self.plan.settings["aftermath"])
        for skew in self.clock.read_with:
            self.effects.count(f"clock {skew:+g} s")
        await self._calm()
        life = await self._revive(life)
        await self._settle(life)
        await self._probe(life)
        await self._end_life(life)

    async def _begin_life(self) -> Life:
        life = Life(self, len(self.lives) + 1)
        self.lives.append(life)
        self.began_too_late |= self.clock.skew > _LIFETIME
        token = current.set(life)
        try:
            # A disk that fails while a process starts stops it; it is started again.
            for _ in range(200):
                try:
                    await asyncio.create_task(life.delivery.open())
                    break
                except ApnsLiveError:
                    await asyncio.sleep(0.1)
                    life = Life(self, life.number)
                    self.lives[-1] = life
                    current.set(life)
        finally:
            current.reset(token)
        return life

    def _start(self, life: Life, action: Action) -> None:
        token = current.set(life)
        try:
            call = self.callers.call(life, action.what, action.given)
            task = asyncio.create_task(call, name=str(action))
        finally:
            current.reset(token)
        after = action.given.get("cancel_after")
        if after is not None:
            self.loop.call_later(after, self._cancel, task)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if task.cancel():
            self.effects.count("cancel_after")

    async def _crash(self, life: Life) -> None:
        """Stop a process as kill -9 does: nothing that it still does reaches anybody."""
        self.crashes += 1
        self.effects.count("crash")
        self.doubtful = self.bytes_were_lost = True
        life.ended = True
        for link in self.network.links:
            link.half_open("client")
            self.loop.call_later(link.delay(), link.cut)
        self.network.kill_blocking_calls()
        if life.journal is not None:
            life.journal._disk = None  # type: ignore[assignment]
            life.journal._connection = None
        for _ in range(4):
            for task in list(life.tasks):
                task.cancel()
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)

    async def _calm(self) -> None:
        self.fake.faults.clear()
        weather = self.weather
        weather.refuse = weather.black_hole = False
        weather.alpn = "h2"
        self.network.disk_fails = False
        self.clock.skew = 0.0
        for connection in self.network.face.connections.values():
            connection.change_settings({3: 100, 4: 65_535})
        await asyncio.sleep(0.0)

    async def _revive(self, life: Life) -> Life:
        """Start again after a journal failed for good: that is what its error asks for."""
        if life.delivery._dispatch.error is None:
            return life
        # What it had not recorded is in doubt for the next one, as after a crash.
        self.crashes += 1
        await self._end_life(life)
        life = await self._begin_life()
        self._join_again(life)
        return life

    def _join_again(self, life: Life) -> None:
        """Hand in the tokens once more, as apps do: a join that was not yet written may be lost."""
        self.callers.last_accepted.clear()
        for name, members in self.callers.members.items():
            if name in self.callers.ended:
                continue
            with contextlib.suppress(ApnsLiveError):
                activity = life.delivery.activity(name)
                for token in sorted(members):
                    activity.join(token)

    async def _settle(self, life: Life) -> None:
        """Wait for every caller. A caller that still waits after all that time waits for ever."""
        waiting = {task for task in life.tasks if not task.done() and " s  " in task.get_name()}
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=CALM)
            for task in late:
                stack = task.get_stack(limit=1)
                where = stack[-1].f_code.co_qualname if stack else "?"
                self.complain(f"a caller waits for ever: {task.get_name()} in {where}")
                task.cancel()

    async def _probe(self, life: Life) -> None:
        """Send once more to everybody: after all troubles everything must work as before."""
        deadline = asyncio.create_task(asyncio.sleep(CALM))
        probes: dict[asyncio.Task[Any], str] = {}
        token = current.set(life)
        try:
            for name in sorted(self.callers.members):
                if name not in self.callers.ended:
                    probe = self.callers.put(
                        life, {"activity": name, "event": "update", "count": 1}
                    )
                    probes[asyncio.create_task(probe)] = f"the last state of {name}"
            for number in range(4):
                one = self.callers.lane(life, {"lane": number, "event": "update", "count": 1})
                probes[asyncio.create_task(one)] = f"the last state of lane {number}"
            simple = self.callers.send(life, {"count": 2, "event": "update"})
            probes[asyncio.create_task(simple)] = "a last send()"
        finally:
            current.reset(token)
        await asyncio.wait(
            {deadline, asyncio.create_task(asyncio.wait(probes))}, return_when="FIRST_COMPLETED"
        )
        deadline.cancel()
        for task, name in probes.items():
            if not task.done():
                self.complain(f"{name} got no outcome within {CALM:.0f} s")
                task.cancel()

    async def _end_life(self, life: Life) -> None:
        life.closing = True
        began = self.loop.time()
        kept = sum(
            not each.report.stopped and each.report.tokens > 0
            for each in life.delivery._activities.homes.values()
        )
        living = len(set(self.callers.members) - self.callers.ended)
        if life is self.lives[-1] and not self.crashes and kept > living:
            self.complain(f"{kept} activities are kept, and {living} have not ended")
        await life.delivery.aclose()
        await life.client.aclose()
        if self.loop.time() - began > 60.0:
            self.complain(f"closing took {self.loop.time() - began:.0f} s")
        await asyncio.sleep(1.0)
        life.ended = True
        for task in list(life.tasks):
            if not task.done() and " s  " not in task.get_name():
                self.complain(f"a task is left after close: {task.get_name()} {task.get_coro()!r}")

    def _trouble(self, action: Action) -> None:
        given = action.given
        links = [each for each in self.network.links if not each.client.lost]
        if action.what == "fault":
            self.doubtful = True
            self.bytes_were_lost |= given["action"] in ("disconnect", "silence")
            self.fake.faults.add(
                Fault(**{key: value for key, value in given.items() if value is not None})
            )
        elif action.what in ("cut", "half_open"):
            self.doubtful = self.bytes_were_lost = True
            for link in links if given["all"] else links[:1]:
                link.cut() if action.what == "cut" else link.half_open("client", "server")
        elif action.what == "goaway":
            self.doubtful = self.bytes_were_lost = True
            for link in links[:1]:
                connection = link.server.protocol
                if (
                    connection.http is not None
                    and not link.server.lost
                    and connection._transport is not None
                ):
                    connection.go_away(given["reason"], debug=None, code=0, last=given["last"])
        elif action.what == "clock":
            self.clock.skew = given["skew"]
            self.clock_was_wrong = True
        elif action.what == "disk":
            self.network.disk_fails = given["fails"]
        elif action.what in ("refuse", "black_hole"):
            setattr(self.weather, action.what, given["on"])

    def _heard(self, happening: object) -> None:
        if type(happening) is Push:
            self.processed.append((self.loop.time(), happening))
            life = self.lives[-1]
            room, most = life.client._room._waiting, self.plan.settings["waiting_room"]
            if len(room) > most:
                inside = sum(push.state == PushState.NEW for push in room)
                if inside > most:
                    self.complain(f"{inside} pushes are in a waiting room of {most}")

    def _watch_requests(self) -> None:
        engine, requested = self.fake.engine, self.requested

        class Watched(type(engine)):  # type: ignore[misc]
            __slots__ = ()

            def answer(self, request: Any, connection: Any) -> Any:
                requested.add(dict(request.headers).get(b"apns-id", b"").decode())
                return super().answer(request, connection)

        engine.__class__ = Watched
