"""``apns-live channels``: create, list, show and delete broadcast channels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import typer

from .options import CONNECTION, Shared, command, group

if TYPE_CHECKING:
    from ..channels import BroadcastChannel, Channels

app = group("Create, list, show and delete broadcast channels.")

_POLICIES = {
    None: "storage policy unknown",
    0: "stores nothing (policy 0)",
    1: "stores the newest message (policy 1)",
}
_CHANNEL = "CHANNEL: Channel id."


@app.command("create")
@command(
    CONNECTION,
    "--storage-policy 0|1: 1 stores the newest message for 8 hours, 0 stores nothing. Permanent.",
)
def create(shared: Shared, storage_policy: int = 1) -> int:
    """Create a channel and print its id."""
    channel = _with_channels(shared, lambda channels: channels.create(storage_policy))
    shared.screen.answer(_as_json(channel), str(channel))
    return 0


@app.command("list")
@command(CONNECTION, "--details: Also read the storage policy of each channel.")
def list_channels(shared: Shared, details: bool = False) -> int:
    """Print every channel of the app in this environment, one per line."""

    async def look(channels: Channels) -> list[BroadcastChannel]:
        found = await channels.list()
        return [await channels.read(channel) for channel in found] if details else found

    found = _with_channels(shared, look)
    lines = [f"{one}  {_POLICIES[one.storage_policy]}" if details else one for one in found]
    shared.screen.lines({"channels": [_as_json(channel) for channel in found]}, lines)
    return 0


@app.command("show")
@command(CONNECTION, _CHANNEL)
def show(shared: Shared, channel: str) -> int:
    """Print a channel's storage policy."""
    found = _with_channels(shared, lambda channels: channels.read(channel))
    shared.screen.answer(_as_json(found), f"{found}  {_POLICIES[found.storage_policy]}")
    return 0


@app.command("delete")
@command(CONNECTION, _CHANNEL, "--yes -y: Do not ask for confirmation.")
def delete(shared: Shared, channel: str, yes: bool = False) -> int:
    """Delete a channel. It cannot be restored. Succeeds if the channel does not exist."""
    if not yes and not shared.screen.json_mode:
        typer.confirm(f"Delete {channel}? It cannot be restored.", abort=True, err=True)
    deleted = _with_channels(shared, lambda channels: channels.delete(channel))
    shared.screen.answer(
        {"channel": channel, "deleted": deleted}, "deleted" if deleted else "already gone"
    )
    return 0


def _with_channels(shared: Shared, work: Callable[[Channels], Awaitable[Any]]) -> Any:
    settings = shared.settings()

    async def run() -> Any:
        async with settings.client() as client:
            return await work(client.channels)

    return asyncio.run(run())


def _as_json(channel: BroadcastChannel) -> dict[str, Any]:
    shown: dict[str, Any] = {"channel": str(channel)}
    if channel.storage_policy is not None:
        shown["storage_policy"] = channel.storage_policy
    return shown
