"""OneSignal's users with aliases, tags and properties. They need an external id.

Source: OneSignal, "Create User", "View User", "Update User", "Create Alias", "Delete Alias".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta
from sqlalchemy import Row, delete, select, update
from starlette.responses import Response

from ...activities import DeviceRecord
from ...activities.apps import App
from ...activities.checks import identifier
from ...activities.finding import id_named
from ...activities.people.people import public_id_of
from ...activities.store import schema
from ...activities.times import milliseconds
from ...errors import InvalidInput, NotFound
from ..calls import Call
from ..context import Gateway
from ..problems import json_answer as answer
from ..reading import as_object, read

EXTERNAL = "external_id"
OWN = "onesignal_id"
_DELTA: Any = Annotated[int, Meta(ge=0, lt=1_000_000)]
_MOST_SPENT = 1e12


async def view(call: Call) -> Response:
    """GET /apps/{app_id}/users/by/{alias_label}/{alias_id}."""
    return answer(await shown(call.gateway, call.app, await named(call)))


async def change(call: Call, body: dict[str, Any]) -> Response:
    """PATCH of the same address."""
    external, deltas = await named(call), _read_deltas(body.get("deltas"))
    await set_properties(call, external, body.get("properties"))
    await _add_deltas(call, external, deltas)
    found = await shown(call.gateway, call.app, external)
    return answer({"properties": found["properties"]}, 202)


async def remove(call: Call) -> Response:
    """DELETE of the same address; devices stay, without a user."""
    await call.service.people.forget_user(call.app, await named(call))
    return answer({})


async def identity(call: Call) -> Response:
    """GET …/identity."""
    return await _identity_of(call, await named(call))


async def add_aliases(call: Call, body: dict[str, Any]) -> Response:
    """PATCH …/identity."""
    return await put_aliases(call, await named(call), body)


async def remove_alias(call: Call) -> Response:
    """DELETE …/identity/{label}."""
    external, label = await named(call), call.part("label")
    if label in (EXTERNAL, OWN):
        raise InvalidInput("cannot be removed", field=label, remedy="Delete the user instead.")
    aliases = schema.user_aliases
    gone = delete(aliases).where(aliases.c.user_id == id_named(call.app, schema.users, external))
    if not await call.service.database.change(gone.where(aliases.c.label == label)):
        raise NotFound("alias not found")
    return await _identity_of(call, external)


async def put_aliases(call: Call, external: str, body: dict[str, Any]) -> Response:
    """Give a user the aliases of the body."""
    given = read_identity(body.get("identity"))
    if given.get(EXTERNAL, external) != external or OWN in given:
        raise InvalidInput(
            "cannot be changed", field="identity", remedy="Move the subscriptions to another user."
        )
    if (conflict := await claimed(call, external, given)) is not None:
        return conflict
    await call.service.people.add_user(call.app, external, aliases=others(given))
    return await _identity_of(call, external)


async def _identity_of(call: Call, external: str) -> Response:
    found = await shown(call.gateway, call.app, external)
    return answer({"identity": found["identity"]})


def read_identity(value: object) -> dict[str, str]:
    """Return labels and ids. Raises `InvalidInput`."""
    given = read(value, dict[str, Any], "identity", "Give labels.")
    return {
        identifier(label, "identity", limit=128): identifier(one, f"identity.{label}"[:80])
        for label, one in given.items()
        if one is not None
    }


async def external_of(call: Call, given: Mapping[str, str]) -> str:
    """Return the external id that an identity names, or leads to. Raises `InvalidInput`."""
    if EXTERNAL in given:
        return given[EXTERNAL]
    for label, value in given.items():
        if (row := await find(call.gateway, call.app, label, value)) is not None:
            return str(row.external_id)
    raise InvalidInput(
        "is missing", field="identity.external_id", remedy="Users are known by it here: give one."
    )


async def claimed(call: Call, external: str, given: Mapping[str, str]) -> Response | None:
    """Return 409 when an alias is another user's."""
    taken = {}
    for label, value in others(given).items():
        row = await find(call.gateway, call.app, label, value)
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


def others(given: Mapping[str, str]) -> dict[str, str]:
    """Return the aliases beside the user's own two ids."""
    return {label: value for label, value in given.items() if label not in (EXTERNAL, OWN)}


async def find(gateway: Gateway, app: App, label: str, value: str) -> Row[Any] | None:
    """Return the row of a user by an alias, or None."""
    users, aliases = schema.users, schema.user_aliases
    query = select(users).where(users.c.app_id == app.row)
    if label == EXTERNAL:
        query = query.where(users.c.external_id == value)
    elif label == OWN:
        query = query.where(users.c.public_id == value)
    else:
        query = query.join(aliases, aliases.c.user_id == users.c.id).where(
            aliases.c.app_id == app.row, aliases.c.label == label, aliases.c.value == value
        )
    return await gateway.service.database.row(query)


