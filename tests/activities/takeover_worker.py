"""A process of the takeover test: sends for a database until it is killed, or its standard input closes.

``python -m tests.activities.takeover_worker PLAN.json`` prints a line when it serves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from apns_live import Endpoint
from apns_live.activities import Sealer, Service, ServiceSettings


async def serve(plan: dict[str, Any]) -> None:
    endpoint = Endpoint(**plan["endpoint"])
    async with Service.open(
        plan["address"],
        sealing=Sealer(plan["sealing"]),
        settings=ServiceSettings(lease=plan["lease"], drain=0.0, client={"max_connections": 2}),
        endpoints={"production": endpoint, "sandbox": endpoint},
    ):
        print("serving", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(json.loads(Path(sys.argv[1]).read_text())))
