"""Validated requests, and the push messages made from them. Accept and send both use these."""

from typing import Any, Literal

import msgspec

from ...errors import InvalidInput

Text = str | dict[str, str]
"""A text, or one for each language tag with ``en`` among them."""

Urgency = Literal["urgent", "normal", "quiet"]


class Audience(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of devices: all that match any given part, minus the excluded ones.

    ``users`` are external ids, ``user_ids`` internal user ids, ``devices`` device ids,
    ``segments`` names or ids, ``groups`` slugs, ``filter`` a tree of conditions (JSON).
    """

    everyone: bool = False
    users: tuple[str, ...] = ()
    user_ids: tuple[str, ...] = ()
    aliases: dict[str, tuple[str, ...]] = {}
    devices: tuple[str, ...] = ()
    segments: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    filter: dict[str, Any] | None = None
    exclude_users: tuple[str, ...] = ()
    exclude_devices: tuple[str, ...] = ()
    exclude_segments: tuple[str, ...] = ()
    exclude_groups: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no part is given."""
        named = (self.users, self.user_ids, self.devices, self.segments, self.groups)
        return not (self.everyone or any(named) or any(self.aliases.values()) or self.filter)

    def check(self) -> None:
        """Raise `InvalidInput` for an empty audience."""
        if self.is_empty:
            raise InvalidInput(
                "names nobody",
                "audience",
                "Name users, devices, groups, segments or a filter; or say everyone.",
            )


class CatalogText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text from the app's string catalog: its key, and the values for its placeholders."""

    key: str
    args: tuple[str, ...] = ()


class AlertText(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An alert. Its texts may be dicts by language.

    ``title_key`` and ``body_key`` replace the texts by keys that the phone translates itself.
    """

    title: Text
    body: Text
    sound: str | None = None
    title_key: CatalogText | None = None
    body_key: CatalogText | None = None


class Presentation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Alert, dates and urgency of a state. ``*_date`` is seconds since 1970, ``*_after`` from sending."""

    alert: AlertText | None = None
    stale_date: float | None = None
    stale_after: float | None = None
    dismissal_date: float | None = None
    dismiss_after: float | None = None
    relevance_score: float | None = None
    urgency: Urgency | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Start an activity on every device of an audience. ``start_at`` and ``end_at`` are seconds.

    ``end_presentation`` goes with the end at ``end_at``; its times to live count from there.
    ``id_attribute`` is where the activity's id goes in the attributes, so that the app on the phone
    can say whose token it hands in: a name, or a path such as ``onesignal.activityId``. An attribute
    that is there already stays. ``hand_over_after`` is the age of a card, in seconds, at which a new one
    takes its place before iOS ends it; 0 for never, None as the app or the service is set. ``operation`` is the id of what is accepted, and must be a new one;
    without it one is made.
    """

    attributes_type: str
    content_state: dict[str, Any]
    presentation: Presentation
    audience: Audience
    attributes: dict[str, Any] = {}
    id_attribute: str = ""
    id: str | None = None
    environment: str | None = None
    channel: str | None = None
    revision: int | None = None
    start_at: float | None = None
    end_at: float | None = None
    end_presentation: Presentation = Presentation()
    tags: tuple[str, ...] = ()
    metadata: dict[str, str | int | float | bool] = {}
    stream_key: str | None = None
    hand_over_after: float | None = None
    dialect: str = "native"
    operation: str | None = None


class _Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an update and an end have in common."""

    id: str
    presentation: Presentation = Presentation()
    revision: int | None = None
    tags: tuple[str, ...] | None = None
    metadata: dict[str, str | int | float | bool] | None = None
    dialect: str = "native"
    operation: str | None = None


class Update(_Change, frozen=True, kw_only=True, omit_defaults=True):
    """Gives an activity a new state. ``tags`` and ``metadata`` stay unchanged if None.

    ``end_at`` sets the time of its end (seconds since 1970), with ``end_presentation``; None leaves
    it as it is. ``operation`` as in `Start`.
    """

    content_state: dict[str, Any]
    end_at: float | None = None
    end_presentation: Presentation = Presentation()


CANCELLED = "cancelled"
"""The reason of an end that cancels its start: pushes that were not sent yet are not sent."""


class End(_Change, frozen=True, kw_only=True, omit_defaults=True):
    """Ends an activity. Without a state the card keeps its last one. ``operation``: see `Start`."""

    content_state: dict[str, Any] | None = None
    reason: str = "requested"


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a stored call. ``operation`` is the id under which you find its outcomes.

    ``status`` is ``accepted``, ``scheduled``, ``superseded`` (there is a newer revision) or
    ``ignored`` (the activity had ended). ``version`` counts the states of the activity from 1.
    """

    operation: str
    activity: str
    status: str
    version: int
    devices: int = 0
    """Devices that have an activity token, or follow the channel: the state is sent to them."""
    queued: int = 0
    """Started devices without an activity token yet. They get the newest state when it arrives."""
    warning: str = ""
    """A note if the push will not do what the caller may expect, else empty."""


class Member(msgspec.Struct, frozen=True, gc=False):
    """A device with an activity token, and the newest version that it has."""

    device: int
    token: str
    environment: str
    acknowledged: int
    language: str | None
    frequent_updates: bool | None
