"""An event loop whose time is simulated: it jumps to the next timer when nothing else can run.

Everything that happens is decided by the code under test and by the seed, so a run repeats exactly.
A loop without anything to run and without a timer raises `Stuck`: somebody waits for ever.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Mapping
from typing import Any

EPOCH = 1_800_000_000.0
"""Wall-clock time when a simulation begins: 2027-01-15 08:00:00 UTC."""


class Stuck(Exception):
    """Nothing can run any more, or it runs on and on, and somebody still waits."""


class _Selector(selectors.BaseSelector):
    """Stands where the loop waits for sockets: lets the simulated time pass instead."""

    def __init__(self) -> None:
        self.loop: SimulatedLoop | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        assert loop is not None
        loop.pass_time(timeout)
        return []

    def close(self) -> None:
        return None

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        # asyncio asks whether a socket is registered; none ever is.
        raise KeyError(fileobj)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """``network`` serves what asyncio would ask the operating system for.

    ``longest`` bounds the simulated seconds, ``most_turns`` the turns of the loop.
    """

    def __init__(self, *, longest: float = 100_000.0, most_turns: int = 400_000) -> None:
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self
        self.network: Any = None
        self.sockets: list[socket.socket] = []
        """The sockets that were opened; nobody closes those of a process that crashed."""
        self.longest = longest
        self.turns_left = most_turns
        self._now = 0.0
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._now

    def pass_time(self, timeout: float | None) -> None:
        self.turns_left -= 1
        if timeout is None:
            raise Stuck("nothing can run and no timer is set, yet something is awaited")
        if self.turns_left <= 0:
            raise Stuck("the event loop turns without end")
        if timeout > 0:
            self._now += timeout
            if self._now > self.longest:
                raise Stuck(f"{self.longest:.0f} simulated seconds were not enough")

    def _make_self_pipe(self) -> None:  # no other thread wakes this loop
        self._ssock = self._csock = None  # type: ignore[assignment]

    def _close_self_pipe(self) -> None:
        return None

    def _write_to_self(self) -> None:
        return None

    # What the engine asks a loop for.

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:  # type: ignore[override]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    async def sock_connect(self, sock: Any, address: Any) -> None:  # type: ignore[override]
        self.sockets.append(sock)
        await self.network.tcp_connect(address)

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *args: Any, **options: Any
    ) -> Any:
        sock = options.get("sock")
        if sock is None:
            await self.network.tcp_connect(args)
        else:
            sock.close()
        return await self.network.connect(protocol_factory)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        return self.network.blocking_call(lambda: func(*args))


class SimulatedClock:
    """The engine's clock: the loop's time, and a wall clock that can be set wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.skew = 0.0
        self.read_with: set[float] = set()
        """Each skew with which somebody read the time."""

    def time(self) -> float:
        if self.skew:
            self.read_with.add(self.skew)
        return EPOCH + self._loop.time() + self.skew

    def monotonic(self) -> float:
        return self._loop.time()

    def call_later(self, delay: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay, callback)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay)
