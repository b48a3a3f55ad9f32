"""``apns-live send``: one push to one token."""

from __future__ import annotations

import asyncio
import shlex
import time
from typing import TYPE_CHECKING, Any

from ..outcome import Outcome
from ..settings import Settings
from .options import CONNECTION, MESSAGE, Shared, command
from .output import Screen, exit_code_for, outcome_as_json, outcome_as_text

if TYPE_CHECKING:
    from ..payload import EncodedMessage


@command(
    MESSAGE,
    CONNECTION,
    """
    TOKEN: Start, activity or device token, in hex.
    --deadline SECONDS: Seconds for the push with its retries.
    --as-curl: Print the push as a curl command instead of sending it.
    --show-secrets: With --as-curl: print device token and provider token.
    """,
)
def send(
    shared: Shared,
    token: str,
    deadline: float | None = None,
    as_curl: bool = False,
    show_secrets: bool = False,
) -> int:
    """Send one push to one token and print its outcome."""
    from ..payload import check_token, encode
    from .messages import message_from

    message = message_from(shared.message)
    settings = shared.settings()
    encoded = encode(message, now=time.time())
    check_token(token, message=message)
    if as_curl:
        text = _as_curl(encoded, token, settings, show_secrets=show_secrets)
        shared.screen.answer({"command": text}, text)
        return 0
    check_deadline(deadline)
    show_warnings(shared.screen, encoded)
    outcome = asyncio.run(_send(settings, message, token, deadline))
    shared.screen.answer(outcome_as_json(outcome), outcome_as_text(outcome))
    return exit_code_for(outcome)


async def _send(settings: Settings, message: Any, token: str, deadline: float | None) -> Outcome:
    async with settings.client() as client:
        return await client.send(message, token, deadline=deadline)


def _as_curl(encoded: EncodedMessage, token: str, settings: Settings, *, show_secrets: bool) -> str:
    """Return a push as a curl command, as Apple's Push Notifications Console prints it.

    Device token and provider token are placeholders unless asked for.
    """
    from ..clock import SystemClock
    from ..credentials import ProviderTokens
    from ..payload import check_bundle_id
    from ..pool.endpoint import resolve_environment

    arguments = settings.client_arguments()
    endpoint = resolve_environment(arguments["environment"])
    bundle_id = check_bundle_id(arguments["bundle_id"])
    bearer = ProviderTokens(arguments["key"], SystemClock()).current().value.decode("ascii")
    headers = {
        "authorization": bearer if show_secrets else "bearer $PROVIDER_TOKEN",
        **encoded.headers(bundle_id),
    }
    authority = endpoint.authority.decode("ascii")
    target = token if show_secrets else "$DEVICE_TOKEN"
    parts = ["curl --http2"]
    if endpoint.ca_file is not None:
        parts.append(f"--cacert {shlex.quote(str(endpoint.ca_file))}")
    for name, value in headers.items():
        # Placeholders are the shell's own variables, so those stand in double quotes.
        text = f"{name}: {value}"
        quoted = f'"{text}"' if "$PROVIDER_TOKEN" in value else shlex.quote(text)
        parts.append(f"--header {quoted}")
    parts.append(f"--data-binary {shlex.quote(encoded.body.decode('utf-8'))}")
    parts.append(f'"https://{authority}/3/device/{target}"')
    return " \\\n  ".join(parts)


def check_deadline(deadline: float | None) -> None:
    """Refuse a deadline that is not a valid number of seconds."""
    from ..errors import InvalidSetting

    if deadline is not None and not 0 < deadline < 86_400 * 366:
        raise InvalidSetting(
            f"{deadline:g} is not a valid time to wait",
            field="--deadline",
            remedy="Give seconds, more than 0.",
        )


def show_warnings(screen: Screen, encoded: Any) -> None:
    """Say on stderr what Apple would silently ignore."""
    for warning in encoded.warnings:
        screen.note(f"warning: {warning}")
