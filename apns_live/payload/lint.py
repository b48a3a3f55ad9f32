"""Checks a complete payload, as a file or a dict, and predicts what a phone does."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import InvalidPayload, InvalidSetting
from ..refusals import refused
from .encode import LIMITS, bytes_by_key, check_activity_data
from .rules import EVENTS, Findings, PayloadProblem, PayloadWarning, check_payload, kind_of
from .values import json_bytes, plain_object


@dataclass(frozen=True, slots=True)
class LintReport:
    """The result of `lint`."""

    kind: str
    """start, update, end, alert, background or unknown."""
    size: int
    """Bytes: of the text as given, or of its compact JSON when a mapping was given."""
    compact_size: int
    """Bytes without the spaces and line ends that a file may have; APNs counts what is sent."""
    limit: int
    """Bytes that the target allows."""
    problems: tuple[PayloadProblem, ...]
    """Problems that must be fixed: APNs refuses the push, or the phone shows nothing."""
    warnings: tuple[PayloadWarning, ...]
    """Warnings: values that Apple ignores, caps, or does not document."""
    bytes_by_key: dict[str, int]
    """Bytes of each key's text, largest first; an object contains its members."""
    explanation: tuple[str, ...]
    """Sentences for a person: the kind of payload, and what a phone does with it."""

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems


def lint(
    data: bytes | str | Mapping[str, Any],
    *,
    target: Literal["device", "broadcast"] = "device",
    now: float | None = None,
) -> LintReport:
    """Check a payload that is already JSON.

    ``now`` (seconds since 1970) switches on the checks of dates against the present. Never raises
    for anything in the payload; `InvalidSetting` for an unknown target.
    """
    if target not in LIMITS:
        raise refused(InvalidSetting, "target", "target", target=target)
    found = Findings()
    payload, size = _read(data, found)
    if payload is None:
        said = "This is not a JSON object, so APNs answers 400, or the phone ignores it."
        problems = tuple(found.problems)
        return LintReport("unknown", size, size, LIMITS[target], problems, (), {}, (said,))
    compact, limit = len(json_bytes(payload)), LIMITS[target]
    kind = kind_of(payload)
    check_payload(payload, kind, target, now, found)
    if compact > limit:
        found.problem("too_large", "", size=compact, over=compact - limit, limit=limit)
    else:
        if size > limit:
            found.warning("spaces", "", size=size, compact=compact, limit=limit)
        if kind in EVENTS:
            check_activity_data(payload["aps"], found)
    return LintReport(
        kind,
        size,
        compact,
        limit,
        tuple(found.problems),
        tuple(found.warnings),
        bytes_by_key(payload),
        tuple(_explanation(payload, kind, size, compact, target, found)),
    )


def _read(data: bytes | str | Mapping[str, Any], found: Findings) -> tuple[Any, int]:
    """Return a payload and its size in bytes; None and a problem when it cannot be read."""
    if isinstance(data, Mapping):
        plain = _plain(data, found)
        return plain, 0 if plain is None else len(json_bytes(plain))
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    size = len(raw)
    if raw.startswith(b"\xef\xbb\xbf"):
        found.problem("byte_order_mark", "")
        raw = raw[3:]

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                found.problem("duplicate_key", key)
            seen[key] = value
        return seen

    def constant(name: str) -> None:
        found.problem("no_json_number", "", name=name)

    value = None
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=members, parse_constant=constant)
        if not isinstance(value, dict):
            found.problem("not_object", "")
    except UnicodeDecodeError as error:
        found.problem("not_utf8", "", at=error.start + 1)
    except json.JSONDecodeError as error:
        why = f"{error.msg} at line {error.lineno}, column {error.colno}."
        found.problem("not_json", "", why=why)
    except RecursionError:
        found.problem("too_deep", "")
    except ValueError:
        found.problem("not_json", "", why="it holds a number with thousands of digits. Send text.")
    return _plain(value, found) if isinstance(value, dict) else None, size


def _plain(value: Mapping[str, Any], found: Findings) -> dict[str, Any] | None:
    try:
        return plain_object(value, "payload")
    except InvalidPayload as error:
        where = error.field.removeprefix("payload.")
        found.problem("bad_value", where, problem=error.problem, remedy=error.remedy)
        return None


_KINDS = {
    "start": "This starts a live activity; send it to push-to-start tokens (iOS 17.2).",
    "update": "This updates a live activity; send it to its activity token, or broadcast it.",
    "end": "This ends a live activity; send it to its activity token, or broadcast it.",
    "alert": "This is an ordinary notification; send it to device tokens.",
    "background": "This is a silent push; send it to device tokens with priority 5.",
    "unknown": "This is neither a live activity push nor a notification.",
}


def _explanation(
    payload: Mapping[str, Any], kind: str, size: int, compact: int, target: str, found: Findings
) -> list[str]:
    sentences = [_KINDS[kind]]
    spare = LIMITS[target] - compact
    where = "a broadcast" if target == "broadcast" else "a device"
    if spare >= 0:
        sentences.append(f"It has {compact} bytes; {where} may be sent {spare} more.")
    if size > compact:
        sentences.append(f"{size - compact} bytes of the text are spaces and line ends.")
    aps = payload.get("aps")
    if isinstance(aps, Mapping):
        if kind == "update" and "alert" not in aps:
            sentences.append(
                "Without an alert it changes the card silently; priority 5 spares the hourly budget."
            )
        if kind == "end" and "dismissal-date" not in aps:
            sentences.append("Without a dismissal date the card may stay for up to 4 hours.")
        if kind in {"start", "update"} and "stale-date" not in aps:
            sentences.append("Without a stale date the state is never shown as stale.")
    if found.problems:
        sentences.append("APNs may answer 200 all the same: it does not look into the payload.")
    else:
        sentences.append("Whether the content state fits the app's Swift type cannot be seen here.")
    return sentences
