"""Why a device shows nothing, as far as the store can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Row, func, or_, select

from ...delivery.budget import PRESETS
from ...explain import Finding, find, finding
from ..apps import App
from ..people.devices import Devices
from ..people.views import DeviceView
from ..store.database import Database
from ..store.schema import activities, activity_devices, devices, outcomes, receipts
from ..times import to_text

HOUR = 3_600_000
"""Milliseconds, as the store keeps time."""
OLD = 30 * 24 * HOUR
"""A start token that old was often replaced unheard."""
_CARDS, _OUTCOMES = 50, 500


async def diagnose(
    database: Database, people: Devices, app: App, device: str, now: int, *, outcomes_too: bool
) -> list[Finding]:
    """Return what keeps a device from showing something, and what was read last, at ``now`` (milliseconds).

    Reads its tokens, running cards and receipts. ``outcomes_too`` reads its newest outcomes as well, which
    have no index by device: for a command, not for a server. Raises `NotFound`, and as `Database.read`.
    """
    phone = await people.get(app, device)
    named = devices.c.app_id == app.row, devices.c.public_id == device
    row = select(devices.c.id).where(*named).scalar_subquery()
    cards = (
        select(activity_devices, activities.c.public_id, activities.c.channel_id)
        .join(activities, activities.c.id == activity_devices.c.activity_id)
        .where(
            activity_devices.c.device_id == row,
            or_(
                activity_devices.c.retired_at.is_(None),
                activity_devices.c.started_at
                > now - HOUR,  # it was charged to the budget of starts
            ),
        )
        .order_by(activity_devices.c.id.desc())
    )
    last = select(outcomes).where(outcomes.c.device_id == row).order_by(outcomes.c.id.desc())
    told = select(func.max(receipts.c.created_at)).where(receipts.c.device_id == row)
    async with database.read() as connection:
        known = (await connection.execute(cards.limit(_CARDS))).all()
        results = (await connection.execute(last.limit(_OUTCOMES))).all() if outcomes_too else []
        receipt = (await connection.execute(told)).scalar_one()
    when = f"the last receipt came at {to_text(receipt)}" if receipt else "no receipt ever came"
    return [
        *_of_device(phone, now),
        *_of_budgets(phone, known, results, now),
        *_of_cards([card for card in known if card.retired_at is None], now),
        *_of_outcomes(results),
        Finding("device", "ok", f"{len(results)} outcomes read, {when}" if outcomes_too else when),
    ]


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


def _of_cards(running: Sequence[Row[Any]], now: int) -> Iterator[Finding]:
    for card in running:
        said = f"{card.public_id} was started at {to_text(card.started_at)}"
        if card.started_at is not None and card.started_at < now - 8 * HOUR:
            yield finding("activity", "eight hours", f"{said}, over 8 hours ago")
        if card.token is None and card.channel_id is None:
            yield finding("token", "no token", f"{said}, and no token came")


def _of_outcomes(results: Sequence[Row[Any]]) -> Iterator[Finding]:
    failed = {each.reason or each.verdict: each for each in reversed(results)}
    for reason, each in failed.items():
        if each.verdict != "accepted":
            word = reason if find(reason) else each.verdict
            yield finding("outcome", word, f"{to_text(each.created_at)}: {each.status} {reason}")


def _of_device(phone: DeviceView, now: int) -> Iterator[Finding]:
    version = str(phone["os_version"] or "")
    parts = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if parts and parts < [17, 2]:
        said = f"iOS {version} has no push-to-start"
        yield Finding("ios version", "fail", said, "Let the app start the card.")
    elif parts and parts < [18]:
        said = f"iOS {version} has no broadcast channels"
        yield finding("ios version", "channel", said)._replace(state="warn")
    if phone["push_enabled"] is False:
        yield finding("switches", "disabled", "the app said that pushes are switched off")
    if not phone["start_tokens"]:
        said = "it has no living push-to-start token"
        yield finding("start token", "dead start token", said)
    for token in phone["start_tokens"]:
        if token["suspect"]:
            said = f"the start token of {token['attributes_type']} is suspect: its last {token['unanswered_starts']} starts brought neither an activity token nor a receipt"
            yield finding("start token", "dead start token", said)
        age = now - token["registered_at"]
        if age > OLD:
            said = (
                f"the start token of {token['attributes_type']} is {age / HOUR / 24:.0f} days old"
            )
            yield finding("start token", "dead start token", said)._replace(state="warn")
