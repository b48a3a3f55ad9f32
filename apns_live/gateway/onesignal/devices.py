"""The device calls of OneSignal's SDK: tokens, exit, confirmed receipts.

These calls carry no key, so anyone who knows an app's id could make them. The app's setting
``onesignal_device_calls`` says which are accepted:

- ``off`` (the default): only with an API key, as older server SDKs call them;
- ``signed``: also with a device credential for the same subscription;
- ``open``: also without any credential, for trials. Such a call cannot touch a device that has its own
  credential, or a token of such a device. Calls are limited for each address, and are in the audit log;
- ``demo``: as ``open``, and for every device. Only for simulated phones.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from ...activities import TokenRecord, checks
from ...activities.accept.receipts import ReceiptRecord
from ...activities.apps import App
from ...activities.people.devices import Guard
from ...activities.people.records import TokenKind
from ...activities.store import schema
from ...errors import InvalidInput, NotAllowed, NotFound
from ..calls import Call
from ..credentials import HEAD
from ..reach import is_named
from ..reading import text
from . import words

APP_SETTING = "onesignal_app_id"
MODES = ("off", "signed", "open", "demo")
SETTING = "onesignal_device_calls"
MAX_BYTES = 16_384
"""A phone says a token and a few ids, and has shown no key when its body is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCall:
    """One device's call. ``token`` is empty if it has none.

    ``guard`` checks within the write's transaction whether the call may touch this device.
    """

    call: Call
    app: App
    subscription: str
    token: str = ""
    activity: str | None = None
    guard: Guard | None = None

    def record(self, kind: TokenKind, scope: str) -> TokenRecord:
        """Return the service's record of the token."""
        said = {"device": self.subscription, "token": self.token}
        return TokenRecord(**said, kind=kind, scope=scope, registered_at=self.call.now)


_ANSWER = {"success": True}


async def _read(call: Call, body: Mapping[str, Any], action: str, token: str = "") -> DeviceCall:
    """Return an admitted device call. ``token`` is the field of the token in its body.

    Raises `NotAllowed` unless the caller may act for this subscription.
    """
    parts, gateway, apps = call.parts, call.gateway, call.service.apps
    name = parts.get("app_id") or text(body, "app_id", required=True) or ""
    subscription = parts.get("subscription_id") or text(
        body, "subscription_id" if token else "player_id", required=True
    )
    try:
        app = await apps.get(name)
    except NotFound:
        named = (one for one in await apps.list() if is_named(one, name, APP_SETTING))
        if (found := next(named, None)) is None:
            raise NotFound("app_id not found") from None
        app = found
    said = DeviceCall(
        call=call,
        app=app,
        subscription=checks.identifier(subscription, "subscription_id", limit=64),
        token=checks.token(body.get(token), token) if token else "",
        activity=parts.get("activity_id") or body.get("live_activity_id"),
    )
    mode, secret = app.settings.get(SETTING, "off"), call.secret()
    if secret.startswith(f"{HEAD}."):
        if (phone := await gateway.credentials.check(secret)) is None:
            call.refused()
            raise NotAllowed(words.CALLS_SIGNED)
        await call.arrived(phone)
        if mode not in MODES[1:]:
            raise NotAllowed(words.CALLS_OFF)
        mine = phone.app.row == app.row and phone.device == said.subscription
        if not mine or not (said.activity is None or phone.claims.may_join(said.activity)):
            raise NotAllowed(words.CALLS_SIGNED)
        with gateway.limits.enter(phone):
            return said
    key = await gateway.keys.find(secret)
    if key is not None and key.dialect == "onesignal":
        await call.arrived(key)
        if key.app.row != app.row:
            raise NotAllowed(words.WRONG_APP)
        call.need("devices:write")
        if key.groups is not None:
            raise NotAllowed("This API key is restricted to groups")
        with gateway.limits.enter(key):
            return said
    if mode not in ("open", "demo"):
        call.refused()
        raise NotAllowed(words.CALLS_SIGNED if mode == "signed" else words.CALLS_OFF)
    with gateway.limits.enter_as(
        f"address {call.visit.address}", gateway.settings.device_per_minute
    ):
        if mode == "open":
            async with call.service.database.read() as connection:
                await _stop_if_owned(said, connection)
        await gateway.audit.note(
            app,
            actor="address",
            action=action,
            subject=said.subscription,
            detail={name: value for name, value in parts.items() if name != "app_id"},
            address=call.visit.address,
        )
    # The write of a call without a key or credential checks the device again.
    return said if mode == "demo" else replace(said, guard=partial(_stop_if_owned, said))


