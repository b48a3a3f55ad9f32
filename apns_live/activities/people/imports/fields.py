"""Maps the values of one line to typed and validated facts.

CSV has flat columns and JSON Lines may nest: ``tag.team`` in a header and ``{"tags": {"team": ...}}``
mean the same. An unknown name is an error, unless the caller asks to ignore unknown names.

Exports of vendors have the vendors' columns (OneSignal, "Export subscriptions CSV"; Braze, "User export
object"), each of which may be absent. Vendors export tokens for ordinary pushes, but no push-to-start or
activity tokens; those come from the app.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from ....errors import InvalidInput
from ... import checks
from .. import records
from ..people import checked_aliases
from .reading import REASON

Kind = Literal["devices", "users", "tokens"]
KINDS: tuple[Kind, ...] = ("devices", "users", "tokens")

_DEVICE_FIELDS = tuple(name for name in records.DeviceRecord.__struct_fields__ if name != "id")
_WHEN = ("registered_at", "environment")
KNOWN: dict[Kind, tuple[str, ...]] = {
    "devices": ("id", *_DEVICE_FIELDS, "groups", "device_token", *_WHEN),
    "users": ("id", "groups"),
    "tokens": ("device", "user", "kind", "token", "attributes_type", *_WHEN),
}
"""The plain names of each kind of file."""
NESTED: dict[Kind, dict[str, str]] = {
    "devices": {"tag": "tags", "attribute": "attributes", "start_token": "start_tokens"},
    "users": {"tag": "tags", "attribute": "attributes", "alias": "aliases"},
    "tokens": {},
}
"""The first part of a dotted column; in JSON the key of the nested object."""
TYPES = ("text", "number", "boolean", "date", "list")
_TRUE, _FALSE = frozenset({"true", "t", "yes", "1"}), frozenset({"false", "f", "no", "0"})


class Belongings(msgspec.Struct, kw_only=True):
    """Tags, attributes, groups and aliases of a device or user, in stored form."""

    tags: dict[str, list[records.StoredValue]] = {}
    attributes: dict[str, list[records.StoredValue]] = {}
    groups: tuple[str, ...] = ()
    aliases: dict[str, str] = {}


class Facts(msgspec.Struct, kw_only=True):
    """The checked facts of one line."""

    devices: list[tuple[records.DeviceRecord, Belongings]] = []
    users: list[tuple[str, Belongings]] = []
    tokens: list[records.TokenRecord] = []


def facts_of(
    kind: Kind,
    values: Mapping[str, Any],
    *,
    texts: bool,
    now: int,
    registered_at: int = records.OLDEST,
) -> Facts:
    """Return the facts of one line in our own layout.

    ``values`` is already nested (see `nested`). With ``texts`` every value is a text, as in CSV.
    Times are milliseconds since 1970. Raises `InvalidInput` with the column as its field.
    """
    values = {name: value for name, value in values.items() if value is not None and value != ""}
    if kind == "users":
        name = checks.identifier(values.get("id"), "id")
        return Facts(users=[(name, _belongings(values, users=True))])
    if kind == "tokens":
        return _token(values, now, registered_at)
    return _device(values, texts, now, registered_at)


def nested(
    kind: Kind,
    flat: Mapping[str, Any],
    columns: Mapping[str, str],
    *,
    ignore_unknown: bool,
    ignored: set[str],
) -> dict[str, Any]:
    """Return the values of a line under our names.

    ``columns`` maps a name in the file to ours. A column that is mapped to an empty text is ignored, and
    with ``ignore_unknown`` every unknown one. Raises `InvalidInput` for an unknown name.
    """
    made: dict[str, Any] = {}
    groups = NESTED[kind]
    keys = set(groups.values())
    for name, value in flat.items():
        target = columns.get(name, name)
        head, dot, rest = target.partition(".")
        if target in KNOWN[kind] or (target in keys and isinstance(value, Mapping)):
            made[target] = {**made.get(target, {}), **value} if target in keys else value
        elif dot and head in groups and rest:
            where, _, kind_of_value = rest.rpartition(":")
            place = made.setdefault(groups[head], {})
            if head == "attribute" and where and kind_of_value in TYPES:
                place[where] = _cell(value, kind_of_value, target)
            else:
                place[rest] = value
        elif not target or ignore_unknown:
            ignored.add(name)
        elif name != REASON:
            raise InvalidInput("is unknown", str(name)[:80], _known_here(kind))
    return made


def check_layout(kind: Kind, vendor: str | None, names: Sequence[str]) -> None:
    """Check the kind of a file, its vendor, and our names of its columns. Raises `InvalidInput`."""
    if kind not in KINDS:
        remedy = f"Give one of {', '.join(KINDS)}."
        raise InvalidInput(f"{kind!r:.40} cannot be imported", "kind", remedy)
    if vendor is not None and vendor not in VENDORS:
        remedy = f"Give one of {', '.join(VENDORS)}, or name the columns."
        raise InvalidInput(f"{vendor!r:.40} is not known", "vendor", remedy)
    if vendor is not None and (kind != "devices" or names):
        problem = "reads whole devices by the vendor's own columns"
        raise InvalidInput(problem, "vendor", "Import devices, without a mapping of columns.")
    for name in names:
        head, dot, rest = name.partition(".")
        if name and name not in KNOWN[kind] and not (dot and rest and head in NESTED[kind]):
            problem = f"{name[:80]!r} does not apply to {kind}"
            raise InvalidInput(problem, "columns", _known_here(kind))


def _known_here(kind: Kind) -> str:
    dotted = [f"{head}.NAME" for head in NESTED[kind]]
    return f"Known here: {', '.join([*KNOWN[kind], *dotted])}."


def _device(values: dict[str, Any], texts: bool, now: int, registered_at: int) -> Facts:
    told = {name: values[name] for name in ("id", *_DEVICE_FIELDS) if name in values}
    for name in {"first_session", "last_session"} & told.keys():
        told[name] = records.moment(told[name], name)
    for name in {"push_enabled", "frequent_updates"} & told.keys():
        told[name] = _boolean(told[name], name) if texts else told[name]
    record = records.check_device(_convert(told, records.DeviceRecord, texts, required="id"))
    facts = Facts(devices=[(record, _belongings(values, users=False))])
    place = {"device": record.id, **_registered(values, registered_at)}
    given: list[tuple[str, dict[str, Any]]] = [
        (f"start_token.{scope}", {"kind": "start", "scope": scope, "token": token})
        for scope, token in _mapping(values, "start_tokens").items()
        if token not in {None, ""}
    ]
    if "device_token" in values:
        given.append(("device_token", {"kind": "device", "token": values["device_token"]}))
    facts.tokens += [_checked_token({**place, **token}, now, column) for column, token in given]
    return facts


def _registered(values: Mapping[str, Any], registered_at: int) -> dict[str, Any]:
    """Return when and where a line's tokens were registered."""
    when = values.get("registered_at")
    at = registered_at if when is None else records.moment(when, "registered_at")
    return {"registered_at": at, "environment": values.get("environment")}


