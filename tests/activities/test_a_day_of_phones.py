"""A day of activities on thousands of phones: which cards are not at the newest state, and why.

Phones are killed, denied consent, have dead tokens, are away for hours, are of iOS 17 to 27 and of two
versions of the app. A card may lack the newest state only for a cause that the phone itself has, and the
service names that cause when it is asked about the device. `day` has the phones and the model.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from apns_live.activities import (
    AlertText,
    DeviceRecord,
    End,
    Presentation,
    ReceiptRecord,
    ServiceSettings,
)
from apns_live.activities.due import scheduler as scheduling
from apns_live.activities.read.diagnosis import diagnose
from apns_live.activities.send import poll
from apns_live.activities.store.database import Database
from apns_live.contracts import Contract
from apns_live.delivery import lanes
from apns_live.testing import FakeApns, SimulatedClock
from apns_live.testing.phones import PhoneSettings
from tests.activities.day import (
    CAUSES,
    CHECKS,
    DAY,
    GIVEN,
    HANDED_OVER,
    LIVES,
    LONG,
    OWN,
    SLOT,
    VERSIONS,
    Ought,
    Phone,
    Sent,
    population,
    programme,
)
from tests.activities.send.world import World, a_start, an_update
from tests.counts import count

PHONES = count(200, soak=10_000)
ASKED = count(1, soak=0)
"""Whether the service is asked about every phone at a few of the checks only: it takes half the time."""
ASKED_AT = (15, 57, 125)
TYPE = "MatchAttributes"
BATCH = 1_000
BY_TOKEN = Presentation(alert=AlertText(title={"en": "Kick-off", "de": "Anpfiff"}, body="."))
"""An alert by language: the service makes no channel then."""


class Day(World):
    """The service, the fake's phones and the apps on them, of a population."""

    stride = SLOT

    def __init__(self, fake: FakeApns, clock: SimulatedClock, database: Database) -> None:
        super().__init__(fake, clock, database)
        self.settings = ServiceSettings(
            drain=0.0,
            client={"max_connections": 2, "response_timeout": 30.0},
            key_check=86_400.0,
            token_wait=SLOT / 3,
            channel_from=100,
        )
        self.plans: dict[str, Phone] = {}
        self.killed: set[str] = set()
        self.unheard = False
        """Whether the tokens that come now reach no app."""
        self.seen: dict[tuple[str, str], tuple[int, str]] = {}
        """What each card showed last: its state's number, and whether it is active."""
        self._looks: dict[str, tuple[int, str]] = {}
        self.receipts: list[ReceiptRecord] = []
        self.reported = 0
        self.newest: dict[str, Sent] = {}
        self.starts: dict[str, int] = {}
        self.replaced: set[tuple[str, str]] = set()
        """Devices on which the first of two cards of an activity was ended by push."""
        fake.devices.watch = self._look

    async def step(self, at_most: float) -> None:
        """Let at least a second pass: ten thousand phones have ten thousand timers."""
        now, due = self.clock.monotonic(), self.clock.next_due
        self.clock.advance_sync(min(at_most, max(now + 1.0, due or at_most)) - now)

    def _on_token(self, device: Any, activity: Any, token: str) -> None:
        if not self.unheard and device.id not in self.killed:
            super()._on_token(device, activity, token)

    def _look(self, device: Any) -> None:
        """Note what cards show; the apps report it."""
        newest = {_name(activity): activity for activity in device.activities}
        for activity in device.activities:
            look, before = (activity.updates, activity.state), self._looks.get(activity.id)
            if look == before:
                continue
            self._looks[activity.id] = look
            name = _name(activity)
            if newest[name] is not activity and activity.ended_by == "push":
                self.replaced.add((device.id, name))
            if newest[name] is activity:
                self.seen[device.id, name] = (json.loads(activity.content)["n"], activity.state)
            before = before or (0, "active")
            if device.id in self.killed:
                continue
            if look[0] != before[0]:
                self._report(device.id, name, "received")
            if look[1] == "ended" and before[1] == "active":
                self._report(device.id, name, "ended")

    def _report(self, device: str, activity: str, event: Any) -> None:
        self.receipts.append(
            ReceiptRecord(device=device, activity=activity, event=event, at=self.now())
        )

    async def hand_in(self, app: Any = None) -> int:
        handed_in, self.handed_in = self.handed_in, []
        tokens = self.service.tokens
        return await tokens.register_activity_tokens(self.app, handed_in, attributes_type=TYPE)

    async def populate(self, phones: list[Phone]) -> None:
        """Make the phones, and let each app register what it has."""
        told, records = [], []
        for plan in phones:
            device = self.fake.devices.add_device(
                plan.id,
                attributes_types=[TYPE],
                os_version=plan.os_version,
                app_version=plan.app_version,
                awake=plan.awake,
                low_power=plan.low_power,
                frequent_pushes=plan.frequent,
                consent=plan.consent,
            )
            self.plans[plan.id] = plan
            told.append(self._session(device))
            records += self.start_records(device)
            if plan.silent:
                start = device.token_of("start")
                assert start is not None
                self.fake.devices.rotate(start, quietly=True)
            if plan.killed:
                self.killed.add(plan.id)
        for first in range(0, len(told), BATCH):
            await self.service.devices.tell(self.app, told[first : first + BATCH])
        for first in range(0, len(records), BATCH):
            await self.service.devices.register(self.app, records[first : first + BATCH])

    def start_records(self, phone: Any, environment: str | None = None) -> list[Any]:
        return [
            _changed(record, scope=TYPE) for record in super().start_records(phone, environment)
        ]

    def _session(self, device: Any) -> DeviceRecord:
        return DeviceRecord(
            id=device.id,
            os_version="{}.{}".format(*device.os_version),
            app_version=device.app_version,
            frequent_updates=device.frequent_pushes,
            push_enabled=device.consent != "deny",
            last_session=self.now(),
        )

    async def happen(self, plan: Phone, event: str) -> None:
        """Let something happen to a phone."""
        phones = self.fake.devices
        device = phones.devices.get(plan.id)
        if device is None:
            return
        if event == "away":
            phones.go_offline(device)
        elif event == "back":
            phones.configure(device, {"online": True})
        elif event.startswith("consent "):
            phones.consent(device, event.removeprefix("consent "))  # type: ignore[arg-type]
        elif event == "rotate":
            self.unheard = True
            for activity in device.activities:
                if activity.state == "active" and activity.token is not None:
                    phones.rotate(activity.token)
            self.unheard = False
        elif event == "update app":
            device.app_version = "2.0"
            await self.service.devices.tell(self.app, [DeviceRecord(id=plan.id, app_version="2.0")])
        elif event == "delete":
            phones.delete_app(device)
        else:
            await self.open_app(device)

    async def open_app(self, device: Any) -> None:
        """Open the app: it reads its tokens, registers them again, and starts what iOS 17.0 cannot."""
        self.killed.discard(device.id)
        self.fake.devices.open_app(device)
        running = {
            _name(activity): activity
            for activity in device.activities
            if activity.state == "active"
        }
        for activity in running.values():
            if activity.token is not None:
                self._on_token(device, activity, activity.token.text)
        if not self.plans[device.id].can_be_started and device.consent != "deny":
            for name, sent in self.newest.items():
                if name not in running and sent.kind != "end" and _decodes(device, sent):
                    content = {"n": sent.n, "phase": sent.phase}
                    attributes = {"activity": name}
                    self.fake.devices.start_activity(device, TYPE, attributes, content)
        await self.service.devices.tell(self.app, [self._session(device)])
        await self.service.devices.register(self.app, self.start_records(device))

    async def send(self, sent: Sent) -> None:
        """Give an activity its next state."""
        self.newest[sent.activity] = sent
        content = {"n": sent.n, "phase": sent.phase}
        activities = self.service.activities
        if sent.kind == "start":
            self.starts[sent.activity] = sent.slot
            start = a_start(sent.activity, attributes_type=TYPE, content_state=content)
            if sent.activity in GIVEN:
                made = await self.result_of(self.service.channels.create(self.app))
                start = _changed(start, channel=made.answer.id)
            elif sent.activity not in OWN:
                start = _changed(start, presentation=BY_TOKEN)
            await activities.start(self.app, start)
        elif sent.kind == "update":
            await activities.update(
                self.app, _changed(an_update(0, sent.activity), content_state=content)
            )
        else:
            end = End(id=sent.activity, content_state=content, presentation=Presentation())
            await activities.end(self.app, end)

    async def tell_receipts(self) -> None:
        """Let the apps' reports arrive."""
        told, self.receipts = self.receipts, []
        self.reported += len(told)
        for first in range(0, len(told), BATCH):
            await self.service.receipts.record(self.app, told[first : first + BATCH])

    async def findings(self, device: str) -> dict[str, set[str]]:
        """Return the checks by which the service names what is wrong, by activity; ``""``: the device."""
        found: dict[str, set[str]] = {}
        for each in await diagnose(
            self.service.database, self.service.devices, self.app, device, self.now()
        ):
            if each.check == "outcome":
                continue  # of pushes, not of cards
            if each.check in {"contract", "token", "card", "activity"}:
                checks = found.setdefault(each.said.split()[0].rstrip(":"), set())
                if each.state != "ok":
                    assert each.remedy
                    checks.add(each.check)
            elif each.state == "fail":
                found.setdefault("", set()).add(each.check)
        return found

    def told(self, place: tuple[str, str], models: list[Ought]) -> str:
        """Return what is known of a card."""
        [model] = [model for model in models if model.phone.id == place[0]]
        newest, shown = self.newest[place[1]], self.seen.get(place)
        return f"{place} shows {shown}, newest {newest}\n  {model.cards[place[1]]}\n  {model.phone}"

    def behind(self, models: list[Ought], slot: int) -> set[tuple[str, str]]:
        """Return the cards that do not show the newest state, or are not ended."""
        found = set()
        for model in models:
            for name, _ in model.judged(slot, self.starts):
                newest = self.newest[name]
                n, state = self.seen.get((model.phone.id, name), (-1, ""))
                if n != newest.n or (state == "active") is (newest.kind == "end"):
                    found.add((model.phone.id, name))
        return found


