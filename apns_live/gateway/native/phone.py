"""What a phone calls itself, with a credential that its team's server minted. Never with a key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from sqlalchemy import select

from ...activities.store import schema
from ...errors import NotAllowed, NotFound
from .answers import CountAnswer
from .api import Call, Routes
from .devices import (
    DeviceAnswer,
    DeviceFacts,
    TokenFacts,
    device_record,
    register,
    shown_device,
    token_record,
)
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
    """The newest state of an activity, for an app that shows it itself."""

    id: str
    attributes_type: str
    attributes: dict[str, Any]
    content_state: dict[str, Any]
    status: str
    version: int


@routes(
    "POST",
    "/v1/device/tokens",
    "Register this phone's tokens",
    who="phone",
    body=PhoneTokensBody,
    answer=CountAnswer,
    refusals=frozenset({403}),
)
async def register_own_tokens(call: Call) -> CountAnswer:
    """Push-to-start, activity and device tokens, as ActivityKit and UIKit hand them out."""
    body: PhoneTokensBody = call.body
    records = []
    for index, token in enumerate(body.tokens):
        if token.activity is not None:
            _check_activity(call, token.activity)
        record = token_record(call, call.phone.device, token, f"tokens[{index}]")
        records.append((record, token.attributes_type))
    return CountAnswer(count=await register(call, records))


@routes("PUT", "/v1/device", "Tell of this phone", who="phone", body=DeviceFacts)
async def tell_own_device(call: Call) -> None:
    """Whose phone it is, is not the phone's to say: the server that mints the credential does."""
    await call.service.devices.tell(
        call.app, [device_record(call.phone.device, call.body, None, "")]
    )


@routes(
    "GET",
    "/v1/device",
    "Get what is known of this phone",
    who="phone",
    answer=DeviceAnswer,
    refusals=frozenset({404}),
)
async def get_own_device(call: Call) -> dict[str, Any]:
    """Tokens by their first digits."""
    return shown_device(await call.service.devices.get(call.app, call.phone.device))


@routes(
    "POST",
    "/v1/device/receipts",
    "Report what happened on this phone",
    who="phone",
    body=PhoneReceiptsBody,
    answer=CountAnswer,
    refusals=frozenset({403}),
)
async def report_receipts(call: Call) -> CountAnswer:
    """After ``dismissed`` or ``ended`` the phone gets no more updates of that activity."""
    body: PhoneReceiptsBody = call.body
    records = []
    for index, one in enumerate(body.receipts):
        if one.activity is not None:
            _check_activity(call, one.activity)
        records.append(one.record(call.phone.device, index))
    return CountAnswer(count=await call.service.receipts.record(call.app, records))


@routes(
    "GET",
    "/v1/device/activities/{activity}",
    "Get the newest state of an activity that this phone follows",
    who="phone",
    answer=StateAnswer,
    refusals=frozenset({403}),
)
async def own_activity(call: Call) -> dict[str, Any]:
    """For an app that was opened and wants to show what its card shows."""
    activity = call.part("activity")
    _check_activity(call, activity)
    await _check_follows(call, activity)
    found: Mapping[str, Any] = await call.service.activities.get(call.app, activity)
    return {name: found[name] for name in StateAnswer.__struct_fields__}


@routes(
    "DELETE",
    "/v1/device/activities/{activity}",
    "Leave an activity",
    who="phone",
    refusals=frozenset({403}),
)
async def leave_own_activity(call: Call) -> None:
    """The phone gets no more updates of it."""
    activity = call.part("activity")
    _check_activity(call, activity)
    await call.service.tokens.leave(call.app, activity, call.phone.device)


@routes(
    "DELETE",
    "/v1/device/start-tokens/{type}",
    "Withdraw this phone's push-to-start token",
    who="phone",
)
async def withdraw_own_start_token(call: Call) -> None:
    """For an app whose user switched such activities off."""
    await call.service.devices.withdraw(call.app, call.phone.device, call.part("type"))


@routes("DELETE", "/v1/device", "Forget this phone", who="phone", refusals=frozenset({404}))
async def forget_own_device(call: Call) -> None:
    """With all of its tokens; its credential ends with it."""
    device = call.phone.device
    await call.service.devices.forget(call.app, device)
    call.gateway.credentials.forget(call.app, device)


def _check_activity(call: Call, activity: str) -> None:
    if not call.phone.claims.may_join(activity):
        raise NotAllowed("this credential is not for that activity")


async def _check_follows(call: Call, activity: str) -> None:
    """Raise `NotFound` unless the activity was started on this phone, or the phone joined it."""
    activities, devices, members = schema.activities, schema.devices, schema.activity_devices
    query = (
        select(members.c.id)
        .join(activities, activities.c.id == members.c.activity_id)
        .join(devices, devices.c.id == members.c.device_id)
        .where(
            activities.c.app_id == call.app.row,
            activities.c.public_id == activity,
            devices.c.app_id == call.app.row,
            devices.c.public_id == call.phone.device,
        )
    )
    async with call.service.database.read() as connection:
        if (await connection.execute(query)).scalar() is None:
            raise NotFound(f"this device follows no activity {activity!r}")
