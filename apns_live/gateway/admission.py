"""Admission control: the checks and limits that a request passes before its handler runs.

::

    arrive -> who calls (401, 403) -> is it too large (413) -> read the body -> a place -> the handler
              a stranger's place      at once                  a reader's       bounded   a deadline

A place is the right to run one handler. An unknown caller never holds one, and a known caller gets it only
after its body has arrived. Each app may hold at most three quarters of the places, and waiting apps take
turns. Writes and reads have separate places, so stalled writes do not block reads.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Collection

from starlette.types import Receive, Scope

from ..errors import Busy, InvalidInput
from .settings import GatewaySettings

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ONCE = frozenset({b"authorization", b"content-type", b"content-encoding", b"idempotency-key"})
_STRANGERS, _STRANGERS_WAITING = 16, 200


class Places:
    """How many calls are under way, by app. Raises `Busy` when none comes free within ``patience``.

    A call that finds no place waits for one a moment: a burst is served, and under lasting overload
    a client that asks again at once costs little.
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

    def _free(self, app: int) -> bool:
        return self.under_way < self._most and (self._held[app] < self._share or self._most == 1)

    def _take(self, app: int) -> None:
        self.under_way += 1
        self._held[app] += 1

    async def enter(self, app: int) -> None:
        """Take a place for a call of an app's row; 0 is nobody's."""
        if self._free(app) and app not in self._queues:
            self._take(app)
            return
        queue = self._queues.get(app, ())
        # A quarter of the queue is left to the other apps as well.
        if self.in_queue >= self._waiting or len(queue) > self._waiting * 3 // 4:
            raise Busy("as many requests are under way as may be", retry_after=1.0)
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._queues.setdefault(app, deque()).append(place)
        self.in_queue += 1
        timer = loop.call_later(self._patience, _give_up, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(app)  # given at the moment at which the caller went
            raise
        finally:
            timer.cancel()
            self._forget(app, place)

    def _forget(self, app: int, place: asyncio.Future[None]) -> None:
        queue = self._queues.get(app)
        if queue is not None and place in queue:
            queue.remove(place)
            self.in_queue -= 1
            if not queue:
                del self._queues[app]

    def leave(self, app: int) -> None:
        """Give a place back: to the app whose turn it is, and that may have one."""
        self.under_way -= 1
        self._held[app] -= 1
        if self._held[app] <= 0:
            del self._held[app]
        for waiting in list(self._queues):
            queue = self._queues[waiting]
            while queue and self._free(waiting):
                place = queue.popleft()
                self.in_queue -= 1
                if place.done():
                    continue
                self._take(waiting)
                place.set_result(None)
                self._queues.move_to_end(waiting)
                break
            if not queue:
                del self._queues[waiting]
            if self.under_way >= self._most:
                return


def _nothing() -> None:
    """Let a request go on that has no deadline."""


def _give_up(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(Busy("as many requests are under way as may be", retry_after=1.0))


class Visit:
    """One request on its way. ``expire`` is called when its time is over.

    ``reading`` says that it is the caller's body which is waited for.
    """

    def __init__(
        self, admission: Admission, scope: Scope, receive: Receive, expire: Callable[[], None]
    ) -> None:
        self.admission = admission
        self.receive = receive
        # Of a header given twice the first one counts.
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self._expire = expire
        self._place_of: int | None = None
        """The app whose place it holds: the place may have been taken before the app was known."""
        self._timer: asyncio.TimerHandle | None = None
        self._names: tuple[int, str] = (0, "")
        self._taken = 0
        client, reads = scope.get("client"), scope["method"] in _READING
        self.address = str(client[0]) if client else ""
        self.app = 0
        self.body = not reads and scope["method"] != "DELETE" and self._has_body(scope)
        self.reading = False
        self.places = admission.reads if reads else admission.writes
        settings = admission.settings
        # The timer for a body that will be read comes early enough; it is set once.
        if self.body:
            self.within(min(settings.call_seconds, settings.body_seconds))
        self.within(settings.call_seconds)

    def check(self, given: Collection[tuple[bytes, bytes]]) -> None:
        """Raise `InvalidInput` for a header with two values that has one (RFC 9110, section 5.3)."""
        if len(self.headers) < len(given):
            for name, value in given:
                if name in _ONCE and self.headers[name] != value:
                    raise InvalidInput(
                        "is given twice", field=name.decode().title(), remedy="Give it once."
                    )

    def _has_body(self, scope: Scope) -> bool:
        if b"transfer-encoding" in self.headers:
            return True
        length = self.headers.get(b"content-length")
        # HTTP/2 needs neither header for a body.
        return length != b"0" if length is not None else scope.get("http_version") == "2"

    def within(self, seconds: float) -> None:
        """Set the time that is left from now. A timer is set anew only where it would come too late."""
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
        else:
            self._expire()

    async def enter(self) -> None:
        """Take the place of a call whose caller and body are there. Raises `Busy`."""
        if self._place_of is None:
            app = self.app
            await self.places.enter(app)
            self._place_of = app

    def leave(self) -> None:
        """Give the place back; also before the answer, where it waits for what is not in this process."""
        if self._place_of is not None:
            app, self._place_of = self._place_of, None
            self.places.leave(app)

    def end(self) -> None:
        """Give back what is held, and let it take as long as it wants."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # The caller's own method: kept, it would leave each request to the garbage collector.
        self._expire = _nothing
        self.leave()

    def read(self, seconds: float) -> None:
        """Begin to wait for the body, which has ``seconds`` to come.

        Raises `Busy` when as many are under way, of all, of the app or of the address, as may be.
        """
        house = self.admission
        most, counts = house.settings.bodies, house.bodies_of
        share = max(1, most // 2)
        self._names = names = (self.app, self.address)
        if (
            house.bodies >= most
            or counts.get(names[0], 0) >= share
            or counts.get(names[1], 0) >= share
        ):
            raise Busy(f"{house.bodies} bodies are on their way", retry_after=2.0)
        self.within(seconds)
        self.reading = True
        house.bodies += 1
        for name in names:
            counts[name] = counts.get(name, 0) + 1

    def took(self, size: int) -> None:
        """Count bytes of the body that have come. Raises `Busy` for more than there may be of all."""
        house = self.admission
        self._taken += size
        house.body_bytes += size
        if house.body_bytes > house.settings.bodies_bytes:
            raise Busy("the bodies on their way are as large as may be", retry_after=2.0)

    def has_read(self, seconds: float) -> None:
        """Note that no more of the body is waited for; the call has ``seconds`` from now on."""
        house, counts = self.admission, self.admission.bodies_of
        self.reading = False
        self.within(seconds)
        house.bodies -= 1
        house.body_bytes -= self._taken
        for name in self._names:
            counts[name] -= 1
            if not counts[name]:
                del counts[name]


class Admission:
    """What is under way in a gateway."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        most, waiting, patience = settings.requests, settings.waiting_requests, settings.patience
        self.reads = Places(most, waiting, patience)
        self.writes = Places(most, waiting, patience)
        self.strangers = Places(_STRANGERS, _STRANGERS_WAITING, patience)
        self.bodies = 0
        self.body_bytes = 0
        self.bodies_of: dict[int | str, int] = {}

    @property
    def under_way(self) -> int:
        """Calls that have a place."""
        return self.reads.under_way + self.writes.under_way


@contextlib.asynccontextmanager
async def asking(places: Places | None) -> AsyncIterator[None]:
    """Look up a caller that is not known: a few at a time, of all that call."""
    if places is None:
        yield
        return
    await places.enter(0)
    try:
        yield
    finally:
        places.leave(0)
