import httpx

from apns_live.testing import FakeApns
from apns_live.testing.control import serve_control

from .conftest import GAME
from .test_endpoints import started


async def test_a_snapshot_then_what_changes(stage):
    activity = await started(stage)
    async with stage.events() as events:
        name, snapshot = await events.next()
        assert name == "snapshot"
        assert [each["id"] for each in snapshot["devices"]] == ["phone-1"]
        assert [each["event"] for each in snapshot["pushes"]] == ["start"]
        assert snapshot["seq"] == 1
        stage.push(activity["token"], "update", {"n": 1})
        delta = await events.until(lambda data: data["pushes"])
        assert delta["devices"][0]["activities"][0]["content_state"] == {"n": 1}
        assert delta["pushes"][0]["payload"]["aps"]["content-state"] == {"n": 1}
        assert "faults" not in delta
        await stage.post("/v1/faults", {"action": "delay", "delay": 1}, status=201)
        delta = await events.until(lambda data: "faults" in data)
        assert delta["faults"][0]["action"] == "delay"
        await stage.post("/v1/devices/phone-1", method="DELETE", status=204)
        delta = await events.until(lambda data: data.get("removed"))
        assert delta["removed"] == ["phone-1"]


async def test_a_burst_is_few_messages(stage):
    phones = [stage.fake.devices.add_device(attributes_types=[GAME]) for _ in range(50)]
    async with stage.events(payload=0) as events:
        await events.next()
        for _ in range(20):
            for phone in phones:
                stage.push(phone.token_of("start").text, "start")
        seen = skipped = messages = 0
        while seen + skipped < 1000:
            _, delta = await events.next()
            messages += 1
            seen += len(delta["pushes"])
            skipped += delta["pushes_skipped"]
            assert len(delta["pushes"]) <= 100
            assert len(delta["devices"]) <= 50
        assert messages < 20
        assert skipped > 0
        assert "payload" not in delta["pushes"][0]


async def test_only_so_many_phones_are_in_the_stream(stage):
    for number in range(5):
        stage.fake.devices.add_device(f"p{number}")
    async with stage.events(devices=3) as events:
        _, snapshot = await events.next()
        assert [each["id"] for each in snapshot["devices"]] == ["p0", "p1", "p2"]
        assert snapshot["devices_total"] == 5
        for number in (4, 1):
            stage.fake.devices.configure(stage.fake.devices.devices[f"p{number}"], {"awake": False})
        _, delta = await events.next()
        assert [each["id"] for each in delta["devices"]] == ["p1"]


async def test_reset_starts_again_with_a_snapshot(stage):
    await started(stage)
    async with stage.events() as events:
        await events.next()
        stage.fake.reset()
        await stage.post("/v1/reset", status=204)
        name, _ = await events.next()
        while name == "delta":
            name, _ = await events.next()
        assert name == "reset"
        name, snapshot = await events.next()
        assert (name, snapshot["devices"]) == ("snapshot", [])


async def test_nothing_is_collected_while_nobody_watches(stage):
    async with stage.events() as events:
        await events.next()
        assert len(stage.fake.log.listeners) == 1
    while stage.fake.log.listeners:
        stage.fake.devices.add_device()
        await stage.get("/v1/clock")
    assert stage.fake.devices.watch is None


async def test_stopping_ends_open_streams():
    async with FakeApns() as fake:
        async with serve_control(fake) as url, httpx.AsyncClient(base_url=url) as client:
            response = await client.send(client.build_request("GET", "/v1/events"), stream=True)
            lines = response.aiter_lines()
            assert await anext(lines) == "event: snapshot"
        await response.aclose()
        assert fake.log.listeners == []
