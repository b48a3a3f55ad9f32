"""The JSON objects of the control API, made from the fake's records. Times are epoch seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from typing import Any, Literal, get_type_hints

import msgspec

from apns_live import explain
from apns_live.testing.clock import RealClock
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import ActiveFault, Fault
from apns_live.testing.handles.pushes import Difference
from apns_live.testing.log import LogEntry, PushRecord
from apns_live.testing.namespaces import Namespace
from apns_live.testing.phones import Activity, Device, Token
from apns_live.testing.phones.decoding import as_json, peek_event
from apns_live.testing.state import Push
from apns_live.testing.wire import ConnectionSnapshot

Fake = FakeApns | Namespace
_BODY_SHOWN = 4096
_DEEP = 400
_ROOM = 64


class ErrorRow(msgspec.Struct):
    """Why a request was refused."""

    error: str
    field: str = ""
    remedy: str = ""


class HealthRow(msgspec.Struct):
    """The fake takes pushes on both ports."""

    status: Literal["ok"] = "ok"


class ClockRow(msgspec.Struct):
    """The fake's clock. ``offset`` is how far it is ahead of the machine's."""

    now: float
    offset: float
    simulated: bool

    @classmethod
    def of(cls, fake: Fake) -> ClockRow:
        """Return the clock of a fake."""
        clock = fake.clock
        offset = clock.offset if isinstance(clock, RealClock) else 0.0
        return cls(clock.time(), offset, not isinstance(clock, RealClock))


class CountsRow(msgspec.Struct, rename={"delivered_from_storage": "delivered from storage"}):
    """How often each state and reason occurred; how many phones, activities and tokens there are."""

    received: int
    stored: int
    delivered: int
    delivered_from_storage: int
    discarded: int
    refused: int
    discarded_by: dict[str, int]
    refused_by: dict[str, int]
    devices: int
    activities: int
    tokens: int

    @classmethod
    def of(cls, fake: Fake) -> CountsRow:
        """Return the counts of a fake."""
        phones, log = fake.devices, fake.log
        states = log.by_state
        return cls(
            received=states["received"],
            stored=states["stored"],
            delivered=states["delivered"],
            delivered_from_storage=states["delivered from storage"],
            discarded=states["discarded"],
            refused=sum(log.refused_by.values()),
            discarded_by=dict(sorted(log.discarded_by.items())),
            refused_by=dict(sorted(log.refused_by.items())),
            devices=len(phones.devices),
            activities=len(phones.activities),
            tokens=len(phones.registry.tokens),
        )


class FakeRow(msgspec.Struct, omit_defaults=True):
    """The running fake. ``clock`` and ``counts`` are absent inside a snapshot."""

    endpoint: str
    manage: str
    bundle_id: str
    environment: str
    devices: str
    seed: int
    version: str
    started_at: float
    clock: ClockRow | None = None
    counts: CountsRow | None = None

    @classmethod
    def of(cls, fake: Fake, started_at: float) -> FakeRow:
        """Return the description of the fake, without clock and counts."""
        where = fake.url, fake.manage_url, fake.bundle_id
        how = fake.state.environment, fake.state.devices, fake.seed
        return cls(*where, *how, own_version(), started_at)


@lru_cache(maxsize=1)
def own_version() -> str:
    """Return the version of the package, ``0`` where it is not installed."""
    try:
        return version("apns-live")
    except PackageNotFoundError:
        return "0"


class NamespaceRow(msgspec.Struct):
    """A namespace. ``path`` stands before the paths of this API: ``/namespaces/test-1/v1/devices``."""

    name: str
    path: str
    devices: int
    pushes: int
    faults: int

    @classmethod
    def of(cls, space: Namespace, _fake: object = None) -> NamespaceRow:
        """Return the row of a namespace."""
        counted = len(space.devices.devices), space.log.pushes.total, len(space.faults)
        return cls(space.name, f"/namespaces/{space.name}", *counted)


class ExplainRow(msgspec.Struct):
    """The meaning of a word of a push's result, as in ``apns-live explain``."""

    name: str
    kind: str
    meaning: str
    fault: str
    remedy: str
    log: str


class VerifiedRow(msgspec.Struct):
    """Whether exactly ``count`` pushes match, their numbers, and otherwise the closest other push."""

    ok: bool
    expected: int
    found: int
    numbers: list[int]
    closest: int | None
    differences: list[Difference]
    text: str


