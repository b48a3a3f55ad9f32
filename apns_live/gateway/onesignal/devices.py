"""What a phone with OneSignal's SDK says: its tokens, that it left, that a push arrived.

These calls carry no key, so whoever knows an app's id could make them. How they are taken is a
setting of the app, ``onesignal_device_calls``:

- ``off`` (the default): only with an API key, as older server SDKs call them;
- ``signed``: also with a device credential for that very subscription;
- ``open``: also with nothing, for trying things out. Then no call touches a device that has a
  credential of its own, or a token that such a device holds; calls are limited for each address
  and stand in the audit log;
- ``demo``: as ``open``, and for every device. For simulated phones alone.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from starlette.responses import Response

from ...activities import TokenRecord, checks
from ...activities.accept.receipts import ReceiptRecord
from ...activities.apps import App
from ...activities.people.devices import Guard
from ...activities.store import schema
from ...errors import InvalidInput, NotAllowed, NotFound
from ..callers import Endpoint, address_of, is_named, limited, refuse, secret_of
from ..context import Gateway
from ..credentials import HEAD
from . import words
from .answers import answer
from .calls import APP_SETTING, SCHEMES, need, read_body

MODES = ("off", "signed", "open", "demo")
SETTING = "onesignal_device_calls"
MAX_BYTES = 16_384
"""A phone says a token and a few ids, and has shown no key when its body is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCall:
    """What one device says. ``token`` is empty where it says none."""

    gateway: Gateway
    app: App
    subscription: str
    body: Mapping[str, Any]
    parts: Mapping[str, str]
    token: str = ""
    activity: str | None = None
    guard: Guard | None = None
    """Looks in the write's own transaction whether the call may touch this device, where it must."""

    @property
    def now(self) -> int:
        """Milliseconds since 1970."""
        return int(self.gateway.clock.time() * 1000)


Do = Callable[[DeviceCall], Awaitable[None]]


def device_call(
    gateway: Gateway, action: str, do: Do, *, token: str = "", body: bool = True
) -> Endpoint:
    """Return the endpoint of a device's call; ``token`` is the name of the token in its body."""

    async def respond(request: Request) -> Response:
        parts: dict[str, str] = request.path_params
        given = await read_body(gateway, request, limit_bytes=MAX_BYTES) if body else {}
        name = parts.get("app_id") or _text(given, "app_id")
        subscription = parts.get("subscription_id") or _text(
            given, "subscription_id" if token else "player_id"
        )
        app = await _find_app(gateway, name)
        activity = parts.get("activity_id") or given.get("live_activity_id")
        call = DeviceCall(
            gateway=gateway,
            app=app,
            subscription=checks.identifier(subscription, "subscription_id", limit=64),
            body=given,
            parts=parts,
            token=checks.token(given.get(token), token) if token else "",
            activity=activity,
        )
        if await _admit(gateway, request, call, action):
            call = replace(call, guard=functools.partial(_stop_if_owned, call))
        await do(call)
        return answer({"success": True})

    return respond


async def enter(call: DeviceCall) -> None:
    """POST /apps/{app_id}/live_activities/{activity_id}/token."""
    record = TokenRecord(
        device=call.subscription,
        kind="activity",
        scope=call.parts["activity_id"],
        token=call.token,
        registered_at=call.now,
    )
    await call.gateway.service.tokens.register_activity_tokens(call.app, [record], guard=call.guard)


async def leave(call: DeviceCall) -> None:
    """DELETE /apps/{app_id}/live_activities/{activity_id}/token/{subscription_id}."""
    await call.gateway.service.tokens.leave(
        call.app, call.parts["activity_id"], call.subscription, guard=call.guard
    )


async def register_start(call: DeviceCall) -> None:
    """PUT /apps/{app_id}/activities/tokens/start/{activity_type}/subscriptions/{subscription_id}."""
    record = TokenRecord(
        device=call.subscription,
        kind="start",
        scope=call.parts["activity_type"],
        token=call.token,
        registered_at=call.now,
    )
    await call.gateway.service.devices.register(call.app, [record], guard=call.guard)


async def withdraw_start(call: DeviceCall) -> None:
    """DELETE of the same address."""
    kind = checks.attributes_type(call.parts["activity_type"], "activity_type")
    await call.gateway.service.devices.withdraw(call.app, call.subscription, kind, guard=call.guard)


