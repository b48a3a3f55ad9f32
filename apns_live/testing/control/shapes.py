"""The JSON objects of the control API as structs.

Times are seconds since 1970 on the fake's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

import msgspec

from apns_live.testing.faults import Fault
from apns_live.testing.log import LogEntry, PushRecord
from apns_live.testing.namespaces import Namespace
from apns_live.testing.phones import Activity, Device, Token
from apns_live.testing.state import Push
from apns_live.testing.wire import ConnectionSnapshot


def _row(name: str, about: str, *models: type, without: str, **own: Any) -> Any:
    """Return a struct with the fields of the models, but for some, and fields of its own."""
    fields: dict[str, Any] = {}
    for model in models:
        fields |= get_type_hints(model)
    for each in without.split():
        del fields[each]
    namespace = {"__doc__": about}
    return msgspec.defstruct(
        name, list((fields | own).items()), namespace=namespace, module=__name__, kw_only=True
    )


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


TokenRow = _row(
    "TokenRow",
    """A token. ``kind``: device, start, activity, widgets, controls; ``condition``: live, silent, ...

    ``told`` is False while the app's token stream kept quiet about it.
    """,
    Token,
    without="text topic status silent",
    token=str,
    bundle_id=str,
    condition=str,
    device=str,
    activity=str | None,
)
ActivityRow = _row(
    "ActivityRow",
    """A Live Activity as it is shown.

    ``asks``: its owner has not consented yet, so it has no token. ``pending`` is the state that waits
    for the next refresh.
    """,
    Activity,
    without="content refresh rotate_at expires_at collapse_id wake_at",
    device=str,
    attributes=Any,
    content_state=Any,
    alert=Any,
    token=str | None,
    budget=BudgetRow | None,
    pending=Any,
)


class NotificationRow(msgspec.Struct):
    """An ordinary notification; texts are as sent, null where absent."""

    received_at: float
    push: int
    title: Any
    subtitle: Any
    body: Any
    badge: Any
    push_type: str


DeviceRow = _row(
    "DeviceRow",
    """A simulated phone with its activities.""",
    Device,
    without="serial offline_until removed starts budgets held burst_at wake_at",
    os_version=str,
    online=bool,
    tokens=list[TokenRow],  # type: ignore[valid-type]
    start_budget=StartBudgetRow | None,
    stored=int,
    activities=list[ActivityRow],  # type: ignore[valid-type]
    notifications=list[NotificationRow],
)
LogRow = _row(
    "LogRow",
    """One change of state of one push.""",
    LogEntry,
    without="record",
    push=int,
    apns_id=str,
    token=str,
)
_UNSET = msgspec.UnsetType
PushRow = _row(
    "PushRow",
    """One request to the push port, and what became of it.

    ``demoted``: it came over the budget and was delayed. ``explain`` is what to ask ``apns-live
    explain`` and ``/v1/explain/{word}``; ``""`` when there is nothing to explain.
    """,
    Push,
    PushRecord,
    without="push body channel_id connection_id storage_policy",
    channel=str | None,
    connection=int,
    size=int,
    event=str | None,
    state=str | None,
    explain=str,
    payload=Any | _UNSET,
    body=str | _UNSET,
    log=list[LogRow] | _UNSET,  # type: ignore[valid-type]
)
ConnectionRow = _row(
    "ConnectionRow",
    """One connection; null where the face cannot know.""",
    ConnectionSnapshot,
    without="connection_id bound_key team_id last_stream_id",
    id=int,
    key_id=str | None,
)


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


class NamespaceRow(msgspec.Struct):
    """A namespace. ``path`` stands before the paths of this API: ``/namespaces/test-1/v1/devices``."""

    name: str
    path: str
    devices: int
    pushes: int
    faults: int

    @classmethod
    def of(cls, space: Namespace) -> NamespaceRow:
        """Return the row of a namespace."""
        counted = len(space.devices.devices), space.log.pushes.total, len(space.faults)
        return cls(space.name, f"/namespaces/{space.name}", *counted)


class NewNamespace(msgspec.Struct, forbid_unknown_fields=True):
    """A namespace to make. Without a name it gets one that no other had."""

    name: str | None = None


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token that was not issued here, in hex."""

    token: str


class NewChannel(msgspec.Struct, forbid_unknown_fields=True):
    """A channel to create, of the fake's own app unless another is named."""

    storage_policy: Literal[0, 1] = 0
    bundle_id: str | None = None


class Empty(msgspec.Struct, forbid_unknown_fields=True):
    """A body without fields."""


class NewDevice(msgspec.Struct, forbid_unknown_fields=True):
    """A phone to make."""

    id: str | None = None
    os_version: str | None = None
    app_version: str = ""
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
