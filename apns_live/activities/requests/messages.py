"""Makes the push message for a phone, in its language, from an activity's stored state and its starts."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
from sqlalchemy import Row

from ... import payload
from ...errors import InvalidInput
from .. import checks
from ..apps import App
from ..store.statements import json_text
from . import AlertText, Audience, CatalogText, Presentation, Start, Text, Update

KEPT = timedelta(hours=8)
"""How long APNs keeps a state for an offline phone: as long as a card can be active."""


class Further(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a start differs from its activity's other starts; None means as the activity has it.

    Kept in the operation's ``request``.
    """

    audience: Audience | None = None
    attributes: dict[str, Any] | None = None
    alert: AlertText | None = None
    quiet: bool = False
    """True if the start itself is sent at priority 5, whatever later updates say."""
    hand_over: bool = False
    """True if it silently replaces cards that are soon too old."""


def read_further(operation: Row[Any]) -> Further:
    """Return where a start operation differs from its activity."""
    return msgspec.json.decode(operation.request, type=Further)


class Started:
    """An activity's row with the attributes and the alert of one of its starts."""

    __slots__ = ("_row", "attributes", "quiet", "start_alert")

    def __init__(self, row: Row[Any], further: Further) -> None:
        self._row = row
        self.quiet = further.quiet
        self.attributes: str = row.attributes
        self.start_alert: str = row.start_alert
        if further.attributes is not None:
            self.attributes = json_text(further.attributes)
        if further.alert is not None:
            self.start_alert = json_text(further.alert)
        elif further.hand_over:
            # Without its sound. iOS ignores a start that has no alert at all.
            stored = msgspec.json.decode(row.start_alert, type=AlertText | None)
            if stored is not None:
                self.start_alert = json_text(msgspec.structs.replace(stored, sound=None))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row, name)


def planned_end(request: Start | Update) -> dict[str, Any]:
    """Return the columns that a planned end changes; none without one."""
    if request.end_at is None:
        return {}
    message = json_text(request.end_presentation)
    return {"end_at": int(request.end_at * 1000), "end_message": message}


def together(one: Audience, other: Audience) -> Audience:
    """Return an audience that includes both: the union of groups, or else everyone."""
    if one == other or one.is_empty:
        return other
    if any(each != Audience(groups=each.groups) for each in (one, other)):
        return Audience(everyone=True)
    return Audience(groups=tuple(dict.fromkeys([*one.groups, *other.groups])))


def presentation_of(activity: Row[Any] | Started) -> Presentation:
    """Return what goes with the stored state."""
    return msgspec.json.decode(activity.message, type=Presentation)


def start_alert_of(activity: Row[Any] | Started) -> AlertText | None:
    """Return the alert that the activity was started with, whatever updates carried since."""
    return msgspec.json.decode(activity.start_alert, type=AlertText | None)


_SAME: Mapping[str, str] = {
    **dict.fromkeys(("zh-cn", "zh-sg"), "zh-hans"),
    **dict.fromkeys(("zh-tw", "zh-hk", "zh-mo"), "zh-hant"),
    **dict.fromkeys(("no", "nn"), "nb"),
    "iw": "he",
    "in": "id",
}
"""Other tags of the same language, or of one that is read alike, as phones and vendors write them."""


def languages_of(alert: AlertText | None) -> frozenset[str]:
    """Return the languages that all texts of an alert have; empty when it has one for all."""
    texts = () if alert is None else (alert.title, alert.body)
    tags = [frozenset(text) for text in texts if isinstance(text, dict)]
    return frozenset.intersection(*tags) if tags else frozenset()


def check_languages(text: Text, field: str) -> None:
    """Raise `InvalidInput` for texts by language without English, or an invalid language tag."""
    if isinstance(text, str):
        return
    if "en" not in text:
        raise InvalidInput("has no entry for en", field, "Give en: others fall back on it.")
    for tag in text:
        checks.language(tag, f"{field}.{tag}")


def choose(text: Text, language: str | None) -> str:
    """Return the text for a device's language: exact, then its base language, then English."""
    return text if isinstance(text, str) else _chosen(text, language)[1]