def _changed(record: Any, **changes: Any) -> Any:
    from msgspec.structs import replace

    return replace(record, **changes)


def _name(activity: Any) -> str:
    return str(json.loads(activity.attributes)["activity"])


def _decodes(device: Any, sent: Sent) -> bool:
    return device.app_version != "1.0" or sent.phase not in {"extra", "penalties"}


@pytest.fixture
async def day(store_address: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Day]:
    monkeypatch.setattr(scheduling, "LONGEST", SLOT)
    monkeypatch.setattr(lanes, "HOUSEKEEPING", SLOT)
    monkeypatch.setattr(poll, "POLL", 60.0)  # seconds of the machine; nobody else writes here
    clock = SimulatedClock()
    contracts = {version: Contract({"Match.swift": text}) for version, text in VERSIONS.items()}
    settings = PhoneSettings(token_delay=(0.5, 2.0), equal_timestamp="discard")
    async with (
        Database.open(store_address) as database,
        FakeApns(
            clock=clock, devices="strict", phone_settings=settings, contract=contracts
        ) as fake,
    ):
        world = Day(fake, clock, database)
        await world.open()
        world.app = await world.add_app()
        versions = {version: {"Match.swift": text} for version, text in VERSIONS.items()}
        world.app = await world.service.apps.configure(
            world.app, {"contract": {"mode": "warn", "versions": versions}}
        )
        yield world
        await world.close()


