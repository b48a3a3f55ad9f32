"""The two programs of the kill test: a fake APNs that writes down every token, and a sender.

``python -m tests.delivery.crash_roles fake LOG``: prints one JSON line when ready, serves until killed.
``python -m tests.delivery.crash_roles send READY JOURNAL COUNT``: sends the fan-out, resumed from the
journal; prints a JSON line when it has looked at the journal, and one at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from apns_live import Alert, Client, Endpoint, ProviderKey, Start
from apns_live.delivery import Delivery, SqliteJournal
from apns_live.outcome import Verdict
from apns_live.testing import FakeApns
from apns_live.testing.state import LIVE, Push, TokenStatus

STREAMS = 500
NAME = "kickoff"


def token(number: int) -> str:
    return f"{number:064x}"


class WritingPhones:
    """Writes the token of every accepted push to a file, at once."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def receive(self, push: Push) -> None:
        os.write(self._file, push.token.encode() + b"\n")

    def receive_broadcast(self, push: Push) -> None:
        raise NotImplementedError

    def token_status(self, token: str, topic: str) -> TokenStatus:
        return LIVE


async def serve(path: str) -> None:
    async with FakeApns(
        phones=WritingPhones(path), max_streams=STREAMS, latency=0.02, spread=0.02
    ) as fake:
        ready = {
            "endpoint": fake.endpoint._asdict(),
            "key_file": str(fake.key_file),
            "team_id": fake.team_id,
            "bundle_id": fake.bundle_id,
        }
        print(json.dumps(ready), flush=True)
        await asyncio.Event().wait()


async def send(ready: str, journal: str, count: int) -> None:
    where = json.loads(ready)
    key = ProviderKey.from_file(where["key_file"], team_id=where["team_id"])
    client = Client(
        key,
        bundle_id=where["bundle_id"],
        environment=Endpoint(**where["endpoint"]),
        max_connections=1,
    )
    start = Start(
        content_state={"home": 0, "away": 0},
        attributes_type="MatchAttributes",
        attributes={},
        alert=Alert(title="Kick-off", body="It begins"),
        expiration=int(1e10),
    )
    async with client, Delivery(client, journal=SqliteJournal(Path(journal))) as delivery:
        run = delivery.fan_out(start, map(token, range(count)), name=NAME)
        waiting = asyncio.ensure_future(run.wait())
        # The journal is understood once the run has something to send with.
        while run._sendable is None and not waiting.done():
            await asyncio.sleep(0)
        begun = run.report
        print(json.dumps({"unknown": begun.counts.get(Verdict.UNKNOWN, 0)}), flush=True)
        report = await waiting
        counts = {verdict.value: number for verdict, number in report.counts.items()}
        print(json.dumps({"counts": counts, "finished": report.finished}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "fake":
        asyncio.run(serve(sys.argv[2]))
    else:
        asyncio.run(send(sys.argv[2], sys.argv[3], int(sys.argv[4])))
