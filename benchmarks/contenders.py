"""The senders that are compared, each run in a process of its own.

``python -m benchmarks.contenders NAME --port P --ca FILE --count N`` connects, sends a few pushes to
warm up, sends N, and prints one JSON line: pushes, seconds of wall and of CPU, and how many failed.
Everything before the first timed push (imports, TLS, first connection) is outside the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

BODY_BYTES = 350
BUNDLE_ID = "com.example.scores"
TOPIC = f"{BUNDLE_ID}.push-type.liveactivity"
TEAM_ID, KEY_ID = "DEF123GHIJ", "ABC123DEFG"
WARM_UP = 200
CONCURRENT = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Where to send, how many, and with what body size in bytes."""

    port: int
    ca_file: str
    count: int
    body_bytes: int = BODY_BYTES
    concurrent: int = CONCURRENT
    connections: int = 1


@dataclass(slots=True)
class Result:
    """What one run took. ``wall`` and ``cpu`` are seconds; ``cpu`` is user and system together."""

    count: int
    wall: float
    cpu: float
    failed: int = 0
    note: str = ""


def _key_pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def token_of(number: int) -> str:
    """Return the device token with this number: 64 hex digits, no two alike."""
    return f"{number:064x}"


def tokens(begin: int, count: int) -> Iterator[str]:
    """Yield ``count`` tokens that are made as they are asked for."""
    return (f"{number:064x}" for number in range(begin, begin + count))


def padded_state(measure: Callable[[dict[str, Any]], int], size: int) -> dict[str, Any]:
    """Return a content state with which ``measure`` gives exactly ``size`` bytes."""
    state: dict[str, Any] = {"home": 71, "away": 68, "clock": "Q3 04:12", "pad": ""}
    missing = size - measure(state)
    if missing < 0:
        raise ValueError(f"a body of {size} bytes is too small")
    state["pad"] = "x" * missing
    return state


def live_activity_json(state: dict[str, Any]) -> dict[str, Any]:
    """Return an update's payload as the other senders are given it."""
    return {"aps": {"timestamp": 1_700_000_000, "event": "update", "content-state": state}}


def ready_body(size: int) -> bytes:
    """Return an update's payload of exactly ``size`` bytes."""

    def encoded(state: dict[str, Any]) -> bytes:
        return json.dumps(live_activity_json(state), separators=(",", ":")).encode()

    return encoded(padded_state(lambda state: len(encoded(state)), size))


class Watch:
    """Wall and CPU time of this process between ``with`` and its end."""

    wall = cpu = 0.0

    def __enter__(self) -> Watch:
        self.wall, self.cpu = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall += time.perf_counter()
        self.cpu += time.process_time()


# --- ours


def our_client(plan: Plan) -> Any:
    """Return our client, pointed at the server, with everything on as a user has it."""
    from apns_live import Client, Endpoint, ProviderKey

    key = ProviderKey.from_pem(_key_pem(), key_id=KEY_ID, team_id=TEAM_ID)
    endpoint = Endpoint("localhost", plan.port, ca_file=plan.ca_file)
    return Client(key, bundle_id=BUNDLE_ID, environment=endpoint, max_connections=plan.connections)


def our_update(size: int) -> Any:
    """Return an update whose encoded body has exactly ``size`` bytes."""
    from apns_live import Update
    from apns_live.payload import encode

    def measure(state: dict[str, Any]) -> int:
        return len(encode(Update(content_state=state, priority=10), now=time.time()).body)

    return Update(content_state=padded_state(measure, size), priority=10)


async def our_fan_out(plan: Plan) -> Result:
    """One fan_out; the caller iterates the outcomes."""
    update, failed = our_update(plan.body_bytes), 0
    async with our_client(plan) as client:
        async with client.fan_out(update, tokens(0, WARM_UP)) as run:
            async for _ in run:
                pass
        with Watch() as watch:
            async with client.fan_out(update, tokens(WARM_UP, plan.count)) as run:
                async for outcome in run:
                    if not outcome.accepted:
                        failed += 1
    return Result(plan.count, watch.wall, watch.cpu, failed)