async def enter(call: Call, activity_id: str, body: dict[str, Any]) -> dict[str, bool]:
    """POST /apps/{app_id}/live_activities/{activity_id}/token."""
    said = await _read(call, body, "onesignal.enter", "push_token")
    records = [said.record("activity", activity_id)]
    await call.service.tokens.register_activity_tokens(said.app, records, guard=said.guard)
    return _ANSWER


async def leave(call: Call, activity_id: str) -> dict[str, bool]:
    """DELETE /apps/{app_id}/live_activities/{activity_id}/token/{subscription_id}."""
    said = await _read(call, {}, "onesignal.exit")
    await call.service.tokens.leave(said.app, activity_id, said.subscription, guard=said.guard)
    return _ANSWER


async def register_start(call: Call, activity_type: str, body: dict[str, Any]) -> dict[str, bool]:
    """PUT /apps/{app_id}/activities/tokens/start/{activity_type}/subscriptions/{subscription_id}."""
    said = await _read(call, body, "onesignal.start_token", "activity_token")
    record = said.record("start", activity_type)
    await call.service.devices.register(said.app, [record], guard=said.guard)
    return _ANSWER


async def withdraw_start(call: Call, activity_type: str) -> dict[str, bool]:
    """DELETE of the same address."""
    said = await _read(call, {}, "onesignal.withdraw")
    kind = checks.attributes_type(activity_type, "activity_type")
    await call.service.devices.withdraw(said.app, said.subscription, kind, guard=said.guard)
    return _ANSWER


async def confirm(call: Call, notification_id: str, body: dict[str, Any]) -> dict[str, bool]:
    """PUT /notifications/{notification_id}/report_received: the phone got the push."""
    said = await _read(call, body, "onesignal.received")
    activity = said.activity
    if activity is not None and not isinstance(activity, str):
        raise InvalidInput("is not a string", "live_activity_id", "Give the id.")
    record = ReceiptRecord(device=said.subscription, event="confirmed", operation=notification_id)
    records = [record]
    if activity:
        records = [msgspec.structs.replace(record, operation=None, activity=activity)]
        with contextlib.suppress(NotFound):  # pruned, or of another activity
            await call.service.operations.get(said.app, notification_id)
            records.append(record)
    await call.service.receipts.record(said.app, records)
    return _ANSWER


async def _stop_if_owned(said: DeviceCall, connection: AsyncConnection) -> None:
    """Raise `NotAllowed` if subscription or token belong to a device with its own credential.

    The row is locked until the end of the transaction, so a credential minted concurrently is either seen or
    comes later.
    """
    devices = schema.devices
    places = [devices.c.public_id == said.subscription]
    if said.token:
        for table in (schema.start_tokens, schema.activity_devices, schema.device_tokens):
            holders = select(table.c.device_id).where(
                table.c.app_id == said.app.row, table.c.token == said.token
            )
            places.append(devices.c.id.in_(holders))
    query = select(devices.c.secret_hash).where(devices.c.app_id == said.app.row, or_(*places))
    secrets = await connection.scalars(query.order_by(devices.c.id).with_for_update())
    if any(secret is not None for secret in secrets):
        raise NotAllowed(words.OWNED)
