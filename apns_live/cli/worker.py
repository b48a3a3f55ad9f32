"""``apns-live worker``: sends what gateways accept, without an HTTP API."""

from __future__ import annotations

import asyncio
from typing import Any

from .gateway import loop_factory, stopping
from .gateway_settings import Tuned
from .options import SENDING, Shared, command
from .store_access import STORE, address, installed, sealer, shown_address


@command(STORE, SENDING)
def worker(shared: Shared, store: str | None = None) -> int:
    """Send what gateways accepted, until SIGTERM or SIGINT.

    Over PostgreSQL several workers share the work. Prints the database and the apps when it is ready.
    """
    with installed():
        import apns_live.activities.service  # noqa: F401 - to say at once which part is missing

    tuned = Tuned(shared.arguments)
    tuned.configure_logs()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work(address(store), tuned, shared.screen.facts))
    return 0


async def _work(where: str, tuned: Tuned, ready: Any) -> None:
    from ..activities import Service

    async with (
        Service.open(
            where, sealing=sealer(), settings=tuned.service(), endpoints=tuned.endpoints()
        ) as service,
        stopping() as stop,
    ):
        apps = [one.id for one in await service.apps.list()]
        ready({"database": shown_address(service.database), "apps": apps})
        await stop.wait()