async def _concurrently(plan: Plan, send: Callable[[str], Awaitable[bool]]) -> Result:
    failed = 0

    async def worker(source: Iterator[str]) -> None:
        nonlocal failed
        for token in source:
            if not await send(token):
                failed += 1

    async def all_of(source: Iterator[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(plan.concurrent):
                group.create_task(worker(source))

    await send(token_of(0))
    await all_of(tokens(1, WARM_UP))
    failed = 0
    with Watch() as watch:
        await all_of(tokens(WARM_UP + 1, plan.count))
    return Result(plan.count, watch.wall, watch.cpu, failed)


async def our_send(plan: Plan) -> Result:
    """``client.send`` from many tasks at once."""
    update = our_update(plan.body_bytes)
    async with our_client(plan) as client:

        async def send(token: str) -> bool:
            accepted: bool = (await client.send(update, token)).accepted
            return accepted

        return await _concurrently(plan, send)


# --- others


async def aioapns_send(plan: Plan) -> Result:
    """Send with aioapns, one connection. It finds answers by their apns-id, which must be echoed."""
    from aioapns import APNs, NotificationRequest, PushType

    def measure(state: dict[str, Any]) -> int:
        return len(json.dumps(live_activity_json(state), ensure_ascii=False).encode())

    message = live_activity_json(padded_state(measure, plan.body_bytes))
    context = ssl.create_default_context(cafile=plan.ca_file)
    context.set_alpn_protocols(["h2"])  # APNs speaks HTTP/2 without being asked; nginx does not
    sender = APNs(
        key=_key_pem().decode(),
        key_id=KEY_ID,
        team_id=TEAM_ID,
        topic=TOPIC,
        max_connections=plan.connections,
        ssl_context=context,
    )
    kind = sender.pool.protocol_class
    sender.pool.protocol_class = type(
        "Local", (kind,), {"APNS_SERVER": "localhost", "APNS_PORT": plan.port}
    )

    async def send(token: str) -> bool:
        request = NotificationRequest(
            device_token=token, message=message, priority=10, push_type=PushType.LIVEACTIVITY
        )
        successful: bool = (await sender.send_notification(request)).is_successful
        return successful

    result = await _concurrently(plan, send)
    sender.pool.close()
    return result


async def httpx_send(plan: Plan) -> Result:
    """Send with httpx over HTTP/2, one connection, 100 streams (its own bound)."""
    import httpx

    body = ready_body(plan.body_bytes)
    headers = {
        "authorization": "bearer " + "x" * 180,
        "apns-topic": TOPIC,
        "apns-push-type": "liveactivity",
        "apns-priority": "10",
        "apns-expiration": "0",
    }
    limits = httpx.Limits(max_connections=plan.connections)
    context = ssl.create_default_context(cafile=plan.ca_file)
    async with httpx.AsyncClient(
        http1=False, http2=True, verify=context, limits=limits, timeout=60, headers=headers
    ) as client:

        async def send(token: str) -> bool:
            response = await client.post(
                f"https://localhost:{plan.port}/3/device/{token}",
                content=body,
                headers={"apns-id": str(uuid.uuid4())},
            )
            return response.status_code == 200

        return await _concurrently(plan, send)


CONTENDERS: dict[str, Callable[[Plan], Awaitable[Result]]] = {
    "fan_out": our_fan_out,
    "send": our_send,
    "aioapns": aioapns_send,
    "httpx": httpx_send,
}


def h2load_command(h2load: str, plan: Plan, body_file: Path, streams: int) -> list[str]:
    """Return the h2load command that sends the same bodies with the same headers."""
    headers = [
        "authorization: bearer " + "x" * 180,
        f"apns-topic: {TOPIC}",
        "apns-push-type: liveactivity",
        "apns-priority: 10",
        "apns-expiration: 0",
        f"apns-id: {uuid.UUID(int=1)}",
    ]
    options = [f"-c{plan.connections}", f"-m{streams}", f"-n{plan.count}", f"-d{body_file}"]
    options += [part for header in headers for part in ("-H", header)]
    return [h2load, *options, f"https://localhost:{plan.port}/3/device/{token_of(1)}"]


def main() -> int:
    """Run one contender and print its result as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(CONTENDERS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--body-bytes", type=int, default=BODY_BYTES)
    parser.add_argument("--concurrent", type=int, default=CONCURRENT)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--profile", help="write a cProfile file here (the figures then are off)")
    given = parser.parse_args()
    plan = Plan(
        given.port, given.ca, given.count, given.body_bytes, given.concurrent, given.connections
    )
    if given.profile:
        import cProfile

        with cProfile.Profile() as profile:
            result = asyncio.run(_await(CONTENDERS[given.name](plan)))
        profile.dump_stats(given.profile)
    else:
        result = asyncio.run(_await(CONTENDERS[given.name](plan)))
    print(json.dumps(asdict(result)))
    return 0


async def _await(result: Awaitable[Result]) -> Result:
    return await result


def write_body(size: int) -> Path:
    """Write a body of this size into a temporary file for h2load; the caller removes it."""
    handle, name = tempfile.mkstemp(prefix="apns-live-body-")
    with os.fdopen(handle, "wb") as file:
        file.write(ready_body(size))
    return Path(name)


if __name__ == "__main__":
    raise SystemExit(main())
