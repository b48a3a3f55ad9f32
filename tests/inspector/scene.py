"""Phones, pushes and faults as on an ordinary day, for the tests and for the pictures in the docs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from apns_live import Alert, Client, End, Endpoint, Outcome, ProviderKey, Start, Update
from apns_live.clock import Clock
from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.control import serve_control
from apns_live.testing.phones import PhoneSettings

LAWS = PhoneSettings(frequent_pushes=False)
"""The level of a phone that is not in use: a budget that a test can spend."""
MORNING = 1_800_006_060.0
"""2027-01-15 09:41:00 UTC."""


class Scene:
    """A fake APNs on a simulated clock with its inspector, and our client in front of it."""

    def __init__(self, fake: FakeApns, client: Client, url: str, clock: SimulatedClock) -> None:
        self.fake = fake
        self.client = client
        self.url = url
        self.clock = clock

    def phone(self, name: str, kind: str = "MatchAttributes", **options: Any) -> str:
        """Add a phone and return its push-to-start token."""
        device = self.fake.devices.add_device(name, attributes_types=[kind], **options)
        return next(each.text for each in device.tokens if each.kind == "start")

    def activity(self, name: str, state: dict[str, Any], **options: Any) -> str:
        """Let the app on a phone start an activity; return the activity's token."""
        kind = options.pop("kind", "MatchAttributes")
        attributes = options.pop("attributes", {})
        device = self.fake.devices.devices.get(name) or self.fake.devices.add_device(name)
        started = self.fake.devices.start_activity(device, kind, attributes, state, **options)
        assert started.token is not None
        return started.token.text

    async def start(self, token: str, state: dict[str, Any], **more: Any) -> Outcome:
        more.setdefault("alert", Alert(title="It begins", body="Follow it on the Lock Screen."))
        more.setdefault("attributes_type", "MatchAttributes")
        more.setdefault("attributes", {})
        return await self.client.send(Start(content_state=state, **more), token)

    async def update(self, token: str, state: dict[str, Any], **more: Any) -> Outcome:
        return await self.client.send(Update(content_state=state, **more), token)

    async def end(self, token: str, state: dict[str, Any], **more: Any) -> Outcome:
        return await self.client.send(End(content_state=state, **more), token)


@contextlib.asynccontextmanager
async def scene(directory: Path | None = None) -> AsyncIterator[Scene]:
    """Run a scene. ``directory`` keeps certificates and keys."""
    clock = SimulatedClock(MORNING)
    async with (
        FakeApns(directory=directory, clock=clock, phone_settings=LAWS) as fake,
        serve_control(fake) as url,
        client_of(fake, clock) as client,
    ):
        yield Scene(fake, client, url, clock)


def client_of(fake: FakeApns, clock: Clock | None = None) -> Client:
    key = ProviderKey.from_file(fake.key_file, team_id=fake.team_id)
    environment = Endpoint(**fake.endpoint._asdict())
    return Client(key, bundle_id=fake.bundle_id, environment=environment, clock=clock)


TYPED: dict[str, dict[str, Any]] = {
    "progress": {
        "type": "progress",
        "title": "Backing up",
        "subtitle": "Studio Mac",
        "percentage": 64,
        "color": "blue",
        "icon": {"symbol": "cloud.fill", "color": "blue"},
    },
    "segmented_progress": {
        "type": "segmented_progress",
        "title": "Your order",
        "subtitle": "Out for delivery",
        "number_of_steps": 5,
        "current_step": 3,
        "color": "green",
        "step_color": "green",
        "icon": {"symbol": "shippingbox.fill", "color": "orange"},
        "badge": {"title": "3 stops", "color": "green"},
    },
    "metrics": {
        "type": "metrics",
        "title": "Morning run",
        "subtitle": "Along the river",
        "metrics": [
            {"label": "Pace", "value": "5:12", "unit": "/km", "color": "lime"},
            {"label": "Distance", "value": 7.4, "unit": "km"},
            {"label": "Heart", "value": 148, "unit": "bpm", "color": "red"},
            {"label": "Climb", "value": 86, "unit": "m"},
        ],
        "color": "lime",
        "icon": {"symbol": "figure.run", "color": "lime"},
    },
    "stats": {
        "type": "stats",
        "title": "Deploy 412",
        "subtitle": "eu-central",
        "metrics": [
            {"label": "Healthy", "value": 18, "unit": "/20", "color": "green"},
            {"label": "Errors", "value": 0.2, "unit": "%"},
            {"label": "p95", "value": 184, "unit": "ms", "color": "yellow"},
        ],
        "color": "cyan",
        "icon": {"symbol": "server.rack", "color": "cyan"},
    },
    "alert": {
        "type": "alert",
        "title": "Gate change",
        "message": "Flight 2044 now boards at gate B17. Please be there by 10:15.",
        "color": "red",
        "icon": {"symbol": "airplane", "color": "red"},
        "badge": {"title": "B17", "color": "red"},
    },
    "timer": {
        "type": "timer",
        "title": "Sourdough",
        "subtitle": "Second proof",
        "counts_down": True,
        "is_running": True,
        "started_at": MORNING - 900,
        "ends_at": MORNING + 1_665,
        "color": "orange",
        "icon": {"symbol": "timer", "color": "orange"},
    },
    "value": {
        "type": "value",
        "title": "Battery",
        "subtitle": "Car, charging",
        "value": "82 %",
        "color": "green",
        "icon": {"symbol": "bolt.car.fill", "color": "green"},
    },
}
"""A content state of each kind."""

