"""Reads proto3 JSON: both spellings of each field, and Google's error texts.

Source: Protocol Buffers, "ProtoJSON Format"; the texts are those that FCM was seen to answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .answers import GoogleError, bad_field

TEXT, BOOL, TEXTS, STRUCT = "TYPE_STRING", "TYPE_BOOL", "map", "struct"
Shape = Mapping[str, Any]

_LABEL: Shape = {"analytics_label": TEXT}
_NOTIFICATION: Shape = {"title": TEXT, "body": TEXT, "image": TEXT}
_APNS: Shape = {
    "headers": TEXTS,
    "payload": STRUCT,
    "fcm_options": {**_LABEL, "image": TEXT},
    "live_activity_token": TEXT,
}
MESSAGE: Shape = {
    "name": TEXT,
    "data": TEXTS,
    "notification": _NOTIFICATION,
    # Read by those whom they are for: nothing in them reaches an Apple device.
    "android": STRUCT,
    "webpush": STRUCT,
    "apns": _APNS,
    "fcm_options": _LABEL,
    "token": TEXT,
    "fid": TEXT,
    "topic": TEXT,
    "condition": TEXT,
}
REQUEST: Shape = {"message": MESSAGE, "validate_only": BOOL}
_LOCATION = "type.googleapis.com/google.protobuf.Struct"


def read(value: object, shape: Shape, path: str = "") -> dict[str, Any]:
    """Return the fields of an object by their proto names; null counts as absent.

    Raises `GoogleError` (400) for unknown fields and wrong types. Maps and structs stay as they are.
    """
    if not isinstance(value, dict):
        raise _invalid(path or "message", "message", value)
    found: dict[str, Any] = {}
    for name, entry in value.items():
        known = _snake(name)
        if known not in shape or name not in (known, _camel(known)):
            where = f" at '{path}'" if path else ""
            raise bad_field(
                path,
                f'Invalid JSON payload received. Unknown name "{name[:100]}"{where}: Cannot find '
                "field.",
            )
        if entry is None:
            continue
        if known in found:
            raise bad_field(
                path or "message",
                f"Invalid value at '{path}' (oneof), field '{known}' is set twice.",
            )
        inner, where = shape[known], f"{path}.{known}" if path else known
        found[known] = read(entry, inner, where) if isinstance(inner, Mapping) else entry
        if not isinstance(inner, Mapping):
            _check(entry, inner, where)
    return found


def _check(value: object, kind: str, path: str) -> None:
    if kind == TEXT and not isinstance(value, str):
        raise _invalid(path, kind, value)
    if kind == BOOL and not isinstance(value, bool):
        raise _invalid(path, kind, value)
    if kind in (TEXTS, STRUCT) and not isinstance(value, dict):
        raise _invalid(path, _LOCATION if kind == STRUCT else kind, value)
    if kind == TEXTS and isinstance(value, dict):
        for index, entry in enumerate(value.values()):
            if not isinstance(entry, str):
                raise _invalid(f"{path}[{index}].value", TEXT, entry)


def _invalid(path: str, kind: str, value: object) -> GoogleError:
    return bad_field(path, f"Invalid value at '{path}' ({kind}), {json.dumps(value)[:100]}")


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)
