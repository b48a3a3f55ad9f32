"""A worker process of a fan-out: ``python -m apns_live.client.worker FD``. See `workers`."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Iterable
from time import monotonic
from typing import Any

from ..credentials import ProviderKey
from ..errors import CredentialError
from ..outcome import Outcome
from ..pool import Endpoint, RequestIds
from .attachment import Acceptances
from .client import Client
from .reading import AheadReader
from .run import Life, Outbox, Run
from .workers import NoMore, Settled, Setup, Take, decode_order, pack, read, write

_PAUSE = 0.01, 0.05
"""Seconds between two messages with outcomes, and between two with counts alone."""


class LentKey(ProviderKey):
    """Represents a key that another process owns, which has signed the provider tokens."""

    __slots__ = ("_signed",)
    _signed: dict[int, str]

    def __init__(self, key_id: str, team_id: str, signed: dict[int, str]) -> None:
        fields = {"key_id": key_id, "team_id": team_id, "fingerprint": "", "_signed": signed}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    def sign(self, issued_at: int, *, deterministic: bool = True) -> str:
        """Return the JWT for ``issued_at``. Raises `CredentialError` unless it was signed before."""
        try:
            return self._signed[issued_at]
        except KeyError:
            raise CredentialError(
                "a worker process has no provider token for this time: the fan-out runs for longer "
                "than a day, or the clock was set. Start the fan-out of the other tokens anew"
            ) from None


class _Fed(AheadReader):
    """Tokens that another process has read and checked."""

    checked = True

    def feed(self, tokens: list[str]) -> None:
        self._ahead.extend(tokens)
        self.wake()

    def finish(self) -> None:
        self._over = True
        self.wake()


class _Teller(Outbox):
    """Sends the run's outcomes to the other process, a batch at a time."""

    def __init__(
        self,
        run: Run,
        ids: RequestIds,
        writer: asyncio.StreamWriter,
        drops: list[Outcome],
        *,
        rows: bool,
    ) -> None:
        super().__init__()
        self.kept = rows
        self._run = run
        self._ids = ids
        self._never_taken = 0
        self._writer = writer
        self._drops = drops
        self._next = Settled(run.tally.counts)
        self._timer: asyncio.TimerHandle | None = None
        self.over = asyncio.Event()

    def put(self, outcomes: Iterable[Outcome]) -> None:
        """Keep outcomes for the next message."""
        if self.kept:
            others = list(outcomes)
            self._next.numbers += map(self._number, others)
            self._next.others += others
        self.tell()

    def _number(self, outcome: Outcome) -> int:
        """Return the number of a token. Tokens that were never taken come after all others."""
        if outcome.apns_id:
            return self._ids.number(outcome.apns_id)
        self._never_taken += 1
        return self._ids.given + self._never_taken - 1

    def put_accepted(self, batch: Acceptances) -> None:
        """Pack acceptances at once, while they are still in the processor's cache."""
        if self.kept:
            self._next.accepted.append(pack(batch, self._ids))
        self.tell()

    def tell(self) -> None:
        """Send a message soon; called at every change of the run."""
        super().tell()
        if self._timer is None:
            pause = 0.0 if self._run.life is Life.OVER else _PAUSE[not self.kept]
            self._timer = asyncio.get_running_loop().call_later(pause, self._tell)

    def _tell(self) -> None:
        self._timer = None
        what, self._next = self._next, Settled(self._run.tally.counts)
        if not self.kept:  # otherwise they are among the outcomes
            what.drops = self._drops.copy()
        self._drops.clear()
        write(self._writer, what)
        if self._run.life is Life.OVER:
            self.over.set()


async def _main(descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor))
    data = await read(reader)
    if not data:
        return
    setup = decode_order(data)
    assert isinstance(setup, Setup)  # noqa: S101 - it is what the other side sends first
    host, port, ca_file = setup.endpoint
    ids = RequestIds(lambda _size: setup.ids)
    client = Client(
        LentKey(setup.key_id, setup.team_id, setup.provider_tokens),
        bundle_id=setup.bundle_id,
        environment=Endpoint(host, port, ca_file),
        proxy=setup.proxy,
        pool=setup.options,
        never_index_authorization=setup.never_index,
        request_ids=ids,
    )
    left = None if setup.deadline is None else max(0.001, setup.deadline - monotonic())
    fed = _Fed()
    tokens: Any = fed
    drops: list[Outcome] = []
    async with client:
        message = client.prepare(setup.message)
        run = client.fan_out(message, tokens, deadline=left, drops_to=drops.append)
        run.outbox = teller = _Teller(run, ids, writer, drops, rows=setup.rows)
        run.start()
        listening = asyncio.create_task(_listen(reader, fed, run))
        await teller.over.wait()
        listening.cancel()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()  # until all messages are sent


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
