"""Who calls in a vendor's dialect, and whom that call would reach: the same for every dialect."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from sqlalchemy import exists, select
from starlette.requests import Request
from starlette.responses import Response

from ..activities.accept.idempotency import Key
from ..activities.accept.streams import nobody_left
from ..activities.apps import App
from ..activities.requests.audience import Audience
from ..activities.store import schema
from ..errors import GatewayError, InvalidInput, NotFound
from .credentials import Phone
from .keys import ApiKey
from .reach import check_activity
from .scopes import Dialect

if TYPE_CHECKING:
    from .context import Gateway

logger = logging.getLogger("apns_live.gateway")

Endpoint = Callable[[Request], Awaitable[Response]]
Refuse = Callable[[Exception], Response]
"""How a dialect answers an error."""


def address_of(request: Request) -> str:
    """Return the address of the peer; of a proxy if there is one in between."""
    return "" if request.client is None else request.client.host


def secret_of(request: Request, schemes: Collection[str] = ("bearer",)) -> str:
    """Return what follows one of the schemes (in small letters) in ``Authorization``, or nothing."""
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if scheme.lower() in schemes else ""


async def find_caller(
    gateway: Gateway, request: Request, dialect: Dialect, schemes: Collection[str] = ("bearer",)
) -> ApiKey | None:
    """Return the key of a request, or None if there is none, or it is not of this dialect.

    An address that keeps trying keys is slowed down: `TooManyRequests`.
    """
    secret = secret_of(request, schemes)
    key = await gateway.keys.find(secret) if secret else None
    if key is None or key.dialect != dialect:
        refuse(gateway, request)
        return None
    return key


def refuse(gateway: Gateway, request: Request) -> None:
    """Count a refusal of an address. Raises `TooManyRequests` after too many a minute."""
    who = f"refused {address_of(request)}"
    with gateway.limits.enter_as(who, gateway.settings.refused_per_minute):
        return


def guarded(gateway: Gateway, respond: Endpoint, refuse: Refuse) -> Endpoint:
    """Return an endpoint that answers every error in its dialect's shape; a defect is logged too."""

    async def endpoint(request: Request) -> Response:
        try:
            gateway.check_open()
            return await respond(request)
        except Exception as error:
            response = refuse(error)
            if response.status_code == 500 and not isinstance(error, GatewayError):
                # The pattern, never the address: that may be signed.
                path = getattr(request.scope.get("route"), "path", "a call of a dialect")
                logger.exception("%s %s failed", request.method, path)
            return response

    return endpoint


def limited(gateway: Gateway, caller: ApiKey | Phone) -> AbstractContextManager[None]:
    """Count a request of a key or of a phone until the block ends. Raises `TooManyRequests`."""
    if isinstance(caller, ApiKey):
        return gateway.limits.enter(caller)
    who = f"device {caller.app.id} {caller.device}"
    return gateway.limits.enter_as(who, gateway.settings.device_per_minute)


def idempotency_key(request: Request, key: ApiKey, digest: bytes | None = None) -> Key | None:
    """Return the idempotency key of a request, if it has one. Raises `InvalidInput`.

    ``digest`` stands for what was asked, where the service cannot tell that by itself.
    """
    given = request.headers.get("idempotency-key")
    if given is None:
        return None
    # The draft writes a structured field's string, in quotes; many clients write it bare.
    text = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not 1 <= len(text) <= 255 or not text.isprintable() or not text.isascii():
        raise InvalidInput(
            "is not a string of 1 to 255 printable characters",
            field="Idempotency-Key",
            remedy="Give a fresh UUID for each request.",
        )
    return Key(caller=key.caller, key=text, digest=digest)


def is_named(app: App, given: str, setting: str) -> bool:
    """Whether ``given`` is the app's id, or the id that it has at a vendor.

    The setting (``braze_app_id``, ``onesignal_app_id``) is a text or a list of texts, so that a
    server which moved here may keep the id that stands in its code.
    """
    named = app.settings.get(setting, [])
    return given in [app.id, *(named if isinstance(named, list) else [named])]


async def check_id(gateway: Gateway, key: ApiKey, activity: str | None) -> None:
    """Raise `NotFound` if an id is taken by an activity that the key does not reach."""
    if key.groups is None or activity is None:
        return
    try:
        await gateway.service.activities.get(key.app, activity)
    except NotFound:
        return
    await check_activity(gateway, key, activity)


async def knows_type(gateway: Gateway, app: App, attributes_type: str) -> bool:
    """Whether any device ever handed in a push-to-start token for an attributes type."""
    tokens = schema.start_tokens
    query = select(
        exists().where(tokens.c.app_id == app.row, tokens.c.attributes_type == attributes_type)
    )
    async with gateway.service.database.read() as connection:
        return bool((await connection.execute(query)).scalar())


async def is_gone(gateway: Gateway, app: App, activity: str) -> bool:
    """Whether nobody has the card of an activity any more: everyone dismissed it."""
    table = schema.activities
    query = select(table.c.id).where(
        table.c.app_id == app.row, table.c.public_id == activity, nobody_left()
    )
    async with gateway.service.database.read() as connection:
        return (await connection.execute(query)).scalar() is not None


async def reaches_anyone(
    gateway: Gateway, app: App, audience: Audience, attributes_type: str
) -> bool:
    """Whether a start for an audience would reach a device. One row is read, however many there are.

    Raises `InvalidInput` for what the audience names and the app does not have.
    """
    pages = gateway.service.audiences.recipients(
        app, audience, attributes_type=attributes_type, environment=app.environment, page=1
    )
    async for page in pages:
        return bool(page)
    return False
