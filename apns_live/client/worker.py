"""A worker process of a fan-out: ``python -m apns_live.client.worker FD``. See `workers`."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from time import monotonic
from typing import Any

from ..credentials import ProviderKey
from ..errors import CredentialError
from ..outcome import Outcome
from ..pool import Endpoint, PoolOptions
from .client import Client
from .crossing import NoMore, Setup, Take, decode_order, read, settled, write
from .fan_out import Run
from .reading import TokenReader
from .run import Life

_PAUSE = 0.01, 0.05
"""Seconds between two words of outcomes, and of counts alone."""


class LentKey(ProviderKey):
    """Stands for a key that another process owns: its tokens were signed there."""

    __slots__ = ("_signed",)
    _signed: dict[int, str]

    def __init__(self, key_id: str, team_id: str, signed: dict[int, str]) -> None:
        for name, value in (
            ("key_id", key_id),
            ("team_id", team_id),
            ("fingerprint", ""),
            ("_signed", signed),
        ):
            object.__setattr__(self, name, value)

    def sign(self, issued_at: int, *, deterministic: bool = True) -> str:
        """Return the JWT for ``issued_at``. Raises `CredentialError` when it was not signed ahead."""
        try:
            return self._signed[issued_at]
        except KeyError:
            raise CredentialError(
                "a worker process has no provider token for this time: the fan-out runs for longer "
                "than a day, or the clock was set. Start the fan-out of the other tokens anew"
            ) from None


class _Fed(TokenReader):
    """Tokens that another process read."""

    def __init__(self) -> None:
        super().__init__()
        self._fed: list[str] = []
        self._over = False

    def feed(self, tokens: list[str]) -> None:
        self._fed.extend(tokens)
        self._wake()

    def finish(self) -> None:
        self._over = True
        self._wake()

    def _next(self, limit: int) -> list[str]:
        taken = self._fed[:limit]
        del self._fed[:limit]
        if not self._fed and self._over:
            self.exhausted = True
        return taken

    def _left(self) -> list[str]:
        left, self._fed = self._fed, []
        return left


class _Teller:
    """Tells the other process what the run came to, a batch at a time."""

    def __init__(
        self, run: Run, writer: asyncio.StreamWriter, drops: list[Outcome], *, rows: bool
    ) -> None:
        self._run = run
        self._writer = writer
        self._drops = drops
        self._rows = rows
        self._timer: asyncio.TimerHandle | None = None
        self.over = asyncio.Event()

    def note(self) -> None:
        """Tell soon; called at every change of the run."""
        if self._timer is None:
            pause = 0.0 if self._run.life is Life.OVER else _PAUSE[not self._rows]
            self._timer = asyncio.get_running_loop().call_later(pause, self.tell)

    def tell(self) -> None:
        """Tell now."""
        self._timer = None
        run = self._run
        unread = run.outbox.unread
        outcomes = list(unread)
        unread.clear()
        drops = [] if self._rows else self._drops.copy()  # else they are among the outcomes
        self._drops.clear()
        write(self._writer, settled(outcomes, run.counts, drops))
        if outcomes:
            run.resume()
        if run.life is Life.OVER:
            self.over.set()


async def _main(descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    data = await read(reader)
    if not data:
        return
    setup = decode_order(data)
    assert isinstance(setup, Setup)  # noqa: S101 - it is what the other side sends first
    host, port, ca_file = setup.endpoint
    client = Client(
        LentKey(setup.key_id, setup.team_id, setup.provider_tokens),
        bundle_id=setup.bundle_id,
        environment=Endpoint(host, port, ca_file),
        proxy=setup.proxy,
        pool=PoolOptions(**setup.options),
        never_index_authorization=setup.never_index,
    )
    left = None if setup.deadline is None else max(0.001, setup.deadline - monotonic())
    fed = _Fed()
    tokens: Any = fed
    drops: list[Outcome] = []
    async with client:
        run = client.fan_out(
            client.prepare(setup.message), tokens, deadline=left, drops_to=drops.append
        )
        teller = _Teller(run, writer, drops, rows=setup.rows)
        run.outbox.listener = teller.note
        if not setup.rows:
            run.outbox.discard()
        run.start()
        listening = asyncio.create_task(_listen(reader, fed, run))
        await teller.over.wait()
        listening.cancel()
        await writer.drain()
    writer.close()


async def _listen(reader: asyncio.StreamReader, fed: _Fed, run: Run) -> None:
    while data := await read(reader):
        order = decode_order(data)
        if isinstance(order, Take):
            fed.feed(order.tokens)
        elif isinstance(order, NoMore):
            if order.stop:
                run.stop()
            fed.finish()
    run.stop()  # the other process has gone
    fed.finish()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    asyncio.run(_main(int(sys.argv[1])))
