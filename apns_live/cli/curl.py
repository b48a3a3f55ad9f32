"""Print a push as a curl command, as Apple's Push Notifications Console does."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ..settings import Settings

if TYPE_CHECKING:
    from ..payload import EncodedMessage


def curl_command(
    encoded: EncodedMessage, token: str, settings: Settings, *, show_secrets: bool
) -> str:
    """Return the command; device token and provider token are placeholders unless asked for."""
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
        "apns-topic": bundle_id + encoded.topic_suffix,
        "apns-push-type": encoded.push_type,
        "apns-priority": str(encoded.priority),
        "apns-expiration": str(encoded.expiration),
    }
    if encoded.collapse_id is not None:
        headers["apns-collapse-id"] = encoded.collapse_id
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