def _token(values: dict[str, Any], now: int, registered_at: int) -> Facts:
    kind = values.get("kind", "start" if "attributes_type" in values else None)
    if kind not in {"start", "device"}:
        problem = "is missing" if kind is None else f"{kind!r:.40} cannot be imported"
        remedy = (
            "Give start (with attributes_type) or device. The app registers activity tokens itself."
        )
        raise InvalidInput(problem, "kind", remedy)
    token = {"kind": kind, "scope": values.get("attributes_type", "")}
    token |= {name: values.get(name) for name in ("device", "token")}
    token |= _registered(values, registered_at)
    facts = Facts(tokens=[_checked_token(token, now, "token")])
    if "user" in values:
        device = _convert(
            {"id": token["device"], "user": values["user"]}, records.DeviceRecord, False
        )
        facts.devices.append((records.check_device(device), Belongings()))
    return facts


def _checked_token(values: dict[str, Any], now: int, column: str) -> records.TokenRecord:
    try:
        return records.check_token(_convert(values, records.TokenRecord, False), now=now)
    except InvalidInput as error:
        name = error.field
        if name in {"token", ""} or "." in column:
            name = column
        elif name == "scope":
            name = "attributes_type"
        raise type(error)(error.problem, name, error.remedy) from None


def _belongings(values: Mapping[str, Any], *, users: bool) -> Belongings:
    aliases = _mapping(values, "aliases") if users else {}
    named = {label: value for label, value in aliases.items() if value not in (None, "")}
    attributes = _mapping(values, "attributes")
    given = {name: None if value == "" else value for name, value in attributes.items()}
    groups = values.get("groups", [])
    groups = groups.split(";") if isinstance(groups, str) else groups
    if not isinstance(groups, list):
        remedy = "Give slugs with ; between them, or a JSON list."
        raise InvalidInput("is not a list", "groups", remedy)
    slugs = (slug.strip() if isinstance(slug, str) else slug for slug in groups)
    return Belongings(
        tags=records.store_tags(_mapping(values, "tags"), "tag"),
        attributes=records.store_attributes(given, "attribute"),
        groups=tuple(dict.fromkeys(checks.slug(slug, "groups") for slug in slugs if slug != "")),
        aliases=checked_aliases(named, "alias.{}".format),
    )


