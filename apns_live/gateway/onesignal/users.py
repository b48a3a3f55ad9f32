"""OneSignal's users and subscriptions. Users need an external id; a subscription is a device.

Only subscriptions of ``iOSPush`` are supported. Source: OneSignal, "Create User", "View User", "Update User",
"Create Alias", "Delete Alias", "Create Subscription", "Update Subscription", "Transfer Subscription".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict
from sqlalchemy import Row, delete, select, update
from starlette.responses import Response

from ...activities import DeviceRecord, TokenRecord
from ...activities.checks import convert, identifier, token
from ...activities.finding import id_named
from ...activities.people.people import public_id_of
from ...activities.store import schema
from ...errors import InvalidInput, NotFound
from ..calls import Call
from ..problems import json_answer as answer

EXTERNAL = "external_id"
OWN = "onesignal_id"
_MOST_SPENT = 1e12
_TYPE = "iOSPush"
_FACTS = ("app_version", "os_version", "session_count", "session_time", "push_enabled")
_More = Annotated[int, Meta(ge=0, lt=1_000_000)]


class _Subscription(
    msgspec.Struct, frozen=True, rename={"os_version": "device_os", "push_enabled": "enabled"}
):
    type: Literal["iOSPush"] = "iOSPush"
    id: Any = None
    token: Any = None
    notification_types: Any = None
    app_version: str | None = None
    os_version: str | None = None
    session_count: int | None = None
    session_time: int | None = None
    push_enabled: bool | None = None


class _Properties(msgspec.Struct, frozen=True, rename={"latitude": "lat", "longitude": "long"}):
    tags: dict[str, Any] | None = None
    language: str | None = None
    country: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class _Purchase(msgspec.Struct, frozen=True):
    amount: Any = None
    count: _More | None = 1


class _Deltas(msgspec.Struct, frozen=True):
    session_count: _More | None = None
    session_time: _More | None = None
    purchases: list[_Purchase] | None = None


_Subscriptions = Annotated[list[_Subscription], Meta(max_length=20)]


async def create_user(call: Call, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/users: 201 for a new user, 200 for a known one."""
    identity = _read_identity(body.get("identity") or {})
    given, remedy = body.get("subscriptions"), f"Give at most 20 of {_TYPE}."
    given = [] if given is None else given
    subscriptions = convert(given, _Subscriptions, "subscriptions", remedy=remedy)
    external = await _external_of(call, identity)
    known = await _find(call, EXTERNAL, external)
    if (conflict := await _claimed(call, external, identity)) is not None:
        return conflict
    await call.service.people.add_user(call.app, external, aliases=_others(identity))
    for one in subscriptions:
        await _add(call, one, external)
    await _set_properties(call, external, body.get("properties"))
    return answer(await _shown(call, external), 201 if known is None else 200)


async def view_user(call: Call) -> dict[str, Any]:
    """GET /apps/{app_id}/users/by/{alias_label}/{alias_id}."""
    return await _shown(call, await _named(call))


async def change_user(call: Call, body: dict[str, Any]) -> Response:
    """PATCH of the same address."""
    external, more = await _named(call), _read_deltas(body.get("deltas"))
    await _set_properties(call, external, body.get("properties"))
    if more:
        devices, now = schema.devices, call.now
        changes: dict[str, Any] = {name: devices.c[name] + amount for name, amount in more.items()}
        if "session_count" in more:
            changes["last_session"] = now
        theirs = update(devices).where(*_owned(call, external))
        await call.service.database.change(theirs.values(**changes, updated_at=now))
    return answer({"properties": (await _shown(call, external))["properties"]}, 202)


async def remove_user(call: Call) -> dict[str, Any]:
    """DELETE of the same address. Devices stay, without a user."""
    await call.service.people.forget_user(call.app, await _named(call))
    return {}


async def view_identity(call: Call) -> dict[str, Any]:
    """GET …/identity, below a user or a subscription."""
    return await _identity_of(call, await _named(call))


async def add_aliases(call: Call, body: dict[str, Any]) -> Any:
    """PATCH …/identity, below a user or a subscription."""
    external, given = await _named(call), _read_identity(body.get("identity"))
    if given.get(EXTERNAL, external) != external or OWN in given:
        remedy = "Move the subscriptions to another user."
        raise InvalidInput("cannot be changed", "identity", remedy)
    if (conflict := await _claimed(call, external, given)) is not None:
        return conflict
    await call.service.people.add_user(call.app, external, aliases=_others(given))
    return await _identity_of(call, external)


