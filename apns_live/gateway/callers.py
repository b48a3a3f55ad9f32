"""Who calls in a vendor's dialect, and whom that call would reach: the same for every dialect."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sqlalchemy import exists, select
from starlette.requests import Request

from ..activities.accept.streams import nobody_left
from ..activities.apps import App
from ..activities.requests.audience import Audience
from ..activities.store import schema
from ..errors import NotFound
from .keys import ApiKey
from .reach import check_activity
from .scopes import Dialect

if TYPE_CHECKING:
    from .context import Gateway


def address_of(request: Request) -> str:
    """Return the address of the peer; of a proxy if there is one in between."""
    return "" if request.client is None else request.client.host


def secret_of(request: Request, schemes: Collection[str]) -> str:
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
