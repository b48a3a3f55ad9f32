"""The way of one request to its handler: known caller, body, place, deadline.

::

    arrive -> who calls (401, 403) -> is it too large (413) -> read the body -> a place -> the handler
              a stranger's place      at once                  a reader's       bounded   a deadline

Nothing is held for a caller that is not known, and no place while a body is on its way. Places are
handed out by app: one app leaves a quarter of them to the others, and waiting apps take turns. Writes
and reads have places of their own, so that a stalled write leaves reads alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar

from ..errors import Busy
from .settings import GatewaySettings

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


def _give_up(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_exception(Busy("as many requests are under way as may be", retry_after=1.0))


class Visit:
    """One request on its way. ``expire`` is called when its time is over."""

    __slots__ = ("_expire", "_place_of", "_timer", "address", "admission", "app", "body", "places")

    def __init__(
        self,
        admission: Admission,
        address: str,
        expire: Callable[[], None],
        *,
        reads: bool,
        body: bool,
    ) -> None:
        self.admission = admission
        self._expire = expire
        self._place_of: int | None = None
        """The app whose place it holds: the place may have been taken before the app was known."""
        self._timer: asyncio.TimerHandle | None = None
        self.address = address
        self.app = 0
        self.body = body
        self.places = admission.reads if reads else admission.writes
        settings = admission.settings
        self.within(settings.call_seconds + (settings.body_seconds if body else 0.0))

    def within(self, seconds: float | None) -> None:
        """Set the time that is left from now; None takes the deadline away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._expire)

    async def enter(self) -> None:
        """Take the place of a call whose caller and body are there. Raises `Busy`."""
        if self._place_of is None:
            app = self.app
            await self.places.enter(app)
            self._place_of = app
            if self.body:
                self.within(self.admission.settings.call_seconds)

    def leave(self) -> None:
        """Give the place back."""
        if self._place_of is not None:
            app, self._place_of = self._place_of, None
            self.places.leave(app)


_visit: ContextVar[Visit | None] = ContextVar("apns_live_visit", default=None)
current_visit = _visit.get
"""The request that is being served; None outside of one."""


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
        self._bodies_of: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        """Calls that have a place."""
        return self.reads.under_way + self.writes.under_way

    @contextlib.contextmanager
    def visiting(self, visit: Visit) -> Iterator[None]:
        """Let everything within the block know of the request."""
        token = _visit.set(visit)
        try:
            yield
        finally:
            _visit.reset(token)
            visit.within(None)
            visit.leave()

    @contextlib.contextmanager
    def arriving(self, visit: Visit | None) -> Iterator[Callable[[int], None]]:
        """Count a body that is on its way; yields what takes the bytes that have come.

        Raises `Busy` when as many are under way, of all, of the app or of the address, as may be.
        """
        most = self.settings.bodies
        names = [] if visit is None else [f"app {visit.app}", f"address {visit.address}"]
        if self.bodies >= most or any(self._bodies_of[name] >= max(1, most // 2) for name in names):
            raise Busy(f"{self.bodies} bodies are on their way", retry_after=2.0)
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            taken += size
            self.body_bytes += size
            if self.body_bytes > self.settings.bodies_bytes:
                raise Busy("the bodies on their way are as large as may be", retry_after=2.0)

        self.bodies += 1
        self._bodies_of.update(names)
        try:
            yield take
        finally:
            self.bodies -= 1
            self.body_bytes -= taken
            self._bodies_of.subtract(names)
            self._bodies_of += Counter()


async def arrived(app: int) -> None:
    """Note which app's row calls. One that sends no body takes its place now. Raises `Busy`."""
    visit = current_visit()
    if visit is not None:
        visit.app = visit.app or app
        if not visit.body:
            await visit.enter()


async def enter_now() -> None:
    """Take the place of a call of whose body nothing will be read. Raises `Busy`."""
    visit = current_visit()
    if visit is not None:
        await visit.enter()


def leave_now() -> None:
    """Give the place back before the answer: the call waits for what is not in this process."""
    visit = current_visit()
    if visit is not None:
        visit.leave()


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