def _chosen(text: dict[str, str], language: str | None) -> tuple[str, str]:
    by_tag = {tag.lower(): value for tag, value in text.items()}
    by_tag = {_SAME.get(tag, tag): value for tag, value in by_tag.items()} | by_tag
    wanted = (language or "en").lower()
    while wanted:
        for tag in (wanted, _SAME.get(wanted, wanted)):
            if tag in by_tag:
                return tag, by_tag[tag]
        wanted = wanted.rpartition("-")[0]
    return "en", by_tag["en"]


def spoken_on_channels(app: App) -> str:
    """Return the language of an app's broadcasts: its setting ``language``, English by default."""
    return str(app.settings.get("language", "en"))


def broadcast_warning(app: App, channel: str | None, alert: AlertText | None) -> str:
    """Return what a caller should know of an alert by language on a channel; empty if nothing."""
    if channel is None or alert is None:
        return ""
    by_language = [
        text
        for text, key in ((alert.title, alert.title_key), (alert.body, alert.body_key))
        if isinstance(text, dict) and key is None and len(set(text.values())) > 1
    ]
    if not by_language:
        return ""
    spoken = spoken_on_channels(app)
    used = ", ".join(dict.fromkeys(_chosen(text, spoken)[0] for text in by_language))
    return (
        f"a broadcast is one push for all: this alert rings in {used} on every device. Give title_key "
        "and body_key, and each phone takes the text from the app's own string catalogue"
    )


def best_language(languages: frozenset[str], language: str | None) -> str:
    """Return which of the texts' languages a device gets, so that devices share one encoding."""
    if not languages:
        return ""
    return choose({**{tag: tag for tag in languages}, "en": "en"}, language)


def start_message(
    activity: Started, language: str, *, by_channel: bool, now: float
) -> payload.Start:
    """Return the start for the newest state; ``now`` is seconds since 1970.

    Its priority is the start's own: a later quiet update does not make the start quiet.
    """
    shown = presentation_of(activity)
    return payload.Start(
        content_state=msgspec.json.decode(activity.content_state),
        attributes_type=activity.attributes_type,
        attributes=msgspec.json.decode(activity.attributes),
        alert=alert_in(start_alert_of(activity), language),
        stale_date=_stale(shown, now),
        relevance_score=shown.relevance_score,
        input_push_channel=activity.channel_id if by_channel else None,
        priority=5 if activity.quiet else None,
    )


def change_message(
    activity: Row[Any],
    alert_text: AlertText | None,
    language: str | None,
    *,
    now: float,
    kept: timedelta | None = KEPT,
) -> payload.Update | payload.End:
    """Return the update, or the end, for the newest state, with an alert in one language.

    ``alert_text`` is its own alert, or that of a state that it replaced and whose alert must still ring.
    ``kept`` is how long APNs keeps it; None where the channel decides.
    """
    shown = presentation_of(activity)
    state = msgspec.json.decode(activity.content_state)
    alert = alert_in(alert_text, language)
    if activity.status != "ended":
        return payload.Update(
            content_state=state,
            alert=alert,
            expiration=kept,
            stale_date=_stale(shown, now),
            relevance_score=shown.relevance_score,
        )
    dismissal, after = shown.dismissal_date, shown.dismiss_after
    if after is not None:
        dismissal = 0 if after == 0 else activity.ended_at / 1000 + after
    return payload.End(
        content_state=state,
        alert=alert,
        expiration=kept,
        dismissal_date=dismissal,
        relevance_score=shown.relevance_score,
    )


def alert_in(alert: AlertText | None, language: str | None) -> payload.Alert | None:
    """Return the alert in one language, the same for title and body."""
    if alert is None:
        return None
    spoken = best_language(languages_of(alert), language)
    return payload.Alert(
        title=words_of(alert.title_key) or choose(alert.title, spoken),
        body=words_of(alert.body_key) or choose(alert.body, spoken),
        sound=alert.sound,
    )


def words_of(text: CatalogText | None) -> payload.Localized | None:
    """Return a text from the app's string catalogue as APNs spells it. Raises `InvalidPayload`."""
    return None if text is None else payload.Localized(text.key, text.args)


def _stale(shown: Presentation, now: float) -> float | None:
    if shown.stale_after is not None:
        return now + shown.stale_after
    return shown.stale_date
