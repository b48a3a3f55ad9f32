"""A validated request for an ordinary push to an audience, and the message made from it."""

from typing import Any

import msgspec

from ... import payload
from ...errors import InvalidInput
from .. import checks
from . import Audience, Text, Urgency
from .messages import check_languages, choose

KIND = "notification"
_TEXTS = ("title", "subtitle", "body")
_SHOWN = (
    "badge", "sound", "category", "thread_id", "interruption_level", "relevance_score",
    "target_content_id",
)  # fmt: skip
_AS_THEY_ARE = (*_SHOWN, "mutable_content", "content_available", "collapse_id")
_MAX_EXPIRY = 30 * 86_400.0


class Notify(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An ordinary push to an audience; the fields are those of `apns_live.payload.Notification`.

    - ``title``, ``subtitle``, ``body``: a text, or a dict by language that includes ``en``.
    - ``background``: a silent push that wakes the app: ``custom`` only, nothing is shown.
    - ``badge`` alone sets the number on the icon, 0 removes it.
    - ``collapse_id``: a later push with the same id replaces this one; by default the operation's id.
    - ``replaces``: the id of an earlier notification, instead of an audience. This one replaces
      it on the devices that it reached.
    - ``expire_after``: seconds until APNs gives up on an offline phone; 0 for one attempt; 24 h by
      default. ``urgency`` quiet sends at priority 5.
    - ``environment``: of the tokens; the app's own by default.
    - ``tags`` and ``metadata`` are labels for the history, never sent.
    """

    audience: Audience = Audience()
    replaces: str | None = None
    title: Text | None = None
    subtitle: Text | None = None
    body: Text | None = None
    badge: int | None = None
    sound: str | None = None
    category: str | None = None
    thread_id: str | None = None
    interruption_level: str | None = None
    relevance_score: float | None = None
    target_content_id: str | None = None
    mutable_content: bool = False
    content_available: bool = False
    background: bool = False
    custom: dict[str, Any] = {}
    collapse_id: str | None = None
    urgency: Urgency | None = None
    expire_after: float | None = None
    environment: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, str | int | float | bool] = {}
    dialect: str = "native"


def checked_notification(request: Notify, now: float) -> Notify:
    """Return the request as it is stored; ``now`` is seconds since 1970. Raises `InvalidInput`."""
    checks.conform(request)
    if request.environment is not None:
        checks.environment(request.environment)
    if request.replaces is not None:
        checks.identifier(request.replaces, "replaces", limit=64)
        for name, given in (
            ("audience", not request.audience.is_empty),
            ("collapse_id", request.collapse_id is not None),
            ("background", request.background),
        ):
            if given:
                remedy = "Leave it out: a replacement goes where the first one went."
                raise InvalidInput("has no effect beside replaces", name, remedy)
    else:
        request.audience.check()
    expiry = request.expire_after
    if expiry is not None and not 0 <= expiry <= _MAX_EXPIRY:
        remedy = "Give 0 for one attempt, or up to 30 days in seconds."
        raise InvalidInput(f"{expiry} is not a number of seconds", "expire_after", remedy)
    if request.background:
        for name in (*_TEXTS, *_SHOWN):
            if getattr(request, name) is not None:
                remedy = "Leave it out, or leave background out."
                raise InvalidInput("is not shown by a background push", name, remedy)
    payload.encode(message_of(request, _longest_language(request), now=now), now=now)
    return msgspec.structs.replace(
        request, tags=tuple(checks.tags(request.tags)), metadata=checks.metadata(request.metadata)
    )


def languages_of(request: Notify) -> frozenset[str]:
    """Return the languages that a notification has texts for; empty when it has one for all."""
    return frozenset(
        tag for name in _TEXTS if isinstance(text := getattr(request, name), dict) for tag in text
    )


def message_of(
    request: Notify, language: str, *, now: float
) -> payload.Notification | payload.Background:
    """Return the push for one language; ``now`` is seconds since 1970. Raises `InvalidPayload`."""
    expiration = None
    if request.expire_after is not None:
        expiration = 0 if request.expire_after == 0 else now + request.expire_after
    if request.background:
        return payload.Background(
            custom=request.custom or None, collapse_id=request.collapse_id, expiration=expiration
        )
    fields: dict[str, Any] = {
        name: None if (text := getattr(request, name)) is None else choose(text, language)
        for name in _TEXTS
    }
    fields |= {name: getattr(request, name) for name in _AS_THEY_ARE}
    return payload.Notification(
        **fields,
        custom=request.custom or None,
        priority=5 if request.urgency == "quiet" else None,
        expiration=expiration,
    )


def _longest_language(request: Notify) -> str:
    """Return the language with the largest push, whose size is then checked."""
    texts = {name: text for name in _TEXTS if (text := getattr(request, name)) is not None}
    for name, text in texts.items():
        check_languages(text, name)

    def size(language: str) -> int:
        chosen = (choose(text, language) for text in texts.values())
        return sum(len(text.encode("utf-8", "replace")) for text in chosen)

    return max(sorted(languages_of(request)) or ["en"], key=size)
