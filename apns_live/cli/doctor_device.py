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
    from ..activities.store.schema import activities, activity_devices, devices, outcomes, receipts
    from ..activities.times import to_text
    from ..clock import SystemClock
    from ..delivery.budget import PRESETS

    now = int(time.time() * 1000)
    async with opened(given) as database:
        one = await apps_of(database).get(app)
        phone = await Devices(database, SystemClock()).get(one, device)
        named = devices.c.app_id == one.row, devices.c.public_id == device
        row = select(devices.c.id).where(*named).scalar_subquery()
        cards = (
            select(activity_devices, activities.c.public_id)
            .join(activities, activities.c.id == activity_devices.c.activity_id)
            .where(activity_devices.c.device_id == row, activity_devices.c.retired_at.is_(None))
            .order_by(activity_devices.c.id.desc())
        )
        last = select(outcomes).where(outcomes.c.device_id == row).order_by(outcomes.c.id.desc())
        told = select(func.max(receipts.c.created_at)).where(receipts.c.device_id == row)
        async with database.read() as connection:
            running = (await connection.execute(cards.limit(50))).all()
            results = (await connection.execute(last.limit(500))).all()
            receipt = (await connection.execute(told)).scalar_one()
    for found in _of_device(phone, now):
        yield found
    unused, frequent = PRESETS["observed"], PRESETS["observed-frequent"]
    starts = sum((card.started_at or 0) > now - HOUR for card in running)
    if starts >= unused.starts_per_hour:
        said = f"{starts} cards were started here within an hour, of {unused.starts_per_hour}"
        yield _explained("start budget", "start budget", said)
    tens = sum(each.priority == 10 and each.created_at > now - HOUR for each in results)
    if tens >= unused.per_hour:
        said = f"{tens} pushes of priority 10 within an hour, of {unused.per_hour} (frequent updates: {frequent.per_hour})"
        spent = _explained("budget", "budget", said)
        yield spent if tens >= frequent.per_hour else spent._replace(state="warn")
    for card in running:
        said = f"{card.public_id} was started at {to_text(card.started_at)}"
        if card.started_at is not None and card.started_at < now - 8 * HOUR:
            yield _explained("activity", "eight hours", f"{said}, over 8 hours ago")
        if card.token is None:
            yield _explained("token", "no token", f"{said}, and no token came")
    failed = {each.reason or each.verdict: each for each in reversed(results)}
    for reason, each in failed.items():
        if each.verdict != "accepted":
            word = reason if find(reason) else each.verdict
            yield _explained("outcome", word, f"{to_text(each.created_at)}: {each.status} {reason}")
    when = f"the last receipt came at {to_text(receipt)}" if receipt else "no receipt ever came"
    yield Finding("device", "ok", f"{len(results)} outcomes read, {when}")


def _of_device(phone: dict[str, Any], now: int) -> Iterator[Finding]:
    version = str(phone["os_version"] or "")
    parts = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    if parts and parts < [17, 2]:
        said = f"iOS {version} has no push-to-start"
        yield Finding("ios version", "fail", said, "Let the app start the card.")
    elif parts and parts < [18]:
        said = f"iOS {version} has no broadcast channels"
        yield _explained("ios version", "channel", said)._replace(state="warn")
    if phone["push_enabled"] is False:
        yield _explained("switches", "disabled", "the app said that pushes are switched off")
    if not phone["start_tokens"]:
        said = "it has no living push-to-start token"
        yield _explained("start token", "dead start token", said)
    for token in phone["start_tokens"]:
        age = now - token["registered_at"]
        if age > OLD:
            said = (
                f"the start token of {token['attributes_type']} is {age / HOUR / 24:.0f} days old"
            )
            yield _explained("start token", "dead start token", said)._replace(state="warn")
