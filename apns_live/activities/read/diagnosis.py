"""Diagnoses from the database why a device shows nothing."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Row, func, select

from ...delivery.budget import PRESETS
from ...explain import Finding, find, finding
from ..apps import App
from ..decodes import undecodable
from ..finding import find_id, id_named
from ..people.devices import Devices
from ..people.records import DeviceView
from ..store.database import Database
from ..store.reached import of_device
from ..store.schema import activities, activity_devices, devices, receipts
from ..times import to_text

HOUR = 3_600_000
"""Milliseconds, as the store keeps time."""
OLD = 30 * 24 * HOUR
"""A start token of this age was often replaced without the app reporting it."""
GONE = 12 * HOUR
"""After this time no card of a start is left: 8 hours, and 4 on the Lock Screen."""
PATIENCE = 120_000
"""Milliseconds within which a connected phone confirms a state; a phone in low power mode takes a minute."""
_CARDS, _OUTCOMES = 50, 500
_NO_CARD = frozenset({"left", "limit", "dismissed", "moved", "expired"})
"""Reasons for retiring a member that leave no doubt about its card."""


async def diagnose(
    database: Database, people: Devices, app: App, device: str, now: int
) -> list[Finding]:
    """Return why a device may not show something, and the facts read, at ``now`` (milliseconds).

    Reads its tokens, the cards that can be on it, receipts and its newest outcomes. Raises
    `NotFound`, and as `Database.read`.
    """
    phone = await people.get(app, device)
    row = id_named(app, devices, device)
    retired = activity_devices.c.retired_at
    names = ("public_id", "attributes_type", "content_state", "version", "updated_at", "end_reason")
    cards = (
        select(activity_devices, *(activities.c[name] for name in names))
        .join(activities, activities.c.id == activity_devices.c.activity_id)
        .where(activity_devices.c.device_id == row, retired.is_(None) | (retired > now - GONE))
        .order_by(activity_devices.c.id.desc())
    )
    told = select(receipts.c.activity_id, func.max(receipts.c.happened_at))
    told = told.where(receipts.c.device_id == row).group_by(receipts.c.activity_id)
    of_app = select(receipts.c.id).filter_by(app_id=app.row, event="received")
    async with database.read() as connection:
        known = (await connection.execute(cards.limit(_CARDS))).all()
        found_row = await find_id(connection, app, devices, device)
        results = await of_device(connection, app.row, found_row, _OUTCOMES)
        confirmed = dict((await connection.execute(told)).all())
        confirms = (await connection.execute(of_app.limit(1))).first() is not None
    found = [*_of_device(phone, now), *_of_budgets(phone, known, results, now)]
    for card in known:
        reported = confirmed.get(card.activity_id, 0) if confirms else None
        found += _of_card(card, app, phone, reported, now)
    failed = {each.reason or each.verdict: each for each in reversed(results)}
    for reason, each in failed.items():
        if each.verdict != "accepted":
            word = reason if find(reason) else each.verdict
            said = f"{to_text(each.created_at)}: {each.status} {reason}"
            found.append(finding("outcome", word, said))
    receipt = max(confirmed.values(), default=None)
    when = f"the last receipt came at {to_text(receipt)}" if receipt else "no receipt ever came"
    return [*found, Finding("device", "ok", f"{len(results)} outcomes read, {when}")]


def _of_budgets(
    phone: DeviceView, known: Sequence[Row[Any]], results: Sequence[Row[Any]], now: int
) -> Iterator[Finding]:
    unused, frequent = PRESETS["observed"], PRESETS["observed-frequent"]
    starts = sum((card.started_at or 0) > now - HOUR for card in known)
    if starts >= unused.starts_per_hour:
        said = f"{starts} cards were started here within an hour, of {unused.starts_per_hour}"
        yield finding("start budget", "start budget", said)
    tens = sum(each.priority == 10 and each.created_at > now - HOUR for each in results)
    if tens >= unused.per_hour:
        said = f"{tens} pushes of priority 10 within an hour, of {unused.per_hour} (frequent updates: {frequent.per_hour})"
        spent = finding("budget", "budget", said)
        certain = tens >= frequent.per_hour or phone["frequent_updates"] is False
        yield spent if certain else spent._replace(state="warn")


def _of_card(
    card: Row[Any], app: App, phone: DeviceView, confirmed: int | None, now: int
) -> Iterator[Finding]:
    """Yield the reasons why a card may lack the newest state.

    ``confirmed`` is the time of the app's last report about it, 0 for never; None if the app
    reports nothing.
    """
    name, version, over = card.public_id, phone["app_version"], card.retired_at is not None
    ended = card.retired_reason == "ended"
    # A card that the app ended itself has no newest state.
    if card.retired_reason in _NO_CARD or (ended and card.retired_at < card.updated_at):
        return
    if over and not ended:
        said = f"{name}: APNs refused its token: {card.retired_reason}"
        remedy = "Nothing, where the app was deleted or the card has ended; else register the token again."
        yield Finding("token", "fail", said, remedy)
        return
    if problem := undecodable(app.settings, version, card.attributes_type, card.content_state):
        said = f"{name}: version {version} of the app does not decode the newest state: {problem}"
        yield finding("contract", "undecodable", said)
    said = f"{name} was started at {to_text(card.started_at)}"
    if not over and card.started_at is not None and card.started_at < now - 8 * HOUR:
        yield finding("activity", "eight hours", f"{said}, over 8 hours ago")
    if card.token is None and not card.by_channel:
        yield finding("token", "no token", f"{said}, and no token came")
    elif not problem and confirmed is not None and card.end_reason != "expired":
        yield _confirmation(card, confirmed, now)


def _confirmation(card: Row[Any], confirmed: int, now: int) -> Finding:
    name, newest = card.public_id, card.updated_at
    said = f"{name}: the newest state is of {to_text(newest)}"
    if confirmed >= newest:
        return Finding("card", "ok", f"{said}; the app confirmed it at {to_text(confirmed)}")
    if (card.started_at or 0) >= newest or newest > now - PATIENCE:
        return Finding("card", "ok", f"{said}; the app need not have confirmed it yet")
    if not card.by_channel and card.acknowledged_version < card.version:
        return finding("card", "unconfirmed", f"{said}, and APNs has not taken it")
    last = f"the last report is of {to_text(confirmed)}" if confirmed else "no report ever came"
    silent = ", as one that was force-quit cannot" if card.by_channel else ""
    said = f"{said}, and the app did not confirm it{silent}: {last}"
    unconfirmed = finding("card", "unconfirmed", said)
    return unconfirmed._replace(state="warn")


def _of_device(phone: DeviceView, now: int) -> Iterator[Finding]:
    version = str(phone["os_version"] or "")
    parts = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    no_start = bool(parts) and parts < [17, 2]
    if no_start:
        said = f"iOS {version} has no push-to-start"
        yield Finding("ios version", "fail", said, "Let the app start the card.")
    elif parts and parts < [18]:
        said = f"iOS {version} has no broadcast channels"
        yield finding("ios version", "channel", said)._replace(state="warn")
    if phone["push_enabled"] is False:
        yield finding("switches", "disabled", "the app said that pushes are switched off")
    if not phone["start_tokens"] and not no_start:
        said = "it has no living push-to-start token"
        yield finding("start token", "dead start token", said)
    for token in phone["start_tokens"]:
        if token["suspect"]:
            said = f"the start token of {token['attributes_type']} is suspect: its last {token['unanswered_starts']} starts brought neither an activity token nor a receipt"
            yield finding("start token", "dead start token", said)
        age = now - token["registered_at"]
        if age > OLD:
            days = f"{age / HOUR / 24:.0f} days old"
            said = f"the start token of {token['attributes_type']} is {days}"
            yield finding("start token", "dead start token", said)._replace(state="warn")
