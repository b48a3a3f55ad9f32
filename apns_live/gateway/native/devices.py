"""Devices and tokens, registered by the caller's server; credentials for phones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ...activities.people.records import DeviceRecord, TokenRecord, check_token
from ...activities.people.views import DeviceView
from ...errors import InvalidInput
from ..calls import Call
from .answers import CountAnswer, Time, shown_times
from .face import Routes
from .shapes import PLAIN, Moment, Strict, milliseconds_of, now_text

routes = Routes("devices", scope="devices:write")

DeviceId = Annotated[str, Meta(min_length=1, max_length=64, pattern=PLAIN)]
_Count = Annotated[int, Meta(ge=0, lt=2**31)]
_Large = Annotated[int, Meta(ge=0, le=2**53)]


class DeviceFacts(Strict, frozen=True, kw_only=True):
    """Facts about a device. Absent fields stay unchanged."""

    language: str | None = None
    country: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    app_version: str | None = None
    os_version: str | None = None
    first_session: Moment | None = None
    last_session: Moment | None = None
    session_count: _Count | None = None
    session_time: _Large | None = None
    amount_spent: Annotated[float, Meta(ge=0, le=1e15)] | None = None
    push_enabled: bool | None = None
    frequent_updates: bool | None = None


class OneDeviceBody(DeviceFacts, frozen=True, kw_only=True):
    """Facts about the device in the path, and its user."""

    user: str | None = None


class DeviceBody(OneDeviceBody, frozen=True, kw_only=True):
    """Facts about a device, and its user."""

    id: DeviceId


class DevicesBody(Strict, frozen=True, kw_only=True):
    """Devices."""

    devices: Annotated[list[DeviceBody], Meta(min_length=1, max_length=1_000)]


class TokenFacts(Strict, frozen=True, kw_only=True):
    """A token of a phone.

    ``kind`` start has an ``attributes_type``, ``activity`` an ``activity`` (its id; an unknown one
    is an activity that the app started itself, of ``attributes_type``), ``device`` has neither. ``card`` is
    the card's own id, ActivityKit's ``Activity.id``: a hand-over puts two cards of an activity on a phone.
    ``registered_at`` is when the phone got it, by default now. The newer one of two tokens counts.
    """

    kind: Literal["start", "activity", "device"]
    token: Annotated[str, Meta(min_length=2, max_length=512)]
    attributes_type: str | None = None
    activity: str | None = None
    card: str | None = None
    environment: Literal["production", "sandbox"] | None = None
    registered_at: Moment | None = None


class TokenBody(TokenFacts, frozen=True, kw_only=True):
    """A token of a device."""

    device: DeviceId


class TokensBody(Strict, frozen=True, kw_only=True):
    """Tokens of devices."""

    tokens: Annotated[list[TokenBody], Meta(min_length=1, max_length=1_000)]


class CredentialBody(Strict, frozen=True, kw_only=True):
    """The scope of a credential. ``user`` assigns the device to a user."""

    seconds: Annotated[float, Meta(ge=1, le=604_800)] | None = None
    user: str | None = None
    activities: Annotated[tuple[str, ...], Meta(max_length=20)] | None = None


class CredentialAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Give ``credential`` to the phone; it is valid until ``expires_at``."""

    credential: str
    device: str
    expires_at: Time


@routes("POST /v1/tokens", "Register tokens")
async def register_tokens(call: Call, body: TokensBody) -> CountAnswer:
    """Unknown devices are added. An older registration never replaces a newer one."""
    told = [(token.device, token) for token in body.tokens]
    return CountAnswer(count=await register(call, told))


@routes("POST /v1/devices", "Tell of devices")
async def tell_devices(call: Call, body: DevicesBody) -> CountAnswer:
    """Unknown devices are added. Of known ones only the given fields change."""
    records = [
        device_record(one.id, one, one.user, f"devices[{index}]")
        for index, one in enumerate(body.devices)
    ]
    return CountAnswer(count=await call.service.devices.tell(call.app, records))


@routes("PUT /v1/devices/{device}", "Tell of one device")
async def tell_device(call: Call, device: str, body: OneDeviceBody) -> None:
    """Adds the device if it is unknown. Only the given fields change."""
    record = device_record(device, body, body.user, "")
    await call.service.devices.tell(call.app, [record])


