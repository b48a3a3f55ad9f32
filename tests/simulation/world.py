"""One simulated world: callers, client, delivery and journal on one side, the fake APNs on the other."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import sqlite3
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apns_live import Alert, Client, End, Endpoint, Outcome, ProviderKey, Start, Update
from apns_live.delivery import Delivery, SqliteJournal
from apns_live.delivery.sqlite_journal import _TABLES, _VERSION
from apns_live.errors import (
    ActivityEnded,
    ApnsLiveError,
    ClientClosed,
    InvalidInput,
    JournalError,
)
from apns_live.pool import PushState
from apns_live.testing import FakeApns, Fault
from apns_live.testing.listener import FaceOptions
from apns_live.testing.state import Push, QuietPhones, RegisteredKey

from .loop import SimulatedClock, SimulatedLoop
from .network import Network, Weather
from .plan import Action, Plan

CALM = 3_600.0
"""Seconds that everything gets to settle once all troubles are over."""
BUNDLE_ID = "com.example.scores"
TEAM_ID = "DEF123GHIJ"
KEY_ID = "ABC123DEFG"

_private = ec.generate_private_key(ec.SECP256R1())
_KEY = ProviderKey.from_pem(
    _private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ),
    key_id=KEY_ID,
    team_id=TEAM_ID,
)
_REGISTERED = RegisteredKey(KEY_ID, TEAM_ID, _private.public_key(), None, None, frozenset())
_TLS = ssl.create_default_context()
_life: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)

_logger = logging.getLogger("apns_live")


class CallersOwn(Exception):
    """What a caller's callback or source raises."""


class Journal(SqliteJournal):
    """The real journal over a database that outlives a crash of its process."""

    def __init__(self, disk: sqlite3.Connection) -> None:
        super().__init__("simulated.db")
        self._disk = disk

    def _open(self) -> None:
        self._connection = self._disk

    async def close(self) -> None:
        self._connection, self._thread = None, None


@dataclass
class Said:
    """One message that a caller handed in, and what came of it."""

    serial: int
    event: str
    token: str = ""
    activity: str = ""
    alert: bool = False
    outcome: Outcome | None = None
    error: BaseException | None = None
    life: int = 0
    expects_outcome: bool = True
    replaces_freely: bool = False


@dataclass
class FanOut:
    """One fan-out that a caller began, and what came of it."""

    serial: int
    event: str
    given: dict[str, Any]
    tokens: list[str]
    life: int
    outcomes: list[Outcome] = field(default_factory=list)
    report: Any = None
    error: BaseException | None = None
    finished: bool = False
    began: bool = False
    read_through: bool = False
    read_when_left: int | None = None
    """How many tokens were read when the caller broke off."""


