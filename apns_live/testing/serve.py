"""``apns-live fake``: the fake APNs as a program, which prints its addresses when it is ready."""

import asyncio
import contextlib
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from .fake import FakeApns
from .faults import parse_duration
from .listener import check_reach


def parse_latency(value: float | str | None) -> tuple[float | None, float | None]:
    """Return latency and spread in seconds from ``40ms`` or ``40ms+10ms``."""
    if value is None:
        return None, None
    if isinstance(value, str) and "+" in value:
        fixed, _, spread = value.partition("+")
        return parse_duration(fixed, "latency"), parse_duration(spread, "latency")
    return parse_duration(value, "latency"), None


async def serve(
    *,
    ready: Callable[[dict[str, Any]], object],
    stop: asyncio.Event,
    host: str = "localhost",
    inspector_port: int | None = 0,
    latency: float | str | None = None,
    token: str | None = None,
    ready_file: Path | None = None,
    **options: Any,
) -> None:
    """Serve until ``stop`` is set.

    ``options`` are further ones of `FakeApns`. ``latency`` is seconds, or text: ``40ms``, or ``40ms+10ms``
    for a fixed part and the mean of a drawn part. ``token`` guards the inspector and the control API,
    and is required on any address that is not this machine's own. ``inspector_port`` None leaves the
    inspector out. ``ready_file`` gets the ready line as JSON once every port listens.

    ``ready`` gets the ready line once every port listens: ``endpoint``, ``manage``, ``ca_file``,
    ``key_file``, ``key_id``, ``team_id``, ``bundle_id``, ``inspector`` (a URL, or None where the
    extra ``fake`` is not installed). Raises FakeError for invalid options.
    """
    check_reach(host, token)
    fixed, spread = parse_latency(latency)
    fake = FakeApns(host=host, latency=fixed, spread=spread, **options)
    before = gc.get_threshold()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(fake)
        inspector = None
        if inspector_port is not None:
            with contextlib.suppress(ImportError):  # starlette and hypercorn: an extra
                from .control import serve_control  # noqa: PLC0415

                control = serve_control(fake, host=host, port=inspector_port, token=token)
                inspector = await stack.enter_async_context(control)
        # A hundred thousand phones are a million long-lived objects with almost no cycles. With the
        # default thresholds the collector would take a third of the time.
        gc.freeze()
        stack.callback(gc.unfreeze)
        gc.set_threshold(100_000, 50, 50)
        stack.callback(gc.set_threshold, *before)
        facts = facts_of(fake, inspector)
        if ready_file is not None:
            # The file appears complete, so that a waiting program can read it at once.
            partial = ready_file.with_name(ready_file.name + ".partial")
            partial.write_bytes(msgspec.json.encode(facts) + b"\n")
            partial.replace(ready_file)
        ready(facts)
        await stop.wait()


def facts_of(fake: FakeApns, inspector: str | None) -> dict[str, Any]:
    """Return the addresses and keys with which a program reaches a running fake."""
    return {
        "endpoint": fake.url,
        "manage": fake.manage_url,
        "ca_file": str(fake.ca_file),
        "key_file": str(fake.key_file),
        "key_id": fake.key_id,
        "team_id": fake.team_id,
        "bundle_id": fake.bundle_id,
        "inspector": inspector,
    }
