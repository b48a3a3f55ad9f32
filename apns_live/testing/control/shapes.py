"""The JSON shapes of the control API, as structs: what is sent, and the OpenAPI document's schemas.

Times are seconds since 1970 on the fake's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from apns_live.testing.faults import Fault


class ClockRow(msgspec.Struct):
    """The fake's clock. ``offset`` is how far it is ahead of the machine's."""

    now: float
    offset: float
    simulated: bool


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


class FakeRow(msgspec.Struct, omit_defaults=True):
    """What runs here. ``clock`` and ``counts`` are absent inside a snapshot."""

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


class StartBudgetRow(msgspec.Struct):
    """The push-to-start budget of the first app on a phone; ``remaining`` may be below 0."""

    capacity: int
    remaining: int
    window: float


class TokenRow(msgspec.Struct):
    """A token. ``kind``: device, start, activity, widgets, controls; ``condition``: live, silent, ...

    ``told`` is False while the app's token stream kept quiet about it.
    """

    token: str
    kind: str
    bundle_id: str
    attributes_type: str | None
    condition: str
    device: str
    activity: str | None
    automatic: bool
    sequence: int
    told: bool


class ActivityRow(msgspec.Struct, frozen=True):
    """A Live Activity as it is shown.

    ``asks``: its owner has not consented yet, so it has no token. ``pending`` is the state that waits
    for the next refresh.
    """

    id: str
    device: str
    bundle_id: str
    attributes_type: str | None
    attributes: Any
    content_state: Any
    timestamp: float
    state: str
    stale: bool
    started_at: float
    updated_at: float
    ended_at: float | None
    ended_by: str | None
    stale_date: float | None
    dismissal_date: float | None
    ends_at: float
    relevance_score: float | None
    alert: Any
    alerted_at: float | None
    alerts: int
    token: str | None
    token_due: float | None
    channel: str | None
    updates: int
    ignored: int
    budget: BudgetRow | None
    asks: bool
    pending: Any


class NotificationRow(msgspec.Struct):
    """An ordinary notification; texts are as sent, null where absent."""

    received_at: float
    push: int
    title: Any
    subtitle: Any
    body: Any
    badge: Any
    push_type: str


class DeviceRow(msgspec.Struct):
    """A simulated phone with its activities."""

    id: str
    os_version: str
    automatic: bool
    online: bool
    awake: bool
    low_power: bool
    live_activities_enabled: bool
    frequent_pushes: bool
    has_dynamic_island: bool
    consent: str
    tokens: list[TokenRow]
    start_budget: StartBudgetRow | None
    stored: int
    activities: list[ActivityRow]
    notifications: list[NotificationRow]


class LogRow(msgspec.Struct):
    """One change of state of one push."""

    sequence: int
    time: float
    push: int
    apns_id: str
    token: str
    device: str
    activity: str
    state: str
    why: str
    detail: str


class PushRow(msgspec.Struct, frozen=True):
    """One request to the push port, and what became of it.

    ``demoted``: it came over the budget and was delayed. ``explain`` is what to ask ``apns-live
    explain`` and ``/v1/explain/{word}``; ``""`` when there is nothing to explain.
    """

    number: int
    received_at: float
    status: int
    reason: str
    apns_id: str
    apns_unique_id: str
    token: str
    channel: str | None
    topic: str
    push_type: str
    priority: int
    expiration: int | None
    collapse_id: str | None
    connection: int
    size: int
    event: str | None
    timestamp: float | None
    device: str
    activity: str
    state: str | None
    why: str
    detail: str
    subscribers: int
    delivered: int
    demoted: bool
    explain: str
    payload: Any = msgspec.UNSET
    body: str | msgspec.UnsetType = msgspec.UNSET
    log: list[LogRow] | msgspec.UnsetType = msgspec.UNSET


class ConnectionRow(msgspec.Struct):
    """One connection; null where the face cannot know."""

    id: int
    peer: str
    face: str
    opened_at: float
    closed_at: float | None
    state: str
    open_streams: int | None
    max_streams: int | None
    window: int | None
    key_id: str | None
    accepted: int
    refused: int


class ErrorRow(msgspec.Struct):
    """Why a request was refused."""

    error: str
    field: str = ""
    remedy: str = ""


class ExplainRow(msgspec.Struct):
    """What a word of a push's fate means: the rows of ``apns-live explain``."""

    name: str
    kind: str
    meaning: str
    fault: str
    remedy: str
    log: str


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    """A body without fields."""