@pytest.mark.timeout(count(300, soak=7_200))
@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
async def test_only_what_a_phone_itself_prevents_is_missing(day: Day) -> None:
    phones = population(PHONES, seed=2026)
    models = [Ought(phone) for phone in phones]
    await day.populate(phones)
    begin = day.clock.monotonic()
    plan: dict[int, list[Sent]] = {}
    for sent in programme():
        plan.setdefault(sent.slot, []).append(sent)
    met: Counter[str] = Counter()
    judged = 0
    for slot in range(DAY):
        await day.pass_to(begin + slot * SLOT)
        for model in models:
            event = model.phone.events.get(slot)
            if event is not None:
                model.happen(event, slot * SLOT)
                await day.happen(model.phone, event)
        await day.pass_to(begin + slot * SLOT + SLOT / 2)
        for sent in plan.get(slot, ()):
            for model in models:
                model.send(sent)
            await day.send(sent)
            await day.settled()
        if slot == day.starts.get(LONG, DAY) + HANDED_OVER:
            for model in models:
                model.hand_over(LONG)
        await day.tell_receipts()
        if slot in CHECKS:
            await day.pass_to(begin + (slot + 1) * SLOT - 60)
            await day.tell_receipts()
            judged += len(await compare(day, models, slot, met))
    followed = {
        (model.phone.id, LONG) for model in models if model.cards[LONG].handed_over == "live"
    }
    assert len(followed) > PHONES / 3
    assert followed <= day.replaced, "a first card stays beside the second"
    # The service has deleted its own channels; what callers made is theirs.
    assert len(day.fake.state.channels.of(day.app.bundle_id)) == len(GIVEN)
    for name in day.newest:
        channel = (await day.service.activities.get(day.app, name))["channel"]
        assert (channel is not None) is (name in OWN + GIVEN)
    assert set(met) == CAUSES, "a cause was not met: nothing is known of it"
    print(f"\n{PHONES:,} phones, {day.fake.state.pushes:,} pushes, {day.reported:,} receipts")
    print(f"{judged:,} cards compared at {len(CHECKS)} moments, all as they ought to be")
    for cause, count_ in met.most_common():
        print(f"{count_:8,}  {cause}")
    print(f"{judged - met.total():8,}  at the newest state, or ended")


