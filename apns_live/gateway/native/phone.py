"""The calls of a phone, authenticated by a device credential, never by an API key."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import select

from ...activities.finding import id_named
from ...activities.people.views import DeviceView
from ...activities.store import schema
from ...errors import NotFound
from ..calls import Call
from .answers import CountAnswer
from .devices import DeviceFacts, TokenFacts, device_record, register, shown_device
from .face import Routes, check_joins
from .operations import PhoneReceiptBody
from .shapes import Strict

routes = Routes("phone")


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


@routes("POST /v1/device/tokens", "Register this phone's tokens", who="phone", refusals={403})
async def register_own_tokens(call: Call, body: PhoneTokensBody) -> CountAnswer:
    """Push-to-start, activity and device tokens, as ActivityKit and UIKit return them."""
    check_joins(call, *(token.activity for token in body.tokens))
    told = [(call.phone.device, token) for token in body.tokens]
    return CountAnswer(count=await register(call, told))


@routes("PUT /v1/device", "Tell of this phone", who="phone")
async def tell_own_device(call: Call, body: DeviceFacts) -> None:
    """The phone cannot set its user; the server that requests the credential can."""
    await call.service.devices.tell(call.app, [device_record(call.phone.device, body, None, "")])


@routes("GET /v1/device", "Get what is known of this phone", who="phone", refusals={404})
async def get_own_device(call: Call) -> DeviceView:
    """With the first digits of its tokens."""
    return shown_device(await call.service.devices.get(call.app, call.phone.device))


@routes(
    "POST /v1/device/receipts", "Report what happened on this phone", who="phone", refusals={403}
)
async def report_receipts(call: Call, body: PhoneReceiptsBody) -> CountAnswer:
    """After ``dismissed`` or ``ended`` the phone gets no more updates of that activity."""
    check_joins(call, *(one.activity for one in body.receipts))
    device = call.phone.device
    records = [one.record(device, index) for index, one in enumerate(body.receipts)]
    return CountAnswer(count=await call.service.receipts.record(call.app, records))


@routes(
    "GET /v1/device/activities/{activity}",
    "Get the newest state of an activity that this phone follows",
    who="phone",
    refusals={403},
)
async def own_activity(call: Call, activity: str) -> StateAnswer:
    """Lets the app show the same state as its card."""
    await _check_follows(call, activity)
    return msgspec.convert(await call.service.activities.get(call.app, activity), StateAnswer)


@routes("DELETE /v1/device/activities/{activity}", "Leave an activity", who="phone", refusals={403})
async def leave_own_activity(call: Call, activity: str) -> None:
    """The phone gets no more updates of this activity."""
    await call.service.tokens.leave(call.app, activity, call.phone.device)


@routes(
    "DELETE /v1/device/start-tokens/{type}",
    "Withdraw this phone's push-to-start token",
    who="phone",
)
async def withdraw_own_start_token(call: Call) -> None:
    """For example when the user switched these activities off in the app."""
    await call.service.devices.withdraw(call.app, call.phone.device, call.part("type"))


@routes("DELETE /v1/device", "Forget this phone", who="phone", refusals={404})
async def forget_own_device(call: Call) -> None:
    """Deletes the device with all of its tokens and revokes its credential."""
    device = call.phone.device
    await call.service.devices.forget(call.app, device)
    call.gateway.credentials.forget(call.app, device)


async def _check_follows(call: Call, activity: str) -> None:
    """Raise `NotFound` unless the activity was started on this phone, or the phone joined it."""
    members = schema.activity_devices
    query = select(members.c.id).where(
        members.c.activity_id == id_named(call.app, schema.activities, activity),
        members.c.device_id == id_named(call.app, schema.devices, call.phone.device),
    )
    if await call.service.database.scalar(query) is None:
        raise NotFound(f"this device follows no activity {activity!r}")
