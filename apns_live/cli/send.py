"""``apns-live send``: one push to one token."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..outcome import Outcome
from ..settings import Settings
from .options import CONNECTION, MESSAGE, Shared, command
from .output import Screen, exit_code_for, outcome_as_json, outcome_as_text


@command(
    MESSAGE,
    CONNECTION,
    """
    TOKEN: Start, activity or device token, in hex.
    --deadline SECONDS: Seconds until it is given up.
    --as-curl: Print the same push as a curl command; send nothing.
    --show-secrets: With --as-curl: print device and provider token.
    """,
)
def send(
    shared: Shared,
    token: str,
    deadline: float | None = None,
    as_curl: bool = False,
    show_secrets: bool = False,
) -> int:
    """Send one push to one token and say what became of it."""
    from ..payload import check_token, encode
    from .messages import message_from

    message = message_from(shared.message)
    settings = shared.settings()
    encoded = encode(message, now=time.time())
    check_token(token, message=message)
    if as_curl:
        from .curl import curl_command

        text = curl_command(encoded, token, settings, show_secrets=show_secrets)
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