async def remove_alias(call: Call, label: str) -> dict[str, Any]:
    """DELETE …/identity/{label}."""
    external = await _named(call)
    if label in (EXTERNAL, OWN):
        raise InvalidInput("cannot be removed", label, "Delete the user instead.")
    aliases = schema.user_aliases
    gone = delete(aliases).where(aliases.c.user_id == id_named(call.app, schema.users, external))
    if not await call.service.database.change(gone.where(aliases.c.label == label)):
        raise NotFound("alias not found")
    return await _identity_of(call, external)


async def create_subscription(call: Call, body: dict[str, Any]) -> Response:
    """POST /apps/{app_id}/users/by/{alias_label}/{alias_id}/subscriptions."""
    external = await _named(call)
    name = await _add(call, _read_one(body), external)
    found = (await _shown(call, external))["subscriptions"]
    mine = next((one for one in found if one["id"] == name), {"id": name})
    return answer({"subscription": mine}, 201)


async def change_subscription(
    call: Call, subscription_id: str, body: dict[str, Any]
) -> dict[str, Any]:
    """PATCH /apps/{app_id}/subscriptions/{subscription_id}."""
    await call.service.devices.get(call.app, subscription_id)
    await _tell(call, subscription_id, _read_one(body))
    return {}


async def remove_subscription(call: Call, subscription_id: str) -> Response:
    """DELETE of the same address, with all tokens."""
    await call.service.devices.get(call.app, subscription_id)
    await call.service.devices.forget(call.app, subscription_id)
    return answer({}, 202)


async def transfer_subscription(
    call: Call, subscription_id: str, body: dict[str, Any]
) -> dict[str, Any]:
    """PATCH …/owner."""
    await call.service.devices.get(call.app, subscription_id)
    external = await _external_of(call, _read_identity(body.get("identity")))
    await call.service.people.move_devices(call.app, [subscription_id], external)
    return await _identity_of(call, external)


async def _named(call: Call) -> str:
    """Return the external id of the user whom the address names. Raises `NotFound`."""
    if (device := call.parts.get("subscription_id")) is not None:
        owner = (await call.service.devices.get(call.app, device))["user"]
        if owner is None:
            raise NotFound("the subscription has no user")
        return str(owner)
    row = await _find(call, call.parts["alias_label"], call.parts["alias_id"])
    if row is None or row.external_id is None:
        raise NotFound("user not found")
    return str(row.external_id)


async def _find(call: Call, label: str, value: str) -> Row[Any] | None:
    """Return the row of a user by an alias, or None."""
    users, aliases = schema.users, schema.user_aliases
    query = select(users).where(users.c.app_id == call.app.row)
    if label in (EXTERNAL, OWN):
        column = users.c.external_id if label == EXTERNAL else users.c.public_id
        query = query.where(column == value)
    else:
        query = query.join(aliases, aliases.c.user_id == users.c.id).where(
            aliases.c.app_id == call.app.row, aliases.c.label == label, aliases.c.value == value
        )
    return await call.service.database.row(query)


def _read_identity(value: object) -> dict[str, str]:
    """Return ids by label. Raises `InvalidInput`."""
    given = convert(value, dict[str, Any], "identity", remedy="Give labels.")
    return {
        identifier(label, "identity", limit=128): identifier(one, f"identity.{label}"[:80])
        for label, one in given.items()
        if one is not None
    }


async def _external_of(call: Call, given: Mapping[str, str]) -> str:
    """Return the external id of an identity, or of the user that one of its aliases names."""
    if EXTERNAL in given:
        return given[EXTERNAL]
    for label, value in given.items():
        if (row := await _find(call, label, value)) is not None:
            return str(row.external_id)
    remedy = "Users are known by it here: give one."
    raise InvalidInput("is missing", "identity.external_id", remedy)


def _others(given: Mapping[str, str]) -> dict[str, str]:
    """Return the aliases without the user's own two ids."""
    return {label: value for label, value in given.items() if label not in (EXTERNAL, OWN)}


async def _claimed(call: Call, external: str, given: Mapping[str, str]) -> Response | None:
    """Return 409 if an alias belongs to another user."""
    taken = {}
    for label, value in _others(given).items():
        row = await _find(call, label, value)
        if row is not None and row.external_id != external:
            taken[label] = value
    if not taken:
        return None
    problem = {
        "code": "Conflict",
        "title": "One or more aliases are another user's",
        "meta": {"conflicting_aliases": taken},
    }
    return answer({"errors": [problem]}, 409)


async def _set_properties(call: Call, external: str, value: object) -> None:
    """Set the tags of a user, and language, country and place of the user's devices."""
    if value is None:
        return
    told = asdict(convert(value, _Properties, "properties", remedy="See its type."))
    if (tags := told.pop("tags")) is not None:
        await call.service.people.set_tags(call.app, "user", external, tags)
    if any(one is not None for one in told.values()):
        rows = await _devices_of(call, external)
        records = [DeviceRecord(id=row.public_id, **told) for row in rows]
        await call.service.devices.tell(call.app, records)