async def named(call: Call) -> str:
    """Return the external id of the user in the address. Raises `NotFound`."""
    row = await find(call.gateway, call.app, call.part("alias_label"), call.part("alias_id"))
    if row is None or row.external_id is None:
        raise NotFound("user not found")
    return str(row.external_id)


async def set_properties(call: Call, external: str, value: object) -> None:
    """Set tags of a user; language, country and place are those of the user's devices here."""
    if value is None:
        return
    given = as_object(value, "properties")
    service = call.service
    if given.get("tags") is not None:
        tags = as_object(given["tags"], "properties.tags")
        await service.people.set_tags(call.app, "user", external, tags)
    told: dict[str, Any] = {
        name: read(given[key], kind, f"properties.{name}", "See its type.")
        for key, name, kind in (
            ("language", "language", str),
            ("country", "country", str),
            ("lat", "latitude", float),
            ("long", "longitude", float),
        )
        if given.get(key) is not None
    }
    if told:
        rows = await devices_of(call.gateway, call.app, external)
        await service.devices.tell(
            call.app, [DeviceRecord(id=row.public_id, **told) for row in rows]
        )


def _read_deltas(value: object) -> dict[str, float]:
    """Return how much more each fact of a device becomes. Raises `InvalidInput`."""
    given = {} if value is None else as_object(value, "deltas")
    more = {
        "session_count": _delta(given.get("session_count"), "deltas.session_count"),
        "session_time": _delta(given.get("session_time"), "deltas.session_time"),
        "amount_spent": _spent(given.get("purchases")),
    }
    return {name: amount for name, amount in more.items() if amount}


async def _add_deltas(call: Call, external: str, more: Mapping[str, float]) -> None:
    """Add sessions and purchases to what is known of the user's devices."""
    if not more:
        return
    devices = schema.devices
    now = milliseconds(call.gateway.clock)
    changes: dict[str, Any] = {name: devices.c[name] + amount for name, amount in more.items()}
    if "session_count" in more:
        changes["last_session"] = now
    await call.service.database.change(
        update(devices)
        .where(
            devices.c.app_id == call.app.row,
            devices.c.user_id == id_named(call.app, schema.users, external),
        )
        .values(**changes, updated_at=now)
    )


def _spent(value: object) -> float:
    if value is None:
        return 0.0
    field = "deltas.purchases"
    many = read(value, list[dict[str, Any]], field, "Give purchases.")
    total = 0.0
    for index, one in enumerate(many):
        try:
            total += float(one.get("amount", "")) * _delta(one.get("count", 1), field)
        except (TypeError, ValueError):
            total = math.nan
        if not 0 <= total < _MOST_SPENT:
            raise InvalidInput(
                "is not an amount",
                field=f"{field}[{index}].amount",
                remedy='Give one such as "0.99".',
            )
    return total


def _delta(value: object, field: str) -> int:
    return 0 if value is None else read(value, _DELTA, field, "Give how many more.")


async def devices_of(gateway: Gateway, app: App, external: str) -> Sequence[Row[Any]]:
    """Return the rows of a user's devices; 20 subscriptions is the most that OneSignal shows."""
    devices = schema.devices
    theirs = (
        devices.c.app_id == app.row,
        devices.c.user_id == id_named(app, schema.users, external),
    )
    query = select(devices).where(*theirs).order_by(devices.c.id).limit(100)
    return await gateway.service.database.rows(query)


async def shown(gateway: Gateway, app: App, external: str) -> dict[str, Any]:
    """Return a user as OneSignal shows one."""
    row = await find(gateway, app, EXTERNAL, external)
    if row is None:
        raise NotFound("user not found")
    aliases, attributes = schema.user_aliases, schema.attributes
    labels = await gateway.service.database.rows(
        select(aliases.c.label, aliases.c.value).where(aliases.c.user_id == row.id)
    )
    tags = await gateway.service.database.rows(
        select(attributes.c.name, attributes.c.text).where(
            attributes.c.user_id == row.id, attributes.c.namespace == "tag"
        )
    )
    devices = await devices_of(gateway, app, external)
    properties: dict[str, Any] = {"tags": {tag.name: tag.text for tag in tags}}
    for name in ("language", "country"):
        known = [getattr(device, name) for device in devices if getattr(device, name)]
        if known:
            properties[name] = known[0]
    return {
        "identity": {
            **{alias.label: alias.value for alias in labels},
            EXTERNAL: external,
            OWN: public_id_of(app, external),
        },
        "properties": properties,
        "subscriptions": [
            {
                "id": device.public_id,
                "app_id": app.id,
                "type": "iOSPush",
                "enabled": bool(device.push_enabled),
                "session_count": device.session_count,
                "session_time": device.session_time,
                **{
                    there: getattr(device, here)
                    for there, here in (("app_version", "app_version"), ("device_os", "os_version"))
                    if getattr(device, here) is not None
                },
            }
            for device in devices
        ],
    }
