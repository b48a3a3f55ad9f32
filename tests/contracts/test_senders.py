"""The client refuses, and the fake's phones ignore, what the app does not decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apns_live.client import Client, Endpoint
from apns_live.contracts import Contract
from apns_live.credentials import ProviderKey
from apns_live.delivery import Delivery
from apns_live.errors import InvalidPayload
from apns_live.payload import Alert, Start, Update
from apns_live.testing import FakeApns
from tests.plugin.senders import Backend

GAME = Path(__file__).parent / "Game.swift"


def client_of(fake: FakeApns, **options: Any) -> Client:
    key = ProviderKey.from_file(fake.key_file, key_id=fake.key_id, team_id=fake.team_id)
    endpoint = Endpoint(**fake.endpoint._asdict())
    return Client(key, bundle_id=fake.bundle_id, environment=endpoint, **options)


async def test_the_client_refuses_before_anything_is_sent() -> None:
    contract = Contract.read(GAME)
    async with FakeApns() as fake, client_of(fake, contracts=contract) as client:
        token = "ab" * 32
        assert (
            await client.send(Update(content_state={"home": 1, "odds": 2}), token)
        ).status == 200
        for state, place in [
            ({"home": 1.5}, "home: Swift needs Int"),
            ({}, "home is missing"),
            ({"home": 1, "scorer": 7}, "scorer: Swift needs String"),
        ]:
            with pytest.raises(InvalidPayload, match=place):
                await client.send(Update(content_state=state), token)
            with pytest.raises(InvalidPayload, match=place):
                client.fan_out(Update(content_state=state), [token])
        start = Start(
            content_state={"home": 1},
            attributes_type="GameAttributes",
            attributes={"name": "x"},
            alert=Alert(title="Kick-off", body="Now"),
        )
        with pytest.raises(InvalidPayload, match=r"attributes\.title is missing"):
            await client.send(start, token)
        assert len(fake.recorder.pushes) == 1


async def test_phones_decode_by_the_version_of_their_app() -> None:
    text = GAME.read_text().replace("var home: Int;", "var home: Int; var away: Int;")
    newer = Contract({"Game.swift": text})
    start = Start(
        content_state={"home": 1},
        attributes_type="GameAttributes",
        attributes={"title": "Final"},
        alert=Alert(title="Kick-off", body="Now"),
    )
    async with FakeApns(contract={"1.0": GAME, "2.0": [GAME], "": newer}) as fake:
        async with client_of(fake) as client:
            shown = {}
            for version in ("1.0", "2.0", "2.1"):
                phone = fake.devices.add_device(
                    attributes_types=["GameAttributes"], app_version=version
                )
                token = phone.token_of("start")
                assert token is not None
                await client.send(start, token.text)
                shown[version] = len(phone.activities)
        assert shown == {"1.0": 1, "2.0": 1, "2.1": 0}
        assert "away is missing" in fake.log.pushes[-1].detail


async def test_delivery_refuses_where_it_is_called() -> None:
    """Nothing of it may come up later, in the task that sends."""
    contract = Contract.read(GAME)
    async with FakeApns() as fake, client_of(fake, contracts=contract) as client:
        async with Delivery(client) as delivery:
            bad, good = Update(content_state={"home": "1"}), Update(content_state={"home": 1})
            with pytest.raises(InvalidPayload, match="home: Swift needs Int"):
                delivery.submit(bad, "ab" * 32)
            with pytest.raises(InvalidPayload, match="home: Swift needs Int"):
                delivery.submit_when_known(bad, "phone")
            with pytest.raises(InvalidPayload, match="home: Swift needs Int"):
                delivery.fan_out(bad, ["ab" * 32], name="goal")
            outcome = await delivery.submit(good, "ab" * 32)
            assert outcome.status == 200
        assert len(fake.recorder.pushes) == 1


@pytest.mark.fake_apns(contract=GAME)
def test_phones_decode_by_the_apps_source(fake_apns: Any) -> None:
    backend = Backend(fake_apns)
    phone = fake_apns.devices.add("phone", attributes_types=["GameAttributes"])
    try:
        backend.start(
            phone.start_token("GameAttributes"), {"home": 0}, attributes={"title": "Final"}
        )
        phone.assert_shows({"home": 0})
        backend.update(phone.activity_token(), {"home": "1"})
        with pytest.raises(AssertionError, match="home: Swift needs Int and finds a string"):
            phone.assert_shows({"home": "1"}, timeout=0)
        assert phone.shows({"home": 0})
    finally:
        backend.client.close()


@pytest.mark.fake_apns(contract=GAME)
def test_a_start_whose_attributes_do_not_decode_shows_nothing(fake_apns: Any) -> None:
    backend = Backend(fake_apns)
    phone = fake_apns.devices.add("phone", attributes_types=["GameAttributes"])
    try:
        assert backend.start(phone.start_token("GameAttributes"), {"home": 0}).status_code == 200
        with pytest.raises(AssertionError, match="title is missing"):
            phone.assert_shows({"home": 0}, timeout=0)
    finally:
        backend.client.close()