def _mapping(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = values.get(name, {})
    if not isinstance(value, dict):
        raise InvalidInput("is not an object", name, "Give a JSON object.")
    return value


def _cell(value: object, kind: str, field: str) -> object:
    """Return the text of a CSV cell as the type that its column's name asks for."""
    if not isinstance(value, str) or value == "":
        return value
    if kind == "boolean":
        return _boolean(value, field)
    if kind == "list":
        return [part.strip() for part in value.split(";")]
    if kind == "date":
        return {"date": value}
    if kind == "number":
        try:
            return float(value)
        except ValueError:
            raise InvalidInput(f"{value[:32]!r} is not a number", field, "Give a number.") from None
    return value


def _boolean(value: object, field: str) -> bool:
    if isinstance(value, bool):
        return value
    word = value.casefold() if isinstance(value, str) else ""
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise InvalidInput("is not a boolean", field, "Give true or false.")


def _convert(values: dict[str, Any], kind: type[Any], texts: bool, required: str = "device") -> Any:
    if values.get(required) is None:
        raise InvalidInput("is missing", required, "Every line needs one.")
    return checks.convert(values, kind, strict=not texts, remedy="See the list of columns.")


Translate = Callable[[Mapping[str, Any], int, int], Facts | None]
_IOS = "0"  # OneSignal's device_type
_ONESIGNAL: dict[str, str] = {
    **{name: name for name in ("language", "country", "session_count", "amount_spent")},
    "external_user_id": "user",
    "game_version": "app_version",
    "device_os": "os_version",
    "playtime": "session_time",
}


def onesignal(values: Mapping[str, Any], now: int, registered_at: int) -> Facts | None:
    """Return the facts of a line of OneSignal's CSV; None for another platform than iOS.

    The token counts as registered at ``last_active``: the SDK registers it at every launch. Raises
    `InvalidInput`.
    """
    if values.get("device_type", _IOS) not in {_IOS, "iOS", ""}:
        return None
    made: dict[str, Any] = {"id": values.get("id") or values.get("player_id")}
    made.update({ours: values[theirs] for theirs, ours in _ONESIGNAL.items() if values.get(theirs)})
    for theirs, ours in (("created_at", "first_session"), ("last_active", "last_session")):
        if values.get(theirs):
            made[ours] = _utc(values[theirs], theirs)
    if place := values.get("location"):
        latitude, comma, longitude = place.strip("() ").partition(",")
        if not comma:
            remedy = "It is latitude,longitude in degrees."
            raise InvalidInput("is not a valid place", "location", remedy)
        made["latitude"], made["longitude"] = latitude.strip(), longitude.strip()
    if tags := values.get("tags"):
        with contextlib.suppress(msgspec.DecodeError):
            made["tags"] = msgspec.json.decode(tags)
        if not isinstance(made.get("tags"), dict):
            raise InvalidInput("is not a JSON object", "tags", "Export the list again.")
    if str(values.get("invalid_identifier", "")).casefold() in {"t", "true", "1"}:
        made["push_enabled"] = "false"
    elif values.get("identifier"):
        made["device_token"] = values["identifier"]
        made["registered_at"] = made.get("last_session", registered_at)
    return facts_of("devices", made, texts=True, now=now, registered_at=registered_at)


def braze(values: Mapping[str, Any], now: int, registered_at: int) -> Facts | None:
    """Return the facts of a line of Braze's user export: a user, and a device for each iOS token.

    A user without an external id is not stored, but the devices are. Raises `InvalidInput`.
    """
    user = values.get("external_id")
    told = {name: values[name] for name in ("country", "language") if values.get(name)}
    if isinstance(told.get("country"), str):
        told["country"] = told["country"].upper()
    if user is not None:
        told["user"] = user
    place = values.get("last_coordinates")
    if isinstance(place, list) and len(place) == 2:
        told["longitude"], told["latitude"] = place
    facts = Facts()
    if user is not None:
        aliases = values.get("user_aliases") or []
        person = {
            "id": user,
            "attributes": values.get("custom_attributes") or {},
            "aliases": {
                alias.get("alias_label"): alias.get("alias_name")
                for alias in aliases
                if isinstance(alias, dict)
            },
        }
        facts.users.extend(facts_of("users", person, texts=False, now=now).users)
    for token in values.get("push_tokens") or []:
        if not isinstance(token, dict) or str(token.get("platform", "")).casefold() != "ios":
            continue
        device = {
            **told,
            "id": token.get("device_id"),
            "device_token": token.get("token"),
            "push_enabled": token.get("notifications_enabled"),
        }
        one = facts_of("devices", device, texts=False, now=now, registered_at=registered_at)
        facts.devices.extend(one.devices)
        facts.tokens.extend(one.tokens)
    return facts if facts.users or facts.devices else None


VENDORS: dict[str, Translate] = {"onesignal": onesignal, "braze": braze}


def _utc(value: str, field: str) -> int:
    """OneSignal writes ``2026-01-31 20:00:00 UTC``, without the zone in older exports, or seconds."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return records.moment(int(text) * 1000 if len(text) <= 10 else int(text), field)
    try:
        return records.moment(text, field)
    except InvalidInput:
        return records.moment(f"{text} UTC", field)
