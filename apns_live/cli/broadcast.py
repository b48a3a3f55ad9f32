"""``apns-live broadcast``: one push to a broadcast channel."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ..outcome import Outcome
from ..settings import Settings
from .options import CONNECTION, MESSAGE, Shared, command
from .output import exit_code_for, outcome_as_json, outcome_as_text
from .send import check_deadline, show_warnings


@command(
    MESSAGE,
    CONNECTION,
    """
    CHANNEL: Channel id.
    --deadline SECONDS: Seconds for the push with its retries.
    --storage-policy 0|1: The channel's storage policy. [read from APNs]
    """,
)
def broadcast(
    shared: Shared, channel: str, deadline: float | None = None, storage_policy: int | None = None
) -> int:
    """Send an update or an end to all subscribers of a channel."""
    from ..channels import BroadcastChannel
    from ..errors import InvalidSetting
    from ..payload import encode
    from .messages import message_from

    message = message_from(shared.message)
    if storage_policy not in (None, 0, 1):
        raise InvalidSetting(
            f"{storage_policy} is not a valid storage policy",
            field="--storage-policy",
            remedy="Use 0 or 1.",
        )
    target = BroadcastChannel(channel, storage_policy=storage_policy)
    encoded = encode(message, now=time.time(), target="broadcast", storage_policy=storage_policy)
    check_deadline(deadline)
    settings = shared.settings()
    show_warnings(shared.screen, encoded)
    outcome = asyncio.run(_broadcast(settings, message, target, deadline))
    shared.screen.answer(outcome_as_json(outcome), outcome_as_text(outcome))
    return exit_code_for(outcome)


async def _broadcast(
    settings: Settings, message: Any, channel: Any, deadline: float | None
) -> Outcome:
    async with settings.client() as client:
        if channel.storage_policy is None:
            # The expiration header depends on it, and a wrong one is refused.
            channel = await client.channels.read(channel)
        return await client.broadcast(message, channel, deadline=deadline)