def _read_deltas(value: object) -> dict[str, float]:
    """Return the increment of each fact of a device. Raises `InvalidInput`."""
    value = {} if value is None else value
    given: _Deltas = convert(value, _Deltas, "deltas", remedy="Give how many more.")
    spent = 0.0
    for index, one in enumerate(given.purchases or ()):
        try:
            spent += float(one.amount) * (one.count or 0)
        except (TypeError, ValueError):
            spent = math.nan
        if not 0 <= spent < _MOST_SPENT:
            where = f"deltas.purchases[{index}].amount"
            raise InvalidInput("is not an amount", where, 'Give one such as "0.99".')
    more = {"session_count": given.session_count, "session_time": given.session_time}
    return {name: amount for name, amount in {**more, "amount_spent": spent}.items() if amount}


def _owned(call: Call, external: str) -> tuple[Any, Any]:
    """Return the conditions that select a user's devices."""
    devices, owner = schema.devices, id_named(call.app, schema.users, external)
    return devices.c.app_id == call.app.row, devices.c.user_id == owner


async def _devices_of(call: Call, external: str) -> Sequence[Row[Any]]:
    """Return the rows of a user's devices. OneSignal shows 20 subscriptions at most."""
    query = select(schema.devices).where(*_owned(call, external))
    return await call.service.database.rows(query.order_by(schema.devices.c.id).limit(100))


async def _identity_of(call: Call, external: str) -> dict[str, Any]:
    aliases = (await call.service.directory.user(call.app, external))["aliases"]
    named = {label: values[-1] for label, values in aliases.items()}
    return {"identity": {**named, EXTERNAL: external, OWN: public_id_of(call.app, external)}}


async def _shown(call: Call, external: str) -> dict[str, Any]:
    """Return a user as OneSignal shows one."""
    attributes, user = schema.attributes, id_named(call.app, schema.users, external)
    query = select(attributes.c.name, attributes.c.text).where(attributes.c.namespace == "tag")
    tags = await call.service.database.rows(query.where(attributes.c.user_id == user))
    devices = await _devices_of(call, external)
    properties: dict[str, Any] = {"tags": {tag.name: tag.text for tag in tags}}
    for name in ("language", "country"):
        if known := [getattr(one, name) for one in devices if getattr(one, name)]:
            properties[name] = known[0]
    return {
        **await _identity_of(call, external),
        "properties": properties,
        "subscriptions": [
            {
                "id": one.public_id,
                "app_id": call.app.id,
                "type": _TYPE,
                "enabled": bool(one.push_enabled),
                "session_count": one.session_count,
                "session_time": one.session_time,
                **({"app_version": one.app_version} if one.app_version is not None else {}),
                **({"device_os": one.os_version} if one.os_version is not None else {}),
            }
            for one in devices
        ],
    }


def _read_one(body: Mapping[str, Any]) -> _Subscription:
    remedy = f"Give a subscription of {_TYPE}."
    return convert(body.get("subscription"), _Subscription, "subscription", remedy=remedy)  # type: ignore[no-any-return]


async def _add(call: Call, given: _Subscription, external: str) -> str:
    """Store a subscription of a user. Return its id: that of the device which has the token."""
    device, held = given.id, given.token
    if device is None and held is not None:
        devices, tokens = schema.devices, schema.device_tokens
        holder = select(devices.c.public_id).join(tokens, tokens.c.device_id == devices.c.id)
        device = await call.service.database.scalar(
            holder.where(
                tokens.c.app_id == call.app.row,
                tokens.c.token == token(held, "subscription.token"),
                tokens.c.retired_at.is_(None),
            ).limit(1)
        )
    name = call.service.new_id() if device is None else identifier(device, "id", limit=64)
    await _tell(call, name, given, user=external)
    return name


async def _tell(call: Call, name: str, given: _Subscription, *, user: str | None = None) -> None:
    told: dict[str, Any] = {fact: getattr(given, fact) for fact in _FACTS}
    kinds, text = given.notification_types, given.token
    if isinstance(kinds, int) and not isinstance(kinds, bool):
        told["push_enabled"] = kinds > 0
    if text is not None:
        token(text, "subscription.token")
    devices = call.service.devices
    await devices.tell(call.app, [DeviceRecord(id=name, user=user, **told)])
    if text is not None:
        record = TokenRecord(device=name, kind="device", token=text, registered_at=call.now)
        await devices.register(call.app, [record])