class BudgetRow(msgspec.Struct):
    """A budget of pushes; ``refills_at`` says when ``remaining`` next grows.

    ``pooled``: all activities of the app on this phone share it.
    """

    capacity: int
    remaining: int
    window: float
    law: str
    refills_at: float | None
    pooled: bool

    @classmethod
    def of(cls, activity: Activity, fake: Fake) -> BudgetRow | None:
        """Return the budget that counts an activity's pushes."""
        phones, now = fake.devices, fake.clock.time()
        law, budget = phones.law_of(activity.device), phones.budget_of(activity)
        if law is None or budget is None:
            return None
        left, refills_at = budget.remaining(now), budget.refills_at(now)
        return cls(budget.capacity, left, law.window, law.kind, refills_at, bool(law.pooled))


class StartBudgetRow(msgspec.Struct):
    """The push-to-start budget of the first app on a phone; ``remaining`` may be below 0."""

    capacity: int
    remaining: int
    window: float

    @classmethod
    def of(cls, device: Device, fake: Fake) -> StartBudgetRow | None:
        """Return the push-to-start budget of a phone."""
        if (law := fake.devices.settings.start_budget) is None:
            return None
        budgets = (device.budgets or {}).items()
        budget = next((each for key, each in budgets if key[0] == "starts"), None)
        left = law.capacity if budget is None else budget.remaining(fake.clock.time())
        return cls(law.capacity, left, law.window)


class NotificationRow(msgspec.Struct):
    """An ordinary notification; texts are as sent, null where absent."""

    received_at: float
    push: int
    title: Any
    subtitle: Any
    body: Any
    badge: Any
    push_type: str

    @classmethod
    def of(cls, record: PushRecord) -> NotificationRow:
        """Return a notification of its push."""
        payload = shown_json(record.push.body)
        aps = payload.get("aps") if isinstance(payload, dict) else None
        aps = aps if isinstance(aps, dict) else {}
        alert = aps.get("alert")
        parts = alert if isinstance(alert, dict) else {"body": alert}
        title, subtitle, body = map(parts.get, ("title", "subtitle", "body"))
        push = record.push
        what = title, subtitle, body, aps.get("badge"), push.push_type
        return cls(push.received_at, record.number, *what)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow(Fault):
    """A fault in force, with how often it was matched and how often it struck."""

    id: int
    matched: int
    fired: int


_FAULT_DEFAULTS: dict[str, Any] = {
    each.name: each.default for each in fields(Fault) if each.name != "action"
}


def _fault_row(active: ActiveFault, _fake: Fake) -> dict[str, object]:
    """Return a fault in the format of a scenario file, with its id and counts."""
    row: dict[str, object] = {"id": active.fault_id, "action": active.fault.action}
    for name, default in _FAULT_DEFAULTS.items():
        value = getattr(active.fault, name)
        if value != default and value not in ((), {}):
            row[name] = value
    return row | {"matched": active.matched, "fired": active.fired}


def shown_json(data: bytes) -> object:
    """Return decoded JSON, or None if it is empty, cannot be decoded, or is too deep to encode.

    JSON at the interpreter's recursion limit can be decoded, but not encoded inside an answer.
    """
    decoded = as_json(data)
    if data.count(b"[") + data.count(b"{") > _DEEP:
        wrapped = decoded
        for _ in range(_ROOM):
            wrapped = [wrapped]
        try:
            msgspec.json.encode(wrapped)
        except RecursionError:
            return None
    return decoded


# Rows of records. Most of their fields are the record's.

Read = Callable[[Any, Fake], object]
_READERS: dict[type, Read] = {Namespace: NamespaceRow.of, ActiveFault: _fault_row}


def row_of(thing: object, fake: Fake) -> Any:
    """Return the row of a record; return anything else unchanged."""
    read = _READERS.get(type(thing))
    return thing if read is None else read(thing, fake)


def _row(name: str, about: str, record: type, *more: type, without: str, **own: Any) -> Any:
    """Return the struct of a record's row, and register how to create one.

    It has the fields of ``record`` and ``more`` but for those ``without``, and its ``own``: a type, for
    an attribute of that name, or a type with the attribute's path or a function of record and fake.
    """
    left_out = set(without.split())
    hints = {key: kind for each in (*more, record) for key, kind in get_type_hints(each).items()}
    types = {key: kind for key, kind in hints.items() if key not in left_out}
    readers: dict[str, Read] = {}
    for key, asked in own.items():
        types[key], how = asked if isinstance(asked, tuple) else (asked, key)
        readers[key] = _path(how) if isinstance(how, str) else how
    for key in types.keys() - own.keys():
        readers[key] = _path(key if key in get_type_hints(record) else f"push.{key}")
    ordered = [(key, readers[key]) for key in types if readers[key] is not _absent]
    _READERS[record] = lambda thing, fake: {key: read(thing, fake) for key, read in ordered}
    namespace = {"__doc__": about}
    return msgspec.defstruct(
        name, list(types.items()), namespace=namespace, module=__name__, kw_only=True
    )