async def confirm(call: DeviceCall) -> None:
    """PUT /notifications/{notification_id}/report_received: the phone got the push."""
    activity = call.activity
    if activity is not None and not isinstance(activity, str):
        raise InvalidInput("is not a string", field="live_activity_id", remedy="Give the id.")
    name, service = call.parts["notification_id"], call.gateway.service
    record = ReceiptRecord(device=call.subscription, event="confirmed", operation=name)
    records = [record]
    if activity:
        records = [msgspec.structs.replace(record, operation=None, activity=activity)]
        with contextlib.suppress(NotFound):  # pruned, or another activity's
            await service.operations.get(call.app, name)
            records.append(record)
    await service.receipts.record(call.app, records)


async def _admit(gateway: Gateway, request: Request, call: DeviceCall, action: str) -> bool:
    """Raise `NotAllowed` unless the caller may speak for this subscription.

    Return whether nobody vouches for the call, so that its write must look again.
    """
    mode = call.app.settings.get(SETTING, "off")
    secret = secret_of(request, SCHEMES)
    address = address_of(request)
    if secret.startswith(f"{HEAD}."):
        await _check_credential(gateway, request, call, secret, mode)
        return False
    key = await gateway.keys.find(secret) if secret else None
    if key is not None and key.dialect == "onesignal":
        if key.app.row != call.app.row:
            raise NotAllowed(words.WRONG_APP)
        need(key, "devices:write")
        if key.groups is not None:
            raise NotAllowed("This API key is restricted to groups")
        with gateway.limits.enter(key):
            return False
    if mode not in ("open", "demo"):
        refuse(gateway, request)
        raise NotAllowed(words.CALLS_SIGNED if mode == "signed" else words.CALLS_OFF)
    with gateway.limits.enter_as(f"address {address}", gateway.settings.device_per_minute):
        if mode == "open":
            async with gateway.service.database.read() as connection:
                await _stop_if_owned(call, connection)
        await gateway.audit.note(
            call.app,
            actor="address",
            action=action,
            subject=call.subscription,
            detail={name: value for name, value in call.parts.items() if name != "app_id"},
            address=address,
        )
    return bool(mode == "open")


async def _check_credential(
    gateway: Gateway, request: Request, call: DeviceCall, credential: str, mode: str
) -> None:
    phone = await gateway.credentials.check(credential)
    if phone is None:
        refuse(gateway, request)
        raise NotAllowed(words.CALLS_SIGNED)
    if mode not in MODES[1:]:
        raise NotAllowed(words.CALLS_OFF)
    allowed = phone.app.row == call.app.row and phone.device == call.subscription
    if call.activity is not None and not phone.claims.may_join(call.activity):
        allowed = False
    if not allowed:
        raise NotAllowed(words.CALLS_SIGNED)
    with limited(gateway, phone):
        return


async def _stop_if_owned(call: DeviceCall, connection: AsyncConnection) -> None:
    """Raise `NotAllowed` when subscription or token are of a device with its own credential.

    The row is locked until the end of the transaction: a credential that is minted at this moment
    comes before it, and is seen, or after it.
    """
    devices = schema.devices
    places = [devices.c.public_id == call.subscription]
    if call.token:
        for table in (schema.start_tokens, schema.activity_devices, schema.device_tokens):
            holders = select(table.c.device_id).where(
                table.c.app_id == call.app.row, table.c.token == call.token
            )
            places.append(devices.c.id.in_(holders))
    query = (
        select(devices.c.secret_hash)
        .where(devices.c.app_id == call.app.row, or_(*places))
        .order_by(devices.c.id)
        .with_for_update()
    )
    if any(secret is not None for secret in (await connection.execute(query)).scalars()):
        raise NotAllowed(words.OWNED)


async def _find_app(gateway: Gateway, name: str) -> App:
    """Return the app by its id or by its id at OneSignal. Raises `NotFound`."""
    apps = gateway.service.apps
    try:
        return await apps.get(name)
    except NotFound:
        for app in await apps.list():
            if is_named(app, name, APP_SETTING):
                return app
        raise NotFound("app_id not found") from None


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput("is missing or not a string", field=name, remedy="Give it.")
    return value
