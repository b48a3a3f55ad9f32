"""Content states that are nested as deeply as 4 KB allow stop neither the API nor the stream."""

import pytest

TOKEN = "ab" * 32


def start(state):
    aps = '"event":"start","attributes-type":"A","attributes":{},"alert":"Begins"'
    return f'{{"aps":{{{aps},"timestamp":1800000000,"content-state":{state}}}}}'.encode()


@pytest.mark.parametrize("opening", ["[", '{"a":'])
async def test_any_depth_is_answered(stage, opening):
    closing = {"[": "]", '{"a":': "}"}[opening]
    levels = [*range(300, 660, 7)] if opening != "[" else [*range(300, 900, 40), *range(900, 1010)]
    async with stage.events() as events:
        await events.next()
        for number, depth in enumerate(levels):
            state = f'{{"a":{opening * depth}0{closing * depth}}}'
            token = f"{number:064x}"
            stage.push(token, body=start(state))
            device = stage.fake.devices.token(token).device.id
            assert (await stage.get(f"/v1/devices/{device}"))["id"] == device
            await stage.get("/v1/pushes", payload=1, newest=1, limit=1)
        await events.until(lambda data: data["devices_total"] == len(levels))
        counts = (await stage.get("/v1/fake"))["counts"]
        assert counts["delivered"] > 40
        assert counts["delivered"] + counts["discarded"] == len(levels)
