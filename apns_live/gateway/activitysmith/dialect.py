"""An app's settings for ActivitySmith's API (``app.settings["activitysmith"]``), and its calls."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...activities.accept.idempotency import Key
from ...activities.apps import App
from ...activities.times import to_text
from ...errors import InvalidSetting
from ...misfits import misfit
from ..calls import Call as AnyCall

DIALECT = "activitysmith"
ID_ATTRIBUTE = "activity_id"
"""Where the app finds the activity's id, which it hands in its token with."""
_REMEDY = "See docs/vendors/activitysmith.md for what can be set."


class DialectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one app.

    - ``attributes_type``: the Swift type of the cards, as the app registers it.
    - ``no_recipients_status``: 422, or 404 for programs written for the API before it had 422.
    - ``live_activities``: how many cards a device, or with ``counted`` ``account`` the whole app,
      may have from this dialect at the same time; None for no limit. ``at_limit`` says what a
      start does then.
    - ``answer_wait``: seconds that an answer waits for APNs, so that it can count devices; 0 answers at
      once, and counts the devices that the push is being sent to.
    - ``metrics_on_demand``: the first value creates the metric; otherwise a call must have created it
      before.
    - ``unknown_fields``: whether an unknown field is refused or ignored. Fields that ActivitySmith's
      own clients send are never refused.
    """

    attributes_type: str = "ActivitySmithAttributes"
    no_recipients_status: Literal[404, 422] = 422
    live_activities: Annotated[int, Meta(ge=1)] | None = 4
    counted: Literal["device", "account"] = "device"
    at_limit: Literal["refuse", "end_oldest"] = "refuse"
    answer_wait: Annotated[float, Meta(ge=0, le=60)] = 3.0
    metrics_on_demand: bool = False
    unknown_fields: Literal["refuse", "ignore"] = "refuse"


def settings_of(app: App) -> DialectSettings:
    """Return an app's settings of this dialect. Raises `InvalidSetting`."""
    given = app.settings.get(DIALECT, {})
    try:
        return msgspec.convert(given, DialectSettings)
    except msgspec.ValidationError as error:
        wrong = misfit(error)
        field = f"settings.{DIALECT}.{wrong.field}".rstrip(".")
        raise InvalidSetting(wrong.problem, field, _REMEDY) from None


class Call(AnyCall):
    """A call of this dialect. A phone may read with its credential; such a call has no key."""

    @property
    def chosen(self) -> DialectSettings:
        """The app's settings of this dialect. Raises `InvalidSetting`."""
        return settings_of(self.app)

    @property
    def lenient(self) -> bool:
        """Whether unknown fields are ignored."""
        return self.chosen.unknown_fields == "ignore"

    @property
    def moment(self) -> float:
        """Seconds since 1970."""
        return self.gateway.clock.time()

    @property
    def timestamp(self) -> str:
        """The time of the answer, as this dialect writes it."""
        return to_text(self.now) or ""

    def once(self, digest: bytes | None = None) -> Key | None:
        """Return the idempotency key, an addition to ActivitySmith's API. Raises `InvalidInput`.

        It identifies the request as received, without the times and ids that the gateway derives.
        """
        if b"idempotency-key" not in self.headers:
            return None
        said: list[Any] = [self.scope["method"], self.scope["path"].removeprefix("/api"), self.body]
        return super().once(
            hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()
        )

    def base(self) -> str:
        """Return the URL at which phones reach this gateway, or an empty string.

        Never from the caller's Host header: phones would send their taps there.
        """
        return self.gateway.settings.public_url or self.gateway.address