@routes("DELETE /v1/devices/{device}", "Forget a device")
async def forget_device(call: Call, device: str) -> None:
    """Deletes the device with all of its tokens."""
    await call.service.devices.forget(call.app, device)
    await call.note("device.forget", device)


@routes("DELETE /v1/devices/{device}/start-tokens/{type}", "Withdraw a push-to-start token")
async def withdraw_start_token(call: Call, device: str) -> None:
    """The device gets no more starts of this attributes type."""
    await call.service.devices.withdraw(call.app, device, call.part("type"))


@routes("DELETE /v1/activities/{activity}/devices/{device}", "Let a device leave an activity")
async def leave_activity(call: Call, activity: str, device: str) -> None:
    """The device gets no more updates of this activity."""
    await call.service.tokens.leave(call.app, activity, device)


@routes("POST /v1/devices/{device}/credentials", "Mint a credential for a phone", status=201)
async def mint_credential(call: Call, device: str, body: CredentialBody | None) -> CredentialAnswer:
    """Your server calls this when a user is logged in, and gives the credential to the phone.

    It is valid for that device's calls under /v1/device. ``activities`` limits the activities for
    which the phone may register tokens; without it, all whose id it knows.
    """
    body = body or CredentialBody()
    if body.user is not None:
        await call.service.devices.tell(call.app, [DeviceRecord(id=device, user=body.user)])
    credential, expires_at = await call.gateway.credentials.mint(
        call.app,
        device,
        seconds=body.seconds or call.gateway.settings.credential_seconds,
        activities=body.activities,
    )
    await call.note("credential.mint", device, expires_at=expires_at)
    ends = now_text(expires_at)
    return CredentialAnswer(credential=credential, device=device, expires_at=ends)


@routes("DELETE /v1/devices/{device}/credentials", "Revoke the credentials of a phone")
async def revoke_credentials(call: Call, device: str) -> None:
    """Revokes all existing credentials of the device."""
    if await call.gateway.credentials.revoke(call.app, device):
        await call.note("credential.revoke", device)


def device_record(device: str, facts: DeviceFacts, user: str | None, field: str) -> DeviceRecord:
    """Return the record of the service. Raises `InvalidInput`."""
    path = f"{field}." if field else ""
    values = {name: getattr(facts, name) for name in DeviceFacts.__struct_fields__}
    for name in ("first_session", "last_session"):
        values[name] = milliseconds_of(values[name], f"{path}{name}")
    return DeviceRecord(id=device, user=user, **values)


def _token_record(call: Call, device: str, facts: TokenFacts, field: str) -> TokenRecord:
    now = call.now
    wanted = {"start": "attributes_type", "activity": "activity", "device": ""}[facts.kind]
    scope = getattr(facts, wanted) if wanted else ""
    if wanted and not scope:
        raise InvalidInput(
            "is missing", field=f"{field}.{wanted}", remedy=f"A {facts.kind} token needs it."
        )
    for name in ("activity", "card"):
        if getattr(facts, name) is not None and facts.kind != "activity":
            raise InvalidInput(
                f"does not apply to a {facts.kind} token",
                field=f"{field}.{name}",
                remedy="Leave it out.",
            )
    registered = milliseconds_of(facts.registered_at, f"{field}.registered_at")
    record = TokenRecord(
        device=device,
        kind=facts.kind,
        token=facts.token,
        registered_at=now if registered is None else registered,
        scope=scope or "",
        environment=facts.environment,
        card=facts.card,
    )
    return check_token(record, now=now, field=field)


async def register(call: Call, told: Sequence[tuple[str, TokenFacts]]) -> int:
    """Store tokens of all kinds, each with its device; return how many. Raises `InvalidInput`."""
    others: list[TokenRecord] = []
    by_type: dict[str, list[TokenRecord]] = {}
    for index, (device, facts) in enumerate(told):
        record = _token_record(call, device, facts, f"tokens[{index}]")
        if record.kind == "activity":
            by_type.setdefault(facts.attributes_type or "", []).append(record)
        else:
            others.append(record)
    if others:
        await call.service.devices.register(call.app, others)
    for kind, some in by_type.items():
        tokens = call.service.tokens
        await tokens.register_activity_tokens(call.app, some, attributes_type=kind)
    return len(told)


def shown_device(device: DeviceView) -> DeviceView:
    """Return a device as callers see it."""
    tokens = [shown_times(token) for token in device["start_tokens"]]
    return {**shown_times(device), "start_tokens": tokens}
