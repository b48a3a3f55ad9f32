"""The callers of one world: what they hand in, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from apns_live import Alert, End, Outcome, Start, Update, Verdict
from apns_live.errors import ActivityEnded, ApnsLiveError, ClientClosed, InvalidInput, JournalError

from .effects import Effects, Provoked
from .process import Life


class CallersOwn(Provoked):
    """What a caller's callback or source raises."""


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
    asked_for: int = 0
    """How many tokens the source was asked for, where it is no list."""
    asked_when_left: int | None = None
    """The same at the moment in which the caller broke off."""


class Callers:
    """Keeps the account of what was said; ``complain`` takes what is not as it must be."""

    def __init__(self, seed: int, effects: Effects, complain: Callable[[str], None]) -> None:
        self.seed = seed
        self.effects = effects
        self.complain = complain
        self.said: dict[int, Said] = {}
        self.fan_outs: list[FanOut] = []
        self.members: dict[str, set[str]] = {}
        """The tokens of each live activity, by its name."""
        self.ended: set[str] = set()
        """The names of those that have ended."""
        self.last_accepted: dict[str, int] = {}
        """The last state of each activity whose sender says that everybody has it."""
        self.given_up: dict[str, dict[str, Verdict]] = {}
        """The tokens of each activity that did not get all its states, with the last reason."""
        self.lane_tokens = {_named(f"lane {seed} {number}") for number in range(4)}
        self._serial = 0

    def call(self, life: Life, what: str, given: dict[str, Any]) -> Any:
        """Return what a caller does: one kind of action of a plan."""
        return _CALLS[what](self, life, given)

    def _came(self, what: str, said: Said) -> None:
        """Note what came of a message to one token."""
        if said.outcome is None:
            return
        if said.outcome.accepted:
            self.effects.count(f"{what} {said.event}")
        if said.outcome.reason == "deadline":
            self.effects.count("deadline")

    def _raise(self, *_: object) -> None:
        self.effects.count("callback_raises")
        raise CallersOwn("a caller's callback")

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

    async def send(self, life: Life, given: dict[str, Any]) -> None:
        async def one() -> None:
            said = self._say(given["event"], life=life.number)
            said.token = _named(f"send {self.seed} {said.serial}")
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
            self._came("send", said)
            if given.get("bad_token"):
                if isinstance(said.error, InvalidInput):
                    self.effects.count("bad_token")
                else:
                    self.complain(f"a token of None was taken: {said.outcome} {said.error!r}")

        await asyncio.gather(*(one() for _ in range(given["count"])))

    async def lane(self, life: Life, given: dict[str, Any]) -> None:
        async def one() -> None:
            said = self._say(given["event"], life=life.number)
            said.token = _named(f"lane {self.seed} {given['lane']}")
            try:
                ticket = life.delivery.submit(
                    self._message(given["event"], said.serial),
                    said.token,
                    deadline=given.get("deadline"),
                )
                if given.get("callback_raises"):
                    ticket.when_done(self._raise)
                said.outcome = await ticket
                self._came("lane", said)
            except ActivityEnded:
                del self.said[said.serial]
            except asyncio.CancelledError as error:
                said.error = error
                raise
            except Exception as error:  # noqa: BLE001 - kept for the checks
                said.error = error

        await asyncio.gather(*(one() for _ in range(given["count"])))

    async def put(self, life: Life, given: dict[str, Any]) -> None:
        name = given["activity"]
        name = name if isinstance(name, str) else f"activity-{name}"
        if name in self.ended:
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
            self.effects.count(f"put {given['event']}")
        except ActivityEnded:
            self.said.pop(said.serial, None)
        except (JournalError, ClientClosed):
            pass  # the disk is full, or the process ends
        except ApnsLiveError as error:
            self.complain(f"put raised {error!r}")

    async def end(self, life: Life, given: dict[str, Any]) -> None:
        name = f"activity-{given['activity']}"
        if name not in self.members or name in self.ended:
            return
        try:
            activity = life.delivery.activity(name)
            said = self._say("end", activity=name, life=life.number, expects_outcome=False)
            version = activity.end(self._message("end", said.serial))
            self.ended.add(name)
            self._told(name, said, await version)
            self.effects.count("end")
        except ActivityEnded:
            self.said.pop(said.serial, None)
        except (JournalError, ClientClosed):
            pass  # the disk is full, or the process ends
        except ApnsLiveError as error:
            self.complain(f"end raised {error!r}")

    def _told(self, name: str, said: Said, report: Any) -> None:
        """Keep what a sender says of a state once all its tokens have it."""
        gone = {each.token: each.verdict for each in report.problems}
        self.given_up.setdefault(name, {}).update(gone)
        newest = max(each.serial for each in self.said.values() if each.activity == name)
        if newest == said.serial and not report.behind and not report.stopped:
            self.last_accepted[name] = said.serial

    async def join(self, life: Life, given: dict[str, Any]) -> None:
        name = f"activity-{given['activity']}"
        if name in self.ended:
            return
        with contextlib.suppress(ApnsLiveError):
            activity = life.delivery.activity(name)
            members = self.members.setdefault(name, set())
            for _ in range(given["tokens"]):
                token = _named(f"{name} {self.seed} {self._next()}")
                activity.join(token)
                members.add(token)
                self.effects.count("join")
                self.last_accepted.pop(name, None)

    async def leave(self, life: Life, given: dict[str, Any]) -> None:
        name = f"activity-{given['activity']}"
        members = self.members.get(name)
        if not members or name in self.ended:
            return
        with contextlib.suppress(ApnsLiveError):
            activity = life.delivery.activity(name)
            for token in sorted(members)[: given["tokens"]]:
                activity.leave(token)
                members.discard(token)
                self.effects.count("leave")

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    async def fan_out(self, life: Life, given: dict[str, Any]) -> None:
        serial = self._next()
        prefix = given.get("name", serial)
        tokens: list[Any] = [
            _named(f"fan-out {self.seed} {prefix} {index}") for index in range(given["tokens"])
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
                    message, self._source(fan_out), name=given["name"], deadline=given["deadline"],
                    on_outcome=self._raise if raises else None,
                )  # fmt: skip
            else:
                run = life.client.fan_out(
                    message,
                    self._source(fan_out),
                    deadline=given["deadline"],
                    drops_to=self._raise if raises else None,
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
            self._came_of_fan_out(fan_out)

    async def _read(self, fan_out: FanOut, run: Any, given: dict[str, Any]) -> None:
        limit = given.get("break_after")
        outcomes = aiter(run)
        try:
            async for outcome in outcomes:
                fan_out.outcomes.append(outcome)
                if limit is not None and len(fan_out.outcomes) > limit:
                    fan_out.asked_when_left = fan_out.asked_for
                    break
                if given["read"] == "slowly":
                    await asyncio.sleep(0.02)
            else:
                fan_out.read_through = True
        finally:
            if not given.get("bare"):
                await outcomes.aclose()

    def _source(self, fan_out: FanOut) -> Any:
        given, tokens = fan_out.given, fan_out.tokens
        raises, cancels = given.get("source_raises"), given.get("source_cancels")

        def check(index: int) -> None:
            fan_out.asked_for += 1
            if index == raises:
                self.effects.count("source_raises")
                raise CallersOwn("a caller's source")
            if index == cancels:
                self.effects.count("source_cancels")
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

    def _came_of_fan_out(self, fan_out: FanOut) -> None:
        given, count = fan_out.given, self.effects.count
        verdicts = {each.verdict for each in fan_out.outcomes}
        if Verdict.FIX_REQUEST in verdicts:
            count("bad")
        if any(each.reason == "deadline" for each in fan_out.outcomes):
            count("deadline")
        if fan_out.asked_when_left is not None:
            count("break_after")
            if given.get("bare"):
                count("bare")
        if fan_out.report is not None and fan_out.report.settled:
            count(f"{'journalled' if 'name' in given else 'fan_out'} {fan_out.event}")
            count(f"source: {given['source']}")
            count(f"read: {given['read']}")


def _named(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


_CALLS: dict[str, Any] = {
    "send": Callers.send,
    "lane": Callers.lane,
    "put": Callers.put,
    "end": Callers.end,
    "join": Callers.join,
    "leave": Callers.leave,
    "fan_out": Callers.fan_out,
    "journalled": Callers.fan_out,
}

CALLS = frozenset(_CALLS)
"""The kinds of action that callers do."""
