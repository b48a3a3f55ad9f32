"""The two servers that the load is put on, each in a process of its own: gateway, or empty route.

``python -m benchmarks.gateway_servers KIND DIRECTORY [PORT CA_FILE KEY_FILE KEY_ID TEAM_ID [CERTIFICATE KEY]]``
prints one JSON line when it is ready and serves until SIGTERM. With a certificate and its key
it serves TLS on localhost, and the line holds a service account too.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

APP = "bench"
BUNDLE_ID = "com.example.demo"
TYPE = "DemoAttributes"


async def _serve(app: Any, facts: dict[str, Any], *files: str) -> None:
    from apns_live.gateway.serving import calm_collector, serving
    from apns_live.gateway.wire.certificates import Certificates

    host, served = "127.0.0.1", None
    if files:
        host, served = "localhost", Certificates(Path(files[0]), Path(files[1]))

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with serving(app, host=host, certificates=served, drain=1.0) as url:
        with calm_collector():
            print(json.dumps({"url": url, **facts}), flush=True)
            await stop.wait()


async def empty() -> None:
    """Serve a FastAPI app whose one route parses the body and answers."""
    from fastapi import Body, FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/v1/activities/{activity}/update", status_code=202)
    async def update(activity: str, body: dict[str, Any] = Body()) -> dict[str, Any]:  # noqa: B008
        return {"operation": "", "activity": activity, "status": "accepted", "version": len(body)}

    await _serve(app, {})


async def gateway(directory: Path, apns: list[str]) -> None:
    """Serve the gateway as the command does, over SQLite in the directory."""
    from apns_live import Endpoint
    from apns_live.activities import Service
    from apns_live.activities.store.database import Database
    from apns_live.activities.store.upgrade import upgrade
    from apns_live.errors import NotFound
    from apns_live.gateway import Keys, create_app
    from apns_live.gateway.scopes import ALL, SENDING

    port, ca_file, key_file, key_id, team_id, *certificates = apns
    endpoint = Endpoint("localhost", int(port), ca_file=ca_file)
    async with Database.open(directory / "live.db") as database:
        await upgrade(database)
        from apns_live.cli.gateway import embedded_sealer

        async with Service.open(
            database,
            sealing=embedded_sealer(directory),
            endpoints={"production": endpoint, "sandbox": endpoint},
        ) as service:
            try:
                app = await service.apps.get(APP)
            except NotFound:
                app = await service.apps.create(
                    id=APP, name=APP, bundle_id=BUNDLE_ID, environment="sandbox"
                )
                await service.apps.add_key(
                    app,
                    Path(key_file).read_text(),  # noqa: ASYNC240 - before anything runs
                    key_id=key_id,
                    team_id=team_id,
                    environment="any",
                )
            keys = Keys(database, service.clock, service.new_id)
            _, secret = await keys.create(app, scopes=ALL, name="bench")
            facts: dict[str, Any] = {"key": secret}
            if certificates:
                _, text = await keys.create(app, dialect="fcm", scopes=SENDING, name="bench")
                facts["account"] = json.loads(text)
            await _serve(create_app(service), facts, *certificates)


if __name__ == "__main__":
    from apns_live.cli.gateway import loop_factory
    from apns_live.gateway.serving import raise_descriptor_limit

    raise_descriptor_limit()
    work = empty() if sys.argv[1] == "empty" else gateway(Path(sys.argv[2]), sys.argv[3:10])
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work)
