"""Diagnoses a device, from the service's database or a fake's inspector."""

from __future__ import annotations

from collections.abc import Iterator

from ..clock import SystemClock
from ..errors import InvalidInput, NotFound
from ..explain import Finding, finding
from .store_access import apps_of, opened


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
        yield finding("switches", "disabled", "Live Activities are switched off")
    if not phone["online"]:
        yield Finding("network", "warn", "the phone has no network", "What is stored comes later.")
    if phone["consent"] == "deny":
        yield finding("consent", "denied", "its owner answered Don't Allow")
    starts = phone["start_budget"]
    if starts and starts["remaining"] < 1:
        said = f"{starts['remaining']} of {starts['capacity']} push-to-starts are left"
        yield finding("start budget", "start budget", said)
    for activity in phone["activities"]:
        name = f"{activity['attributes_type'] or 'card'} {activity['id']}"
        if activity["asks"]:
            said = f"{name} waits for its owner's consent, so no activity token came"
            yield finding("token", "no token", said)
        budget = activity["budget"]
        if budget and budget["remaining"] < 1 and activity["state"] == "active":
            said = f"{name}: 0 of {budget['capacity']} pushes of priority 10 are left"
            yield finding("budget", "budget", said)
        if activity["stale"]:
            yield finding("stale", "stale", f"{name}: its stale date has passed")
    if any(not token["told"] for token in phone["tokens"]):
        said = "the phone has a new push-to-start token, and the app's stream kept quiet about it"
        yield finding("start token", "dead start token", said)
    told: set[str] = set()
    for push in pushes:
        word = push["explain"]
        if not word or word in told or push["why"] == "budget":
            continue
        told.add(word)
        start = word == "silent token" and push["event"] == "start"
        detail = f" ({push['detail']})" if push["detail"] else ""
        said = f"push {push['number']} ({push['event'] or push['push_type']}) was ignored: {word}{detail}"
        yield finding(
            "start token" if start else "push", "dead start token" if start else word, said
        )
    shown = [each for each in phone["activities"] if each["state"] == "active"]
    yield Finding(
        "phone", "ok", f"{device} shows {len(shown)} running cards, {len(pushes)} pushes seen"
    )


async def by_store(given: str | None, app: str, device: str) -> list[Finding]:
    """Read the service's database. Raises `NotFound`, `StoreError`, `InvalidSetting`."""
    from ..activities.people.devices import Devices
    from ..activities.read.diagnosis import diagnose
    from ..activities.times import milliseconds

    clock = SystemClock()
    async with opened(given) as database:
        people, one = Devices(database, clock), await apps_of(database).get(app)
        now = milliseconds(clock)
        return await diagnose(database, people, one, device, now)
