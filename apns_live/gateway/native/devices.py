"""Devices and tokens, registered by your server or by the phone; credentials for phones.

A phone calls with a device credential, never with an API key.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta
from msgspec.structs import asdict
from sqlalchemy import select

from ...activities.finding import id_named
from ...activities.people.records import (
    DeviceRecord,
    DeviceView,
    ListedDevice,
    TokenRecord,
    TokenView,
    WholeDevice,
    check_token,
)
from ...activities.store import schema
from ...errors import InvalidInput, NotFound
from ..calls import Call
from . import shapes
from .face import Routes, check_joins
from .operations import PhoneReceiptBody
from .shapes import CountAnswer, Moment, Strict, milliseconds_of, shown_times

writes = Routes("devices", scope="devices:write")
reads = Routes("directory", scope="devices:read")
own = Routes("phone", who="phone")

DeviceId = Annotated[str, Meta(min_length=1, max_length=64, pattern=shapes.PLAIN)]
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
    environment: shapes.Environment | None = None
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
    expires_at: shapes.Time


class PhoneTokensBody(Strict, frozen=True, kw_only=True):
    """Tokens of this phone."""

    tokens: Annotated[list[TokenFacts], Meta(min_length=1, max_length=50)]


class PhoneReceiptsBody(Strict, frozen=True, kw_only=True):
    """Reports of this phone."""

    receipts: Annotated[list[PhoneReceiptBody], Meta(min_length=1, max_length=100)]


class StateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The newest state of an activity, to show inside the app."""

    id: str
    attributes_type: str
    attributes: dict[str, Any]
    content_state: dict[str, Any]
    status: str
    version: int


_Given = Annotated[str, Meta(min_length=1, max_length=255)]


class DevicesPage(shapes.TextPage, frozen=True, kw_only=True):
    """Filters: a user, a language or a country."""

    user: _Given | None = None
    language: _Given | None = None
    country: _Given | None = None


class TokensAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every token of a device."""

    items: list[TokenView]
    next: None = None


@writes("POST /v1/tokens", "Register tokens")
async def register_tokens(call: Call, body: TokensBody) -> CountAnswer:
    """Unknown devices are added. An older registration never replaces a newer one."""
    return await _register(call, [(token.device, token) for token in body.tokens])


@writes("POST /v1/devices", "Tell of devices")
async def tell_devices(call: Call, body: DevicesBody) -> CountAnswer:
    """Unknown devices are added. Of known ones only the given fields change."""
    records = [
        _device_record(one.id, one, one.user, f"devices[{index}]")
        for index, one in enumerate(body.devices)
    ]
    return CountAnswer(count=await call.service.devices.tell(call.app, records))


@writes("PUT /v1/devices/{device}", "Tell of one device")
async def tell_device(call: Call, device: str, body: OneDeviceBody) -> None:
    """Adds the device if it is unknown. Only the given fields change."""
    await call.service.devices.tell(call.app, [_device_record(device, body, body.user, "")])


@writes("DELETE /v1/devices/{device}", "Forget a device")
async def forget_device(call: Call, device: str) -> None:
    """Deletes the device with all of its tokens."""
    await call.service.devices.forget(call.app, device)
    await call.note("device.forget", device)


@writes("DELETE /v1/devices/{device}/start-tokens/{type}", "Withdraw a push-to-start token")
async def withdraw_start_token(call: Call, device: str) -> None:
    """The device gets no more starts of this attributes type."""
    await call.service.devices.withdraw(call.app, device, call.parts["type"])


@writes("DELETE /v1/activities/{activity}/devices/{device}", "Let a device leave an activity")
async def leave_activity(call: Call, activity: str, device: str) -> None:
    """The device gets no more updates of this activity."""
    await call.service.tokens.leave(call.app, activity, device)


@writes("POST /v1/devices/{device}/credentials", "Mint a credential for a phone", status=201)
async def mint_credential(
    call: Call, device: str, body: CredentialBody = CredentialBody()
) -> CredentialAnswer:
    """Your server calls this when a user is logged in, and gives the credential to the phone.

    It is valid for that device's calls under /v1/device. ``activities`` limits the activities for
    which the phone may register tokens; without it, all whose id it knows.
    """
    if body.user is not None:
        await call.service.devices.tell(call.app, [DeviceRecord(id=device, user=body.user)])
    credential, expires_at = await call.gateway.credentials.mint(
        call.app,
        device,
        seconds=body.seconds or call.gateway.settings.credential_seconds,
        activities=body.activities,
    )
    await call.note("credential.mint", device, expires_at=expires_at)
    ends = datetime.fromtimestamp(expires_at, UTC).isoformat().replace("+00:00", "Z")
    return CredentialAnswer(credential=credential, device=device, expires_at=ends)


@writes("DELETE /v1/devices/{device}/credentials", "Revoke the credentials of a phone")
async def revoke_credentials(call: Call, device: str) -> None:
    """Revokes all existing credentials of the device."""
    if await call.gateway.credentials.revoke(call.app, device):
        await call.note("credential.revoke", device)


@reads("GET /v1/devices", "List devices", refusals={404})
async def list_devices(call: Call, query: DevicesPage) -> shapes.TextPageAnswer[ListedDevice]:
    """All devices of the app by id, or those of one `user`, one `language` or one `country`.

    Languages match exactly: `de` does not match `de-AT`. For other conditions use a segment.
    """
    return shapes.text_page(await call.service.directory.devices(call.app, **asdict(query)))


@reads("GET /v1/devices/{device}", "Get a device")
async def get_device(call: Call, device: str) -> WholeDevice:
    """With its active push-to-start tokens (first digits only), tags and attributes."""
    known = _shown_device(await call.service.devices.get(call.app, device))
    held = await call.service.directory.belongings(call.app, device)
    return cast("WholeDevice", {**known, **held})


@reads("GET /v1/devices/{device}/tokens", "List the tokens of a device")
async def list_tokens(call: Call, device: str) -> TokensAnswer:
    """Tokens by their first eight digits.

    Includes retired push-to-start and device tokens, with the reason, and activity tokens of running
    activities. At most the newest 1,000 of each kind.
    """
    found = await call.service.directory.tokens(call.app, device)
    return TokensAnswer(items=[shown_times(one) for one in found])


@own("POST /v1/device/tokens", "Register this phone's tokens", refusals={403})
async def register_own_tokens(call: Call, body: PhoneTokensBody) -> CountAnswer:
    """Push-to-start, activity and device tokens, as ActivityKit and UIKit return them."""
    check_joins(call, *(token.activity for token in body.tokens))
    return await _register(call, [(call.phone.device, token) for token in body.tokens])


@own("PUT /v1/device", "Tell of this phone")
async def tell_own_device(call: Call, body: DeviceFacts) -> None:
    """The phone cannot set its user; the server that requests the credential can."""
    await call.service.devices.tell(call.app, [_device_record(call.phone.device, body, None, "")])


@own("GET /v1/device", "Get what is known of this phone", refusals={404})
async def get_own_device(call: Call) -> DeviceView:
    """With the first digits of its tokens."""
    return _shown_device(await call.service.devices.get(call.app, call.phone.device))


@own("POST /v1/device/receipts", "Report what happened on this phone", refusals={403})
async def report_receipts(call: Call, body: PhoneReceiptsBody) -> CountAnswer:
    """After ``dismissed`` or ``ended`` the phone gets no more updates of that activity."""
    check_joins(call, *(one.activity for one in body.receipts))
    records = [one.record(call.phone.device, index) for index, one in enumerate(body.receipts)]
    return CountAnswer(count=await call.service.receipts.record(call.app, records))


@own(
    "GET /v1/device/activities/{activity}",
    "Get the newest state of an activity that this phone follows",
    refusals={403},
)
async def own_activity(call: Call, activity: str) -> StateAnswer:
    """Lets the app show the same state as its card."""
    # It follows what was started on it, and what it joined.
    members = schema.activity_devices
    query = select(members.c.id).where(
        members.c.activity_id == id_named(call.app, schema.activities, activity),
        members.c.device_id == id_named(call.app, schema.devices, call.phone.device),
    )
    if await call.service.database.scalar(query) is None:
        raise NotFound(f"this device follows no activity {activity!r}")
    return msgspec.convert(await call.service.activities.get(call.app, activity), StateAnswer)


@own("DELETE /v1/device/activities/{activity}", "Leave an activity", refusals={403})
async def leave_own_activity(call: Call, activity: str) -> None:
    """The phone gets no more updates of this activity."""
    await call.service.tokens.leave(call.app, activity, call.phone.device)


@own("DELETE /v1/device/start-tokens/{type}", "Withdraw this phone's push-to-start token")
async def withdraw_own_start_token(call: Call) -> None:
    """For example when the user switched these activities off in the app."""
    await call.service.devices.withdraw(call.app, call.phone.device, call.parts["type"])


@own("DELETE /v1/device", "Forget this phone", refusals={404})
async def forget_own_device(call: Call) -> None:
    """Deletes the device with all of its tokens and revokes its credential."""
    device = call.phone.device
    await call.service.devices.forget(call.app, device)
    call.gateway.credentials.forget(call.app, device)


def _device_record(device: str, facts: DeviceFacts, user: str | None, field: str) -> DeviceRecord:
    path = f"{field}." if field else ""
    values = {name: getattr(facts, name) for name in DeviceFacts.__struct_fields__}
    for name in ("first_session", "last_session"):
        values[name] = milliseconds_of(values[name], f"{path}{name}")
    return DeviceRecord(id=device, user=user, **values)


async def _register(call: Call, told: Sequence[tuple[str, TokenFacts]]) -> CountAnswer:
    """Store tokens of all kinds, each with its device. Raises `InvalidInput`."""
    now, others = call.now, list[TokenRecord]()
    by_type: dict[str, list[TokenRecord]] = {}
    for index, (device, facts) in enumerate(told):
        field, kind = f"tokens[{index}]", facts.kind
        wanted = {"start": "attributes_type", "activity": "activity", "device": ""}[kind]
        scope = getattr(facts, wanted) if wanted else ""
        if wanted and not scope:
            raise InvalidInput("is missing", f"{field}.{wanted}", f"A {kind} token needs it.")
        for name in ("activity", "card"):
            if getattr(facts, name) is not None and kind != "activity":
                problem = f"does not apply to a {kind} token"
                raise InvalidInput(problem, f"{field}.{name}", "Leave it out.")
        registered = milliseconds_of(facts.registered_at, f"{field}.registered_at")
        record = TokenRecord(
            device=device,
            kind=kind,
            token=facts.token,
            registered_at=now if registered is None else registered,
            scope=scope or "",
            environment=facts.environment,
            card=facts.card,
        )
        alike = (
            by_type.setdefault(facts.attributes_type or "", []) if kind == "activity" else others
        )
        alike.append(check_token(record, now=now, field=field))
    if others:
        await call.service.devices.register(call.app, others)
    for named, some in by_type.items():
        await call.service.tokens.register_activity_tokens(call.app, some, attributes_type=named)
    return CountAnswer(count=len(told))


def _shown_device(device: DeviceView) -> DeviceView:
    tokens = [shown_times(token) for token in device["start_tokens"]]
    return {**shown_times(device), "start_tokens": tokens}