async def compare(
    day: Day, models: list[Ought], slot: int, met: Counter[str]
) -> set[tuple[str, str]]:
    """Hold phones, model and service to each other; return the cards, and add up the causes in ``met``."""
    causes = {
        (model.phone.id, name): card.cause
        for model in models
        for name, card in model.judged(slot, day.starts)
        if card.cause
    }
    behind = day.behind(models, slot)
    # Exactly those that the phone's own truth keeps back.
    odd = sorted(behind ^ causes.keys())
    assert not odd, "\n".join(day.told(place, models) for place in odd)
    await compare_missing(day, models, slot)
    met += Counter(causes.values())
    judged = {
        (model.phone.id, name) for model in models for name, _ in model.judged(slot, day.starts)
    }
    if ASKED and slot not in ASKED_AT:
        return judged
    wanted, named = {}, {}
    for model in models:
        found = await day.findings(model.phone.id)
        for name, _ in model.judged(slot, day.starts):
            place = model.phone.id, name
            wanted[place] = model.words(name)
            named[place] = frozenset(found.get(name, found.get("", ())))
    odd = sorted(place for place, words in wanted.items() if named[place] != words)
    assert not odd, "\n".join(
        f"{day.told(place, models)}: named {set(named[place])}, wanted {set(wanted[place])}"
        for place in odd
    )
    unheard = {
        (model.phone.id, name)
        for model in models
        for name, _ in model.judged(slot, day.starts)
        if model.is_unheard(name)
    }
    assert behind == {place for place, words in named.items() if words} - unheard
    return judged


async def compare_missing(day: Day, models: list[Ought], slot: int) -> None:
    """Hold the service's counts of devices that handed in no token to the model."""
    for name in (name for name, start in day.starts.items() if slot - start < LIVES):
        without = sum(
            card.known and card.token == "none" and not card.by_channel
            for model in models
            for card in (model.cards.get(name),)
            if card is not None
        )
        counts = await day.service.activities.get(day.app, name)
        assert (name, counts["missing"]) == (name, without)
        operations = await day.service.operations.page(day.app, activity=name)
        [start] = [each for each in operations if each["kind"] == "start"]
        assert start["missing"] >= without
