"""Admission control: the checks and limits that a request passes before its handler runs.

::

    authenticate (401, 403) -> check the size (413) -> read the body (408) -> get a slot (503) -> run the handler

A slot is the right to run one handler. Unknown callers never get one, and a known caller gets it only after
its body has arrived. Each app may use at most three quarters of the slots, and waiting apps take turns.
Writes and reads have separate slots, so stalled writes do not block reads. Looking up an unknown key, and
reading a body, have limits of their own.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, TypeVar

from starlette.types import Receive, Scope

from ..clock import Clock
from ..errors import BadBody, Busy, InvalidInput
from .settings import GatewaySettings

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ONCE = frozenset({b"authorization", b"content-type", b"content-encoding", b"idempotency-key"})
_STRANGERS = (16, 200)
"""Unknown callers that are looked up at the same time, and that may wait."""
_TRUSTED_SECONDS, _RENEWAL_SECONDS = 4.0, 1.0
Found = TypeVar("Found")


class Slots:
    """Limits the running calls, in total and by app. Raises `Busy` if none ends within ``patience``.

    A call waits a moment for a free slot. So bursts are served, and under lasting overload repeated
    calls cost little. ``async with`` takes a slot for an unknown caller.
    """

    def __init__(self, most: int, waiting: int, patience: float) -> None:
        self._most = most
        self._share = max(1, most * 3 // 4)
        self._waiting = waiting
        self._patience = patience
        self._held: Counter[int] = Counter()
        self._queues: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()
        self.under_way = 0
        self.in_queue = 0

    async def __aenter__(self) -> None:
        await self.enter(0)

    async def __aexit__(self, *_: object) -> None:
        self.leave(0)

    def _free(self, app: int) -> bool:
        return self.under_way < self._most and (self._held[app] < self._share or self._most == 1)

    def _take(self, app: int) -> None:
        self.under_way += 1
        self._held[app] += 1

    async def enter(self, app: int) -> None:
        """Take a slot for a call of the app with this row; 0 for unknown callers."""
        if self._free(app) and app not in self._queues:
            self._take(app)
            return
        queue = self._queues.get(app, ())
        # A quarter of the queue is left to the other apps as well.
        if self.in_queue >= self._waiting or len(queue) > self._waiting * 3 // 4:
            raise Busy("too many requests are running", retry_after=1.0)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._queues.setdefault(app, deque()).append(waiter)
        self.in_queue += 1
        timer = loop.call_later(self._patience, _give_up, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.leave(app)  # the slot was assigned while the call was being cancelled
            raise
        finally:
            timer.cancel()
            if waiter in (rest := self._queues.get(app, ())):
                self._queues[app].remove(waiter)
                self.in_queue -= 1
                if not rest:
                    del self._queues[app]

    def leave(self, app: int) -> None:
        """Release a slot; the next waiting app that is below its share gets it."""
        self.under_way -= 1
        self._held[app] -= 1
        if self._held[app] <= 0:
            del self._held[app]
        for waiting in list(self._queues):
            queue = self._queues[waiting]
            while queue and self._free(waiting):
                waiter = queue.popleft()
                self.in_queue -= 1
                if waiter.done():
                    continue
                self._take(waiting)
                waiter.set_result(None)
                self._queues.move_to_end(waiting)
                break
            if not queue:
                del self._queues[waiting]
            if self.under_way >= self._most:
                return


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(Busy("too many requests are running", retry_after=1.0))


class Known(Generic[Found]):
    """Callers that were looked up in the last five seconds, at most ``most``, by name.

    ``load`` reads one from the database. ``strangers`` limits how many unknown ones are read at the
    same time.
    """

    def __init__(
        self,
        load: Callable[[str], Awaitable[Found | None]],
        clock: Clock,
        most: int,
        strangers: Slots | None,
    ) -> None:
        self.load = load
        self.entries: dict[str, tuple[Found, float]] = {}
        """What was found, and the time (monotonic) at which it is read again."""
        self._clock = clock
        self._most = most
        self._strangers = strangers or Slots(*_STRANGERS, patience=0.25)

    async def get(self, name: str) -> Found | None:
        """Return the caller of a name, or None. Raises `Busy`."""
        if name not in self.entries:
            async with self._strangers:
                # A concurrent call may have read it.
                known = self.entries.get(name)
                return known[0] if known is not None else await self._read(name)
        found, until = self.entries[name]
        now = self._clock.monotonic()
        if until < now:
            # One call reads the database again; concurrent calls use what is known.
            self.entries[name] = found, now + _RENEWAL_SECONDS
            return await self._read(name)
        return found

    async def _read(self, name: str) -> Found | None:
        if (found := await self.load(name)) is None:
            self.entries.pop(name, None)
            return None
        while len(self.entries) >= self._most:
            del self.entries[next(iter(self.entries))]
        self.entries[name] = found, self._clock.monotonic() + _TRUSTED_SECONDS
        return found


class Visit:
    """One running request, ``reading`` while it waits for the body. ``expire`` ends it at its limit."""

    def __init__(
        self, admission: Admission, scope: Scope, receive: Receive, expire: Callable[[], None]
    ) -> None:
        self.admission = admission
        self.receive = receive
        # The reversed order lets the first of two equal headers win.
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self._expire: Callable[[], None] | None = expire
        self._slot_of: int | None = None
        """The app for which the slot was taken, possibly 0 before the app was known."""
        self._timer: asyncio.TimerHandle | None = None
        client, reads = scope.get("client"), scope["method"] in _READING
        self.address = str(client[0]) if client else ""
        self.app = 0
        length = self.headers.get(b"content-length")
        # HTTP/2 needs neither header for a body.
        coming = length != b"0" if length is not None else scope.get("http_version") == "2"
        coming = coming or b"transfer-encoding" in self.headers
        self.body = coming and not reads and scope["method"] != "DELETE"
        self.reading = False
        self.slots = admission.reads if reads else admission.writes
        settings = admission.settings
        # The limit of a body is the shorter one, so its timer is set first and fires early enough.
        if self.body:
            self.within(min(settings.call_seconds, settings.body_seconds))
        self.within(settings.call_seconds)

    def check(self, given: Collection[tuple[bytes, bytes]]) -> None:
        """Raise `InvalidInput` for a header with two values that has one (RFC 9110, section 5.3)."""
        if len(self.headers) < len(given):
            for name, value in given:
                if name in _ONCE and self.headers[name] != value:
                    raise InvalidInput("is given twice", name.decode().title(), "Give it once.")

    def within(self, seconds: float) -> None:
        """Set the time limit, counted from now. Replace the timer only if it would fire too late."""
        loop = asyncio.get_running_loop()
        self._deadline = deadline = loop.time() + seconds
        if self._timer is None or self._timer.when() > deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(deadline, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._deadline:
            self._timer = loop.call_at(self._deadline, self._look)
        elif self._expire is not None:
            self._expire()

    async def enter(self) -> None:
        """Take the slot of an authenticated call whose body has arrived. Raises `Busy`."""
        if self._slot_of is None:
            app = self.app
            await self.slots.enter(app)
            self._slot_of = app

    def leave(self) -> None:
        """Release the slot. A call that waits for another process does so before its answer."""
        if self._slot_of is not None:
            app, self._slot_of = self._slot_of, None
            self.slots.leave(app)

    def end(self) -> None:
        """Release the slot and cancel the time limit."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # The bound method forms a cycle, and only the garbage collector would free the request.
        self._expire = None
        self.leave()

    async def body_of(self, limit_bytes: int) -> bytes:
        """Return the body; the call then takes its slot. Raises as `receive_body`."""
        settings, parts = self.admission.settings, list[bytes]()
        within, then = settings.body_seconds, settings.call_seconds
        await self.receive_body(limit_bytes, within, then, parts.append)
        await self.enter()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def receive_body(
        self, limit_bytes: int, seconds: float, then: float, take: Callable[[bytes], object]
    ) -> None:
        """Receive the body within ``seconds``, piece by piece; the call then has ``then`` more seconds.

        Raises `BadBody` (413) as soon as it is over ``limit_bytes``, and `Busy` if too many bodies are being
        received, in total, of the app or of the address, or if they are too large together.
        """
        declared, size, more = self.headers.get(b"content-length", b""), 0, True
        if self.headers.get(b"content-encoding", b"").lower() not in (b"", b"identity"):
            raise BadBody("the body is encoded: send it without Content-Encoding", status=415)
        if declared.isdigit() and int(declared) > limit_bytes:
            raise BadBody(f"the body is over {limit_bytes} bytes", status=413)
        admission, names = self.admission, (self.app, self.address)
        settings, counts = admission.settings, admission.bodies_of
        share = max(1, settings.bodies // 2)
        if (
            admission.bodies >= settings.bodies
            or max(counts[self.app], counts[self.address]) >= share
        ):
            raise Busy(f"{admission.bodies} bodies are being received", retry_after=2.0)
        self.within(seconds)
        self.reading = True
        admission.bodies += 1
        for name in names:
            counts[name] += 1
        try:
            while more:
                message = await self.receive()
                if message["type"] == "http.disconnect":
                    raise BadBody("the connection was closed before the body was complete")
                part, more = message.get("body", b""), message.get("more_body", False)
                size += len(part)
                admission.body_bytes += len(part)
                if size > limit_bytes:
                    raise BadBody(f"the body is over {limit_bytes} bytes", status=413)
                if admission.body_bytes > settings.bodies_bytes:
                    raise Busy("the bodies being received are too large in total", retry_after=2.0)
                take(part)
        finally:
            self.reading = False
            self.within(then)
            admission.bodies -= 1
            admission.body_bytes -= size
            for name in names:
                counts[name] -= 1
                if not counts[name]:
                    del counts[name]


class Admission:
    """The limits and counts of running calls of a gateway."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        most, waiting, patience = settings.requests, settings.waiting_requests, settings.patience
        self.reads = Slots(most, waiting, patience)
        self.writes = Slots(most, waiting, patience)
        self.strangers = Slots(*_STRANGERS, patience)
        self.bodies = 0
        self.body_bytes = 0
        self.bodies_of: Counter[int | str] = Counter()

    @property
    def under_way(self) -> int:
        """The number of running calls."""
        return self.reads.under_way + self.writes.under_way