class NewDevice(msgspec.Struct, forbid_unknown_fields=True):
    """A phone to make."""

    id: str | None = None
    os_version: str | None = None
    bundle_id: str | None = None
    attributes_types: list[str] = []
    online: bool = True
    awake: bool = True
    low_power: bool = False
    live_activities_enabled: bool = True
    frequent_pushes: bool | None = None
    has_dynamic_island: bool = True
    consent: str | None = None
    widgets: bool = False
    controls: list[str] = []


class Consent(msgspec.Struct, forbid_unknown_fields=True):
    """What the owner answers a card that asks: allow, always or deny; none forgets an answer."""

    answer: Literal["none", "allow", "always", "deny"]


class DeviceChanges(msgspec.Struct, forbid_unknown_fields=True):
    """Switches of a phone; what is absent stays."""

    online: bool | None = None
    awake: bool | None = None
    low_power: bool | None = None
    live_activities_enabled: bool | None = None
    frequent_pushes: bool | None = None
    offline_for: float | None = None


class OpenApp(msgspec.Struct, forbid_unknown_fields=True):
    """Which app the user opens; the fake's own when absent.

    ``reads_tokens``: it reads the token properties at launch, and does not only wait for the streams.
    """

    bundle_id: str | None = None
    reads_tokens: bool = True


class Rotate(msgspec.Struct, forbid_unknown_fields=True):
    """``quietly``: the app's token stream does not tell of the new token."""

    quietly: bool = False


class NewActivity(msgspec.Struct, forbid_unknown_fields=True):
    """An activity that the app starts itself."""

    attributes_type: str
    attributes: dict[str, Any]
    content_state: dict[str, Any]
    bundle_id: str | None = None
    channel: str | None = None
    stale_date: float | None = None


class EndActivity(msgspec.Struct, forbid_unknown_fields=True):
    """How the app ends an activity."""

    content_state: dict[str, Any] | None = None
    dismissal_date: float | None = None


class KillToken(msgspec.Struct, forbid_unknown_fields=True, rename={"condition": "as"}):
    """What becomes of a token: ``unregistered`` and ``expired`` answer 410, ``silent`` 200."""

    condition: str
    since: float | None = None


class Advance(msgspec.Struct, forbid_unknown_fields=True):
    """How far to move the clock, in seconds; ``tokens`` ages provider tokens too."""

    seconds: float
    tokens: bool = False


class HealthRow(msgspec.Struct):
    """The fake takes pushes on both ports."""

    status: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow(Fault):
    """A fault in force, with how often it was matched and how often it struck."""

    id: int
    matched: int
    fired: int


class Verify(msgspec.Struct, forbid_unknown_fields=True):
    """How many pushes there must be that fit ``where``: fields of a push, or of its payload.

    ``event``, ``content_state``, ``attributes``, ``attributes_type``, ``alert``, ``timestamp``,
    ``token``, ``channel``, ``priority``, ``status``, ``reason``, ``state``, ``why`` and more. ``after``
    leaves out pushes up to this number.
    """

    where: dict[str, Any] = {}
    count: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 1
    after: int = 0


class DifferenceRow(msgspec.Struct):
    """One field that is not as expected."""

    field: str
    expected: Any
    found: Any


class VerifiedRow(msgspec.Struct):
    """Whether exactly that many pushes fit, their numbers, and else the closest that does not fit."""

    ok: bool
    expected: int
    found: int
    numbers: list[int]
    closest: int | None
    differences: list[DifferenceRow]
    text: str


class GoAway(msgspec.Struct, forbid_unknown_fields=True):
    """What GOAWAY says; null for no JSON."""

    reason: str | None = "Shutdown"


class Reset(msgspec.Struct, forbid_unknown_fields=True):
    """What to forget."""

    devices: bool = True
    pushes: bool = True
    faults: bool = True