MATCH = {"home": 2, "away": 1, "period": "Second half", "minute": "67'", "lastGoal": "Okafor"}
FLIGHT = {
    "status": "Boarding",
    "gate": "B17",
    "departure": MORNING + 3_240,
    "delayed": True,
    "seats": ["14A", "14B"],
    "aircraft": {"type": "A320neo", "registration": "D-AINX"},
}


async def ordinary_day(play: Scene) -> None:
    """Fill a scene: a state of each kind; stale, ended and dismissed ones; a spent budget."""
    fake, clock = play.fake, play.clock
    start = play.phone("anna-iphone")
    outcome = await play.start(
        start, MATCH | {"home": 0, "away": 0}, attributes={"home": "Hamburg", "away": "Porto"}
    )
    assert outcome.status == 200
    await clock.advance(5)
    match = next(each for each in fake.devices.activities.values()).token
    assert match is not None
    for home, away in ((1, 0), (1, 1), (2, 1)):
        await play.update(match.text, MATCH | {"home": home, "away": away}, priority=10)
        await clock.advance(2)
    order = play.activity("ben-iphone", TYPED["segmented_progress"], kind="OrderAttributes")
    for _ in range(11):
        await play.update(order, TYPED["segmented_progress"], priority=10)
        await clock.advance(1)
    names = {
        "metrics": "carla-iphone",
        "timer": "deniz-iphone",
        "progress": "emil-iphone",
        "stats": "farah-iphone",
        "alert": "goran-iphone",
        "value": "hana-iphone",
    }
    tokens = {
        kind: play.activity(name, TYPED[kind], kind=f"{kind.title()}Attributes")
        for kind, name in names.items()
    }
    for kind, token in tokens.items():
        await play.update(token, TYPED[kind], priority=10)
    flight = play.activity(
        "ines-iphone", FLIGHT, kind="FlightAttributes", attributes={"flight": "LH 2044"}
    )
    await play.update(flight, FLIGHT)
    play.activity("carla-iphone", TYPED["value"], kind="ValueAttributes")
    for distance in range(17):
        state = TYPED["metrics"]["metrics"]
        state = [state[0], {**state[1], "value": round(7.4 + distance / 10, 1)}, *state[2:]]
        await play.update(tokens["metrics"], TYPED["metrics"] | {"metrics": state}, priority=10)
        await clock.advance(3)
    await play.update(tokens["stats"], TYPED["stats"], stale_date=clock.time() + 2)
    await play.end(tokens["progress"], TYPED["progress"] | {"percentage": 100})
    dead = next(
        each for each in fake.devices.activities.values() if each.device.id == "hana-iphone"
    )
    fake.devices.dismiss(dead)
    await play.update(tokens["value"], TYPED["value"])
    fake.devices.configure(fake.devices.devices["goran-iphone"], {"online": False})
    await play.update(tokens["alert"], TYPED["alert"])
    fault = fake.fault("answer", reason="ExpiredToken", times=1)
    await play.update(order, TYPED["segmented_progress"])
    fake.faults.remove(fault)
    fake.fault("throttle", limit=1000, per=1.0)
    await clock.advance(4)