def _path(path: str) -> Read:
    get = attrgetter(path)
    return lambda thing, _: get(thing)


def _absent(_thing: object, _fake: object) -> None:
    """Mark a field that only some answers have."""


def _rows(name: str) -> Read:
    get = attrgetter(name)
    return lambda thing, fake: [row_of(each, fake) for each in get(thing)]


def _json(name: str) -> Read:
    get = attrgetter(name)
    return lambda thing, _: shown_json(get(thing))


def _pending(activity: Activity, _fake: Fake) -> object:
    refresh = activity.refresh
    return shown_json(refresh.content) if refresh is not None and refresh.due else None


def _alert(activity: Activity, _fake: Fake) -> object:
    alert = shown_json(activity.alert)
    return {"title": alert, "body": None} if isinstance(alert, str) else alert


def event_of(record: PushRecord, _fake: object = None) -> str | None:
    """Return the event of a push. Read it from the body if no phone has done so."""
    event = record.event or peek_event(record.push.body)
    return event if event in {"start", "update", "end"} else None


def _explained(record: PushRecord, _fake: Fake) -> str:
    word = record.why or record.reason
    return word if explain.find(word) else ""


TokenRow = _row(
    "TokenRow",
    """A token. ``kind``: device, start, activity, widgets, controls; ``condition``: live, silent, ...

    ``told`` is False while the app's token stream kept quiet about it.
    """,
    Token,
    without="text topic status silent",
    token=(str, "text"),
    bundle_id=str,
    condition=str,
    device=(str, "device.id"),
    activity=(str | None, lambda token, _: token.activity and token.activity.id),
)
ActivityRow = _row(
    "ActivityRow",
    """A Live Activity as it is shown.

    ``asks``: its owner has not consented yet, so it has no token. ``pending`` is the state that waits
    for the next refresh.
    """,
    Activity,
    without="content refresh rotate_at expires_at collapse_id wake_at",
    device=(str, "device.id"),
    attributes=(Any, _json("attributes")),
    content_state=(Any, _json("content")),
    alert=(Any, _alert),
    token=(str | None, lambda activity, _: activity.token and activity.token.text),
    budget=(BudgetRow | None, BudgetRow.of),
    pending=(Any, _pending),
)
DeviceRow = _row(
    "DeviceRow",
    """A simulated phone with its activities.""",
    Device,
    without="serial offline_until removed starts budgets held burst_at wake_at",
    os_version=(str, lambda device, _: "{}.{}".format(*device.os_version)),
    online=(bool, lambda device, fake: not (device.offline_until or 0) > fake.clock.time()),
    tokens=(list[TokenRow], _rows("tokens")),  # type: ignore[valid-type]
    start_budget=(StartBudgetRow | None, StartBudgetRow.of),
    stored=(int, "waiting"),
    activities=(list[ActivityRow], _rows("activities")),  # type: ignore[valid-type]
    notifications=(
        list[NotificationRow],
        lambda device, _: [NotificationRow.of(each) for each in device.notifications or ()],
    ),
)
LogRow = _row(
    "LogRow",
    """One change of state of one push.""",
    LogEntry,
    without="record",
    push=(int, "record.number"),
    apns_id=(str, "record.push.apns_id"),
    token=(str, "record.push.token"),
)
_UNSET = msgspec.UnsetType
PushRow = _row(
    "PushRow",
    """One request to the push port, and what became of it.

    ``demoted``: it came over the budget and was delayed. ``explain`` is what to ask ``apns-live
    explain`` and ``/v1/explain/{word}``; ``""`` when there is nothing to explain.
    """,
    PushRecord,
    Push,
    without="push body channel_id connection_id storage_policy",
    channel=(str | None, "push.channel_id"),
    connection=(int, "push.connection_id"),
    size=(int, lambda record, _: len(record.push.body)),
    event=(str | None, event_of),
    state=(str | None, lambda record, _: record.state or None),
    explain=(str, _explained),
    payload=(Any | _UNSET, _absent),
    body=(str | _UNSET, _absent),
    log=(list[LogRow] | _UNSET, _absent),  # type: ignore[valid-type]
)
ConnectionRow = _row(
    "ConnectionRow",
    """One connection; null where the face cannot know.""",
    ConnectionSnapshot,
    without="connection_id bound_key team_id last_stream_id",
    id=(int, "connection_id"),
    key_id=(str | None, "bound_key"),
)


def with_payload(record: PushRecord, fake: Fake) -> dict[str, Any]:
    """Return a push with its decoded body, or with the first bytes of a body that is not JSON."""
    row: dict[str, Any] = row_of(record, fake)
    row["payload"] = shown_json(record.push.body)
    if row["payload"] is None:
        row["body"] = record.push.body[:_BODY_SHOWN].decode("utf-8", "replace")
    return row
