"""A device's way: why it shows nothing, as the service's database or a fake's inspector tells it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, NamedTuple

from ..errors import InvalidInput, NotFound
from ..explain import find
from .store_access import apps_of, opened

HOUR = 3_600_000
"""Milliseconds, as the store keeps time."""
OLD = 30 * 24 * HOUR
"""A start token that old was often replaced unheard."""


class Finding(NamedTuple):
    """What one check found. ``remedy`` is ``""`` where nothing is to be done."""

    check: str
    state: Literal["ok", "warn", "fail"]
    said: str
    remedy: str = ""


def _explained(check: str, word: str, said: str) -> Finding:
    row = find(word)
    return Finding(check, "fail", said, "" if row is None else row.remedy)


def by_fake(url: str, device: str) -> Iterator[Finding]:
    """Ask a fake's inspector. Raises `InvalidInput` when it cannot be asked, `NotFound`."""
    import httpx

    try:
        with httpx.Client(base_url=url, timeout=10.0, trust_env=False) as client:
            answer = client.get(f"/v1/devices/{device}")
            if answer.status_code == 404:
                raise NotFound(f"the fake has no phone {device!r}")
            phone = answer.raise_for_status().json()
            query: dict[str, str | int] = {"device": device, "newest": 1, "limit": 100}
            pushes = client.get("/v1/pushes", params=query).raise_for_status().json()["items"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise InvalidInput(
            f"cannot be asked: {error}",
            field="--fake",
            remedy="Give the inspector's URL, as apns-live fake prints it.",
        ) from None
    if not phone["live_activities_enabled"]:
        yield _explained("switches", "disabled", "Live Activities are switched off")
    if not phone["online"]:
        yield Finding("network", "warn", "the phone has no network", "What is stored comes later.")
    if phone["consent"] == "deny":
        yield _explained("consent", "denied", "its owner answered Don't Allow")
    starts = phone["start_budget"]
    if starts and starts["remaining"] < 1:
        said = f"{starts['remaining']} of {starts['capacity']} push-to-starts are left"
        yield _explained("start budget", "start budget", said)
    for activity in phone["activities"]:
        name = f"{activity['attributes_type'] or 'card'} {activity['id']}"
        if activity["asks"]:
            said = f"{name} waits for its owner's consent, so no activity token came"
            yield _explained("token", "no token", said)
        budget = activity["budget"]
        if budget and budget["remaining"] < 1 and activity["state"] == "active":
            said = f"{name}: 0 of {budget['capacity']} pushes of priority 10 are left"
            yield _explained("budget", "budget", said)
        if activity["stale"]:
            yield _explained("stale", "stale", f"{name}: its stale date has passed")
    if any(not token["told"] for token in phone["tokens"]):
        said = "the phone has a new push-to-start token, and the app's stream kept quiet about it"
        yield _explained("start token", "dead start token", said)
    told: set[str] = set()
    for push in pushes:
        word = push["explain"]
        if not word or word in told or push["why"] == "budget":
            continue
        told.add(word)
        start = word == "silent token" and push["event"] == "start"
        detail = f" ({push['detail']})" if push["detail"] else ""
        said = f"push {push['number']} ({push['event'] or push['push_type']}) was ignored: {word}{detail}"
        yield _explained(
            "start token" if start else "push", "dead start token" if start else word, said
        )
    shown = [each for each in phone["activities"] if each["state"] == "active"]
    yield Finding(
        "phone", "ok", f"{device} shows {len(shown)} running cards, {len(pushes)} pushes seen"
    )


async def by_store(given: str | None, app: str, device: str) -> AsyncIterator[Finding]:
    """Read the service's database. Raises `NotFound`, `StoreError`, `InvalidSetting`."""
    from sqlalchemy import func, select

    from ..activities.people.devices import Devices
    from ..activities.store import schema
    from ..activities.times import to_text
    from ..clock import SystemClock
    from ..delivery.budget import PRESETS

    now = int(time.time() * 1000)
    async with opened(given) as database:
        one = await apps_of(database).get(app)
        phone = await Devices(database, SystemClock()).get(one, device)
        here = schema.activity_devices
        async with database.read() as connection:
            row = (
                await connection.execute(
                    select(schema.devices.c.id).where(
                        schema.devices.c.app_id == one.row, schema.devices.c.public_id == device
                    )
                )
            ).scalar_one()
            cards = (
                await connection.execute(
                    select(here, schema.activities.c.public_id)
                    .join(schema.activities, schema.activities.c.id == here.c.activity_id)
                    .where(here.c.device_id == row)
                    .order_by(here.c.id.desc())
                    .limit(20)
                )
            ).all()
            sent = schema.outcomes
            outcomes = (
                await connection.execute(
                    select(sent).where(sent.c.device_id == row).order_by(sent.c.id.desc()).limit(50)
                )
            ).all()
            counted = select(func.count()).where(
                sent.c.device_id == row, sent.c.priority == 10, sent.c.created_at > now - HOUR
            )
            tens = (await connection.execute(counted)).scalar_one()
            told = schema.receipts
            receipt = (
                await connection.execute(
                    select(func.max(told.c.created_at)).where(told.c.device_id == row)
                )
            ).scalar_one()
    budget = PRESETS["observed"]
    frequent = PRESETS["observed-frequent"]
    for found in _of_device(phone, now):
        yield found
    starts = sum((card.started_at or 0) > now - HOUR for card in cards)
    if starts >= budget.starts_per_hour:
        said = f"{starts} cards were started here within an hour, of {budget.starts_per_hour}"
        yield _explained("start budget", "start budget", said)
    if tens >= budget.per_hour:
        said = f"{tens} pushes of priority 10 within an hour; {budget.per_hour} (frequent updates: {frequent.per_hour}) were seen"
        spent = _explained("budget", "budget", said)
        yield spent if tens >= frequent.per_hour else spent._replace(state="warn")
    for card in cards:
        if card.retired_at is not None:
            continue
        if card.started_at is not None and card.started_at < now - 8 * HOUR:
            said = f"{card.public_id} was started at {to_text(card.started_at)}, over 8 hours ago"
            yield _explained("activity", "eight hours", said)
        if card.token is None:
            said = f"{card.public_id} was started at {to_text(card.started_at)}, and no token came"
            yield _explained("token", "no token", said)
    told_reasons: set[str] = set()
    for outcome in outcomes:
        reason = outcome.reason or outcome.verdict
        if outcome.verdict == "accepted" or reason in told_reasons:
            continue
        told_reasons.add(reason)
        said = f"{to_text(outcome.created_at)}: {outcome.status or ''} {reason}".replace(
            ":  ", ": "
        )
        yield _explained("outcome", reason if find(reason) else outcome.verdict, said)
    when = f"the last receipt came at {to_text(receipt)}" if receipt else "no receipt ever came"
    yield Finding("device", "ok", f"{len(outcomes)} of the last outcomes read, {when}")


def _of_device(phone: dict[str, Any], now: int) -> Iterator[Finding]:
    version = str(phone["os_version"] or "")
    parts = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if parts and parts < [17, 2]:
        yield Finding(
            "ios version",
            "fail",
            f"iOS {version} has no push-to-start",
            "Let the app start the card.",
        )
    elif parts and parts < [18]:
        row = find("channel")
        remedy = row.remedy if row else ""
        yield Finding("ios version", "warn", f"iOS {version} has no broadcast channels", remedy)
    if phone["push_enabled"] is False:
        yield _explained("switches", "disabled", "the app said that pushes are switched off")
    tokens = phone["start_tokens"]
    if not tokens:
        said = "it has no living push-to-start token"
        yield _explained("start token", "dead start token", said)
    for token in tokens:
        days = (now - token["registered_at"]) / (24 * HOUR)
        if now - token["registered_at"] > OLD:
            said = f"the start token of {token['attributes_type']} is {days:.0f} days old"
            yield _explained("start token", "dead start token", said)._replace(state="warn")
