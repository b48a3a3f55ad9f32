"""OneSignal's subscriptions, which are devices here. Only ``iOSPush`` is supported.

Source: OneSignal, "Create Subscription", "Update Subscription", "Transfer Subscription".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta
from sqlalchemy import select
from starlette.responses import Response

from ...activities import DeviceRecord, TokenRecord
from ...activities.checks import identifier, token
from ...activities.store import schema
from ...errors import InvalidInput, NotFound
from ..calls import Call
from ..problems import json_answer as answer
from ..reading import read
from . import users

MOST = 20
_MANY: Any = Annotated[list[Any], Meta(max_length=MOST)]
_TYPE = "iOSPush"
_TOLD = (
    ("app_version", "app_version", str),
    ("device_os", "os_version", str),
    ("session_count", "session_count", int),
    ("session_time", "session_time", int),
    ("enabled", "push_enabled", bool),
)


def read_many(value: object) -> list[Mapping[str, Any]]:
    """Return subscriptions of a body. Raises `InvalidInput`."""
    many = read([] if value is None else value, _MANY, "subscriptions", "Give fewer.")
    return [read_one(one, f"subscriptions[{index}]") for index, one in enumerate(many)]


def read_one(value: object, field: str = "subscription") -> Mapping[str, Any]:
    """Return one subscription of a body. Raises `InvalidInput`."""
    given = read(value, dict[str, Any], field, "Give a subscription.")
    if given.get("type", _TYPE) != _TYPE:
        raise InvalidInput(
            "is not a subscription of this gateway", field=f"{field}.type", remedy=f"Give {_TYPE}."
        )
    return given


async def add(call: Call, given: Mapping[str, Any], external: str) -> str:
    """Store a subscription of a user; return its id: that of the device which has the token."""
    text = given.get("token")
    device = given.get("id")
    if device is None and text is not None:
        device = await _holder(call, token(text, "subscription.token"))
    name = call.gateway.new_id() if device is None else identifier(device, "id", limit=64)
    await _tell(call, name, given, user=external)
    return name


async def create_user(call: Call, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/users: 201 for a new user, 200 for one that is there."""
    identity = users.read_identity(body.get("identity") or {})
    subscriptions = read_many(body.get("subscriptions"))
    external = await users.external_of(call, identity)
    known = await users.find(call.gateway, call.app, users.EXTERNAL, external)
    if (conflict := await users.claimed(call, external, identity)) is not None:
        return conflict
    await call.service.people.add_user(call.app, external, aliases=users.others(identity))
    for given in subscriptions:
        await add(call, given, external)
    await users.set_properties(call, external, body.get("properties"))
    found = await users.shown(call.gateway, call.app, external)
    return answer(found, 201 if known is None else 200)


async def create(call: Call, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/users/by/{alias_label}/{alias_id}/subscriptions."""
    external = await users.named(call)
    name = await add(call, read_one(body.get("subscription")), external)
    found = await users.shown(call.gateway, call.app, external)
    mine = [one for one in found["subscriptions"] if one["id"] == name]
    return answer({"subscription": mine[0] if mine else {"id": name}}, 201)


async def change(call: Call, body: dict[str, Any]) -> Response:
    """PATCH /apps/{app_id}/subscriptions/{subscription_id}."""
    name = await _known(call)
    await _tell(call, name, read_one(body.get("subscription")))
    return answer({})


async def remove(call: Call) -> Response:
    """DELETE of the same address, with all tokens."""
    await call.service.devices.forget(call.app, await _known(call))
    return answer({}, 202)


async def transfer(call: Call, body: dict[str, Any]) -> Response:
    """PATCH …/owner."""
    name = await _known(call)
    external = await users.external_of(call, users.read_identity(body.get("identity")))
    await call.service.people.move_devices(call.app, [name], external)
    found = await users.shown(call.gateway, call.app, external)
    return answer({"identity": found["identity"]})


async def identity(call: Call) -> Response:
    """GET …/user/identity."""
    found = await users.shown(call.gateway, call.app, await _owner(call))
    return answer({"identity": found["identity"]})


async def add_aliases(call: Call, body: dict[str, Any]) -> Response:
    """PATCH …/user/identity."""
    return await users.put_aliases(call, await _owner(call), body)


async def _tell(
    call: Call, name: str, given: Mapping[str, Any], *, user: str | None = None
) -> None:
    told: dict[str, Any] = {}
    for there, here, kind in _TOLD:
        value = given.get(there)
        if value is not None:
            told[here] = read(value, kind, there, f"Give a {kind.__name__}.")
    kinds = given.get("notification_types")
    if isinstance(kinds, int) and not isinstance(kinds, bool):
        told["push_enabled"] = kinds > 0
    service = call.service
    text = given.get("token")
    if text is not None:
        token(text, "subscription.token")
    await service.devices.tell(call.app, [DeviceRecord(id=name, user=user, **told)])
    if text is not None:
        now = int(call.gateway.clock.time() * 1000)
        record = TokenRecord(device=name, kind="device", token=text, registered_at=now)
        await service.devices.register(call.app, [record])


async def _holder(call: Call, text: str) -> str | None:
    """Return the device that holds a device token."""
    devices, tokens = schema.devices, schema.device_tokens
    query = (
        select(devices.c.public_id)
        .join(tokens, tokens.c.device_id == devices.c.id)
        .where(
            tokens.c.app_id == call.app.row, tokens.c.token == text, tokens.c.retired_at.is_(None)
        )
        .limit(1)
    )
    found: str | None = await call.service.database.scalar(query)
    return found


async def _known(call: Call) -> str:
    name = call.part("subscription_id")
    await call.service.devices.get(call.app, name)
    return name


async def _owner(call: Call) -> str:
    known = await call.service.devices.get(call.app, call.part("subscription_id"))
    if known["user"] is None:
        raise NotFound("the subscription has no user")
    return str(known["user"])
