"""``apns-live send``, ``broadcast`` and ``channels``: one push to a token or a channel, and the channels."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import typer

from ..clock import SystemClock
from ..errors import InvalidSetting
from ..outcome import Outcome
from ..payload import check_bundle_id, check_token, encode
from ..settings import Settings
from .messages import message_from
from .options import CONNECTION, MESSAGE, Shared, command, group
from .output import Screen, exit_code_for, outcome_as_json, outcome_as_text

if TYPE_CHECKING:
    from ..channels import BroadcastChannel, Channels
    from ..client import Client
    from ..payload import EncodedMessage

channels = group("Create, list, show and delete broadcast channels.")

_POLICIES = {
    None: "storage policy unknown",
    0: "stores nothing (policy 0)",
    1: "stores the newest message (policy 1)",
}
_CHANNEL = "CHANNEL: Channel id."


@command(
    """
    TOKEN: Start, activity or device token, in hex.
    --deadline SECONDS: Seconds for the push with its retries.
    --as-curl: Print the push as a curl command instead of sending it.
    --show-secrets: With --as-curl: print device token and provider token.
    """,
    MESSAGE,
    CONNECTION,
)
def send(
    shared: Shared,
    token: str,
    deadline: float | None = None,
    as_curl: bool = False,
    show_secrets: bool = False,
) -> int:
    """Send one push to one token and print its outcome."""
    message = message_from(shared.message)
    settings = shared.settings()
    encoded = encode(message, now=time.time())
    check_token(token, message=message)
    if as_curl:
        text = _as_curl(encoded, token, settings, show_secrets=show_secrets)
        shared.answer({"command": text}, text)
        return 0
    check_push(shared, encoded, deadline)
    return _pushed(shared, settings, lambda client: client.send(message, token, deadline=deadline))


@command(
    """
    CHANNEL: Channel id.
    --deadline SECONDS: Seconds for the push with its retries.
    --storage-policy 0|1: The channel's storage policy. [read from APNs]
    """,
    MESSAGE,
    CONNECTION,
)
def broadcast(
    shared: Shared, channel: str, deadline: float | None = None, storage_policy: int | None = None
) -> int:
    """Send an update or an end to all subscribers of a channel."""
    from ..channels import BroadcastChannel

    message = message_from(shared.message)
    if storage_policy not in (None, 0, 1):
        problem = f"{storage_policy} is not a valid storage policy"
        raise InvalidSetting(problem, "--storage-policy", "Use 0 or 1.")
    target = BroadcastChannel(channel, storage_policy=storage_policy)
    encoded = encode(message, now=time.time(), target="broadcast", storage_policy=storage_policy)
    settings = shared.settings()
    check_push(shared, encoded, deadline)

    async def push(client: Client) -> Outcome:
        # The expiration header depends on the policy, and APNs refuses a wrong one.
        known = target if storage_policy is not None else await client.channels.read(target)
        return await client.broadcast(message, known, deadline=deadline)

    return _pushed(shared, settings, push)


def _pushed(
    shared: Shared, settings: Settings, push: Callable[[Client], Awaitable[Outcome]]
) -> int:
    """Send one push, print its outcome, and return the exit code."""
    outcome = _with_client(settings, push)
    shared.answer(outcome_as_json(outcome), outcome_as_text(outcome))
    return exit_code_for(outcome)


def _with_client(settings: Settings, work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with settings.client() as client:
            return await work(client)

    return asyncio.run(run())


def _as_curl(encoded: EncodedMessage, token: str, settings: Settings, *, show_secrets: bool) -> str:
    """Return a push as a curl command, as Apple's Push Notifications Console prints it.

    Device token and provider token are shell variables unless ``show_secrets``.
    """
    from ..credentials import ProviderTokens
    from ..pool.endpoint import resolve_environment

    arguments = settings.client_arguments()
    endpoint = resolve_environment(arguments["environment"])
    bundle_id = check_bundle_id(arguments["bundle_id"])
    bearer = ProviderTokens(arguments["key"], SystemClock()).current().value.decode("ascii")
    authorization = bearer if show_secrets else "bearer $PROVIDER_TOKEN"
    headers = {"authorization": authorization, **encoded.headers(bundle_id)}
    parts = ["curl --http2"]
    if endpoint.ca_file is not None:
        parts.append(f"--cacert {shlex.quote(str(endpoint.ca_file))}")
    for name, value in headers.items():
        text = f"{name}: {value}"
        # The shell replaces a variable only inside double quotes.
        quoted = f'"{text}"' if "$PROVIDER_TOKEN" in value else shlex.quote(text)
        parts.append(f"--header {quoted}")
    parts.append(f"--data-binary {shlex.quote(encoded.body.decode('utf-8'))}")
    authority, target = endpoint.authority.decode(), token if show_secrets else "$DEVICE_TOKEN"
    parts.append(f'"https://{authority}/3/device/{target}"')
    return " \\\n  ".join(parts)


def check_push(screen: Screen, encoded: EncodedMessage, deadline: float | None) -> None:
    """Print warnings about fields that Apple would silently ignore to stderr.

    Raises `InvalidSetting` for a deadline that is not a valid number of seconds.
    """
    if deadline is not None and not 0 < deadline < 86_400 * 366:
        problem = f"{deadline:g} is not a valid time to wait"
        raise InvalidSetting(problem, "--deadline", "Give seconds, more than 0.")
    for warning in encoded.warnings:
        screen.note(f"warning: {warning}")


# --- channels


@channels.command("create")
@command(
    "--storage-policy 0|1: 1 stores the newest message for 8 hours, 0 stores nothing. Permanent.",
    CONNECTION,
)
def create(shared: Shared, storage_policy: int = 1) -> None:
    """Create a channel and print its id."""
    channel = _on_channels(shared, lambda found: found.create(storage_policy))
    shared.answer(_as_json(channel), str(channel))


@channels.command("list")
@command("--details: Also read the storage policy of each channel.", CONNECTION)
def list_channels(shared: Shared, details: bool = False) -> None:
    """Print every channel of the app in this environment, one per line."""

    async def look(channels: Channels) -> list[BroadcastChannel]:
        found = await channels.list()
        return [await channels.read(channel) for channel in found] if details else found

    found = _on_channels(shared, look)
    lines = [f"{one}  {_POLICIES[one.storage_policy]}" if details else one for one in found]
    shared.answer({"channels": [_as_json(channel) for channel in found]}, *lines)


@channels.command("show")
@command(_CHANNEL, CONNECTION)
def show(shared: Shared, channel: str) -> None:
    """Print a channel's storage policy."""
    found = _on_channels(shared, lambda channels: channels.read(channel))
    shared.answer(_as_json(found), f"{found}  {_POLICIES[found.storage_policy]}")


@channels.command("delete")
@command(_CHANNEL, "--yes -y: Do not ask for confirmation.", CONNECTION)
def delete(shared: Shared, channel: str, yes: bool = False) -> None:
    """Delete a channel. It cannot be restored. Succeeds if the channel does not exist."""
    if not yes and not shared.json_mode:
        typer.confirm(f"Delete {channel}? It cannot be restored.", abort=True, err=True)
    deleted = _on_channels(shared, lambda channels: channels.delete(channel))
    said = "deleted" if deleted else "already gone"
    shared.answer({"channel": channel, "deleted": deleted}, said)


def _on_channels(shared: Shared, work: Callable[[Channels], Awaitable[Any]]) -> Any:
    return _with_client(shared.settings(), lambda client: work(client.channels))


def _as_json(channel: BroadcastChannel) -> dict[str, Any]:
    shown: dict[str, Any] = {"channel": str(channel)}
    if channel.storage_policy is not None:
        shown["storage_policy"] = channel.storage_policy
    return shown
