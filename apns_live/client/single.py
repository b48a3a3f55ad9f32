"""The waiting room of ``send``: one future per call, no task, bounded."""

import asyncio
from collections import deque
from collections.abc import Sequence

from ..clock import Alarm, timeout
from ..errors import ClientClosed, PoolFull
from ..outcome import Outcome
from ..pool import Loss, Push, PushState
from ..retry import TOTAL_LIMIT
from .attachment import Attachment, Settled
from .engine import Engine


class WaitingRoom:
    """The source of work behind `Client.send` and `Client.broadcast`."""

    def __init__(self, engine: Engine, *, capacity: int, queue_timeout: float) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._capacity = capacity
        self._queue_timeout = queue_timeout
        self._waiting: deque[Push] = deque()
        self._present = 0
        """Places in use: cancelled pushes stay in the deque until their turn."""
        self._doors: deque[asyncio.Future[None]] = deque()
        self._timed: set[Push] = set()
        self._alarm = Alarm(engine.clock, self._tick)
        self._attachment: Attachment | None = None
        self._loop: asyncio.AbstractEventLoop  # the client's only one
        self.closed = False
        """Whether new calls are refused; waiting ones continue."""

    def __len__(self) -> int:
        return self._present

    async def send(self, push: Push, deadline: float | None) -> Outcome:
        """Return the push's outcome. Raise `PoolFull` or `ClientClosed`; then nothing was sent."""
        now = self._clock.monotonic()
        if deadline is not None:
            push.deadline = now + deadline
        push.created = now
        if self._present < self._capacity:
            self._present += 1
        else:
            await self._find_place(push)
        if self.closed:
            self._left(1)
            raise ClientClosed("the client is closed; nothing was sent")
        attachment = self._attachment
        if attachment is None:
            attachment = self._attachment = self._engine.attach(self, checked=True, drains=True)
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = self._loop.create_future()
        push.context = future
        push.owner = attachment
        self._waiting.append(push)
        if push.deadline:
            self._timed.add(push)
            self._alarm.set(push.deadline)
        self._alarm.set(now + TOTAL_LIMIT)
        attachment.wake()
        try:
            return await future
        except asyncio.CancelledError:
            if push.state == PushState.NEW:
                self._left(1)
            self._timed.discard(push)
            self._engine.give_up(push, Loss.CANCELLED, report=False)
            raise

    async def _find_place(self, push: Push) -> None:
        """Return once a place is free. The place is reserved at that moment."""
        patience = self._queue_timeout
        if push.deadline:
            patience = min(patience, push.deadline - push.created)
        door: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._doors.append(door)
        try:
            async with timeout(self._clock, patience):
                await door
        except TimeoutError:
            if door.done() and not door.cancelled():
                return  # a place became free at the last moment
            raise PoolFull(
                f"{self._capacity} pushes wait already and none left within {patience:g} s; "
                "nothing was sent. APNs is slow or not reachable, or this is more than it takes"
            ) from None
        except asyncio.CancelledError:
            if door.done() and not door.cancelled():
                self._left(1)  # the reserved place goes to the next caller
            raise

    def take(self, limit: int) -> Sequence[Push]:
        """Return pushes in the order of their calls."""
        waiting = self._waiting
        taken: list[Push] = []
        while waiting and len(taken) < limit:
            push = waiting.popleft()
            if push.state == PushState.NEW:
                taken.append(push)
        if taken:
            self._left(len(taken))
        return taken

    def settled(self, outcomes: Settled) -> None:
        """Wake the callers."""
        timed = self._timed
        for push, outcome in outcomes:
            if timed:
                timed.discard(push)
            future = push.context
            if not future.done():
                future.set_result(outcome)

    def close(self) -> None:
        """Settle all waiting pushes as NOT_SENT, and accept no more."""
        self.closed = True
        for push in self.take(len(self._waiting)):
            push.state = PushState.NEW
            self._engine.give_up(push, Loss.CLOSED)
        self._capacity += len(self._doors)
        self._left(0)
        self._alarm.cancel()

    def _left(self, count: int) -> None:
        self._present -= count
        while self._doors and self._present < self._capacity:
            door = self._doors.popleft()
            if not door.done():
                self._present += 1
                door.set_result(None)

    def _tick(self) -> None:
        now = self._clock.monotonic()
        wall = self._clock.time()
        late = [push for push in self._timed if push.deadline <= now]
        for push in self._waiting:
            if push.state != PushState.NEW or push.deadline:
                continue
            if push.created + TOTAL_LIMIT <= now or push.message.useless_at <= wall:
                late.append(push)
        for push in late:
            self._timed.discard(push)
            if push.state == PushState.NEW:
                self._left(1)
            self._engine.give_up(push, Loss.DEADLINE)
        moments = [push.deadline for push in self._timed]
        waiting = (push for push in self._waiting if push.state == PushState.NEW)
        moments += [push.created + TOTAL_LIMIT for push in waiting]
        if moments:
            self._alarm.set(min(moments))