class Life:
    """One process: a client, a delivery over it, and the tasks of its callers."""

    def __init__(self, world: World, number: int) -> None:
        settings = world.plan.settings
        self.number = number
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ended = self.closing = False
        self.client = Client(
            _KEY,
            bundle_id=BUNDLE_ID,
            environment=Endpoint("apns.test", 443),
            clock=world.clock,
            ssl_context=_TLS,
            max_connections=settings["max_connections"],
            waiting_room=settings["waiting_room"],
            resolver=world.resolve,
            uniform=world.die.random,
        )
        self.journal = Journal(world.disk) if settings["journal"] else None
        self.delivery = Delivery(
            self.client,
            journal=self.journal,
            clock=world.clock,
            minimum_interval=settings["minimum_interval"],
            commit_interval=settings["commit_interval"],
        )


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
        self.said: dict[int, Said] = {}
        self.fan_outs: list[FanOut] = []
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
        self.members: dict[str, set[str]] = {}
        self.left: set[str] = set()
        self.activity_ended: set[str] = set()
        self.lane_tokens: set[str] = {_named(f"lane {plan.seed} {number}") for number in range(4)}
        self.last_accepted: dict[str, int] = {}
        """The last state of each activity whose sender says that everybody has it."""
        self.given_up: dict[str, set[str]] = {}
        self._serial = 0

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
        level = _logger.level
        _logger.setLevel(logging.CRITICAL + 1)  # what is logged here is of no interest, and costs
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
            self.fake.state.verifier.register(_REGISTERED)
            options = FaceOptions(settings["first_streams"], settings["max_streams"], None)
            self.network = Network(loop, self.fake.engine, options, weather)
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
        if isinstance(error, CallersOwn):
            return
        self.complain(f"on the event loop: {context.get('message')}: {error!r}")

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        task = asyncio.Task(coro, loop=loop, **options)
        life = _life.get()
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
            elif action.what in _CALLS:
                self._start(life, action)
            else:
                self._trouble(action)
        await asyncio.sleep(self.plan.settings["aftermath"])
        await self._calm()
        life = await self._revive(life)
        await self._settle(life)
        await self._probe(life)
        await self._end_life(life)

    async def _begin_life(self) -> Life:
        life = Life(self, len(self.lives) + 1)
        self.lives.append(life)
        token = _life.set(life)
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
                    _life.set(life)
        finally:
            _life.reset(token)
        return life

    def _start(self, life: Life, action: Action) -> None:
        token = _life.set(life)
        try:
            call = _CALLS[action.what](self, life, action.given)
            task = asyncio.create_task(call, name=str(action))
        finally:
            _life.reset(token)
        after = action.given.get("cancel_after")
        if after is not None:
            self.loop.call_later(after, task.cancel)

    async def _crash(self, life: Life) -> None:
        """Stop a process as kill -9 does: nothing that it still does reaches anybody."""
        self.crashes += 1
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
        self.last_accepted.clear()
        for name, members in self.members.items():
            if name in self.activity_ended:
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
        token = _life.set(life)
        try:
            for name in sorted(self.members):
                if name not in self.activity_ended:
                    probe = self._put(life, {"activity": name, "event": "update", "count": 1})
                    probes[asyncio.create_task(probe)] = f"the last state of {name}"
            for number in range(4):
                one = self._lane(life, {"lane": number, "event": "update", "count": 1})
                probes[asyncio.create_task(one)] = f"the last state of lane {number}"
            simple = self._send(life, {"count": 2, "event": "update"})
            probes[asyncio.create_task(simple)] = "a last send()"
        finally:
            _life.reset(token)
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
            not each.report.stopped and each.report.tokens > 0 for each in life.delivery._activities
        )
        living = len(set(self.members) - self.activity_ended)
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
        engine = self.fake.engine
        answer = engine.answer

        def watched(request: Any, connection: Any) -> Any:
            fields = dict(request.headers)
            self.requested.add(fields.get(b"apns-id", b"").decode())
            return answer(request, connection)

        engine.answer = watched  # type: ignore[method-assign]

    # Callers

    def _say(self, event: str, **more: Any) -> Said:
        self._serial += 1
        said = Said(self._serial, event, alert=event == "alert", **more)
        self.said[said.serial] = said
        return said

    def _message(self, event: str, serial: int) -> Any:
        state = {"serial": serial}
        if event == "end":
            return End(content_state=state)
        if event == "start":
            return Start(
                content_state=state,
                attributes_type="Match",
                attributes={"id": "x"},
                alert=Alert(title="Start", body=f"start {serial}"),
            )
        alert = Alert(title="Goal", body=f"alert {serial}") if event == "alert" else None
        return Update(content_state=state, alert=alert)

    async def _send(self, life: Life, given: dict[str, Any]) -> None:
        async def one() -> None:
            said = self._say(given["event"], life=life.number)
            said.token = _named(f"send {self.plan.seed} {said.serial}")
            token: Any = None if given.get("bad_token") else said.token
            try:
                said.outcome = await life.client.send(
                    self._message(given["event"], said.serial),
                    token,
                    deadline=given.get("deadline"),
                )
            except asyncio.CancelledError as error:
                said.error = error
                raise
            except Exception as error:  # noqa: BLE001 - kept for the checks
                said.error = error
            if given.get("bad_token") and not isinstance(said.error, InvalidInput):
                self.complain(f"a token of None was taken: {said.outcome} {said.error!r}")

        await asyncio.gather(*(one() for _ in range(given["count"])))

    async def _lane(self, life: Life, given: dict[str, Any]) -> None:
        async def one() -> None:
            said = self._say(given["event"], life=life.number)
            said.token = _named(f"lane {self.plan.seed} {given['lane']}")
            try:
                ticket = life.delivery.submit(
                    self._message(given["event"], said.serial),
                    said.token,
                    deadline=given.get("deadline"),
                )
                if given.get("callback_raises"):
                    ticket.when_done(_raise)
                said.outcome = await ticket
            except ActivityEnded:
                del self.said[said.serial]
            except asyncio.CancelledError as error:
                said.error = error
                raise
            except Exception as error:  # noqa: BLE001 - kept for the checks
                said.error = error

        await asyncio.gather(*(one() for _ in range(given["count"])))

    async def _put(self, life: Life, given: dict[str, Any]) -> None:
        name = given["activity"]
        name = name if isinstance(name, str) else f"activity-{name}"
        if name in self.activity_ended:
            return
        try:
            activity = life.delivery.activity(name)
            self.members.setdefault(name, set())
            for _ in range(given["count"]):
                said = self._say(
                    given["event"], activity=name, life=life.number, expects_outcome=False
                )
                version = activity.put(self._message(given["event"], said.serial))
            self._told(name, said, await version)
        except ActivityEnded:
            self.said.pop(said.serial, None)
        except (JournalError, ClientClosed):
            pass  # the disk is full, or the process ends
        except ApnsLiveError as error:
            self.complain(f"put raised {error!r}")

    async def _end(self, life: Life, given: dict[str, Any]) -> None:
        name = f"activity-{given['activity']}"
        if name not in self.members or name in self.activity_ended:
            return
        try:
            activity = life.delivery.activity(name)
            said = self._say("end", activity=name, life=life.number, expects_outcome=False)
            version = activity.end(self._message("end", said.serial))
            self.activity_ended.add(name)
            self._told(name, said, await version)
        except ActivityEnded:
            self.said.pop(said.serial, None)
        except (JournalError, ClientClosed):
            pass  # the disk is full, or the process ends
        except ApnsLiveError as error:
            self.complain(f"end raised {error!r}")

    def _told(self, name: str, said: Said, report: Any) -> None:
        """Keep what a sender says of a state once all its tokens have it."""
        gone = {each.token for each in report.problems}
        self.given_up.setdefault(name, set()).update(gone)
        newest = max(each.serial for each in self.said.values() if each.activity == name)
        if newest == said.serial and not report.behind and not report.stopped:
            self.last_accepted[name] = said.serial

    async def _join(self, life: Life, given: dict[str, Any]) -> None:
        name = f"activity-{given['activity']}"
        if name in self.activity_ended:
            return
        with contextlib.suppress(ApnsLiveError):
            activity = life.delivery.activity(name)
            members = self.members.setdefault(name, set())
            for _ in range(given["tokens"]):
                token = _named(f"{name} {self.plan.seed} {self._next()}")
                activity.join(token)
                members.add(token)
                self.last_accepted.pop(name, None)

    async def _leave(self, life: Life, given: dict[str, Any]) -> None:
        name = f"activity-{given['activity']}"
        members = self.members.get(name)
        if not members or name in self.activity_ended:
            return
        with contextlib.suppress(ApnsLiveError):
            activity = life.delivery.activity(name)
            for token in sorted(members)[: given["tokens"]]:
                activity.leave(token)
                members.discard(token)
                self.left.add(token)

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    async def _fan_out(self, life: Life, given: dict[str, Any]) -> None:
        serial = self._next()
        prefix = given.get("name", serial)
        tokens: list[Any] = [
            _named(f"fan-out {self.plan.seed} {prefix} {index}") for index in range(given["tokens"])
        ]
        for index in given.get("bad", ()):
            if index < len(tokens):
                tokens[index] = (None, "not a token", "ab\n", 7)[index % 4]
        fan_out = FanOut(serial, given["event"], given, tokens, life.number)
        self.fan_outs.append(fan_out)
        message = self._message(given["event"], serial)
        raises = bool(given.get("callback_raises"))
        try:
            if "name" in given:
                run: Any = life.delivery.fan_out(
                    message, _source(given, tokens), name=given["name"], deadline=given["deadline"],
                    on_outcome=_raise if raises else None,
                )  # fmt: skip
            else:
                run = life.client.fan_out(
                    message,
                    _source(given, tokens),
                    deadline=given["deadline"],
                    drops_to=_raise if raises else None,
                )
            fan_out.began = True
            if given["read"] == "wait" and "break_after" not in given:
                async with run:
                    fan_out.report = await run.wait()
            elif given.get("bare"):
                await self._read(fan_out, run, given)
                await asyncio.sleep(30.0)
            else:
                async with run:
                    await self._read(fan_out, run, given)
            fan_out.finished = True
        except asyncio.CancelledError as error:
            fan_out.error = error
            raise
        except Exception as error:  # noqa: BLE001 - kept for the checks
            fan_out.error = error
        finally:
            if fan_out.began and fan_out.report is None:
                fan_out.report = run.report

    async def _read(self, fan_out: FanOut, run: Any, given: dict[str, Any]) -> None:
        limit = given.get("break_after")
        outcomes = aiter(run)
        try:
            async for outcome in outcomes:
                fan_out.outcomes.append(outcome)
                if limit is not None and len(fan_out.outcomes) > limit:
                    fan_out.read_when_left = run.report.read
                    break
                if given["read"] == "slowly":
                    await asyncio.sleep(0.02)
            else:
                fan_out.read_through = True
        finally:
            if not given.get("bare"):
                await outcomes.aclose()


def _named(text: str) -> str:
    return random.Random(text).randbytes(32).hex()


def _raise(*_: object) -> None:
    raise CallersOwn("a caller's callback")


def _source(given: dict[str, Any], tokens: list[Any]) -> Any:
    raises, cancels = given.get("source_raises"), given.get("source_cancels")

    def check(index: int) -> None:
        if index == raises:
            raise CallersOwn("a caller's source")
        if index == cancels:
            raise asyncio.CancelledError("a caller's source")

    def plain() -> Iterator[Any]:
        for index, token in enumerate(tokens):
            check(index)
            yield token

    async def slow(pause: float) -> AsyncIterator[Any]:
        for index, token in enumerate(tokens):
            check(index)
            if pause:
                await asyncio.sleep(pause)
            yield token

    match given["source"]:
        case "async":
            return slow(0.0)
        case "slow async":
            return slow(0.05)
        case "generator":
            return plain()
    return plain() if raises is not None or cancels is not None else tokens


_CALLS: dict[str, Any] = {
    "send": World._send,
    "lane": World._lane,
    "put": World._put,
    "end": World._end,
    "join": World._join,
    "leave": World._leave,
    "fan_out": World._fan_out,
    "journalled": World._fan_out,
}
