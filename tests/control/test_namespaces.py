"""Namespaces over HTTP: the same endpoints below a path of their own."""

from .conftest import GAME


async def test_every_endpoint_is_there_below_the_namespaces_path(stage):
    made = await stage.post("/v1/namespaces", {"name": "one"}, 201)
    assert made == {
        "name": "one",
        "path": "/namespaces/one",
        "devices": 0,
        "pushes": 0,
        "faults": 0,
    }
    two = (await stage.post("/v1/namespaces", {}, 201))["path"]
    one = made["path"]
    phone = await stage.post(f"{one}/v1/devices", {"id": "phone", "attributes_types": [GAME]}, 201)
    start = next(each["token"] for each in phone["tokens"] if each["kind"] == "start")
    stage.push(start, "start", {"score": 1})
    [activity] = (await stage.get(f"{one}/v1/activities"))["items"]
    assert activity["content_state"] == {"score": 1}
    assert (await stage.get(f"{one}/v1/activities/{activity['id']}"))["device"] == "phone"
    wanted = {"where": {"event": "start", "content_state": {"score": 1}}}
    assert (await stage.post(f"{one}/v1/pushes/verify", wanted))["ok"]
    for elsewhere in (two, ""):
        assert (await stage.get(f"{elsewhere}/v1/activities"))["items"] == []
        assert not (await stage.post(f"{elsewhere}/v1/pushes/verify", wanted))["ok"]
        assert (await stage.get(f"{elsewhere}/v1/counts"))["devices"] == 0
        await stage.get(f"{elsewhere}/v1/devices/phone", 404)
    await stage.post(f"{two}/v1/reset", None, 204)
    assert (await stage.get(f"{one}/v1/counts"))["devices"] == 1
    assert (await stage.get("/v1/openapi.json"))["servers"][1]["url"] == "/namespaces/{namespace}"
    every = (await stage.get("/v1/openapi.json"))["paths"]
    unknown = [
        path
        for path, methods in every.items()
        if "get" in methods and "{" not in path and not path.endswith(("next", "events"))
        if (await stage.client.get(f"{one}{path}")).status_code != 200
    ]
    assert unknown == ["/v1/namespaces"]


async def test_faults_tokens_and_channels_of_a_namespace(stage):
    one = (await stage.post("/v1/namespaces", {}, 201))["path"]
    fault = await stage.post(f"{one}/v1/faults", {"action": "delay", "delay": "1s"}, 201)
    assert fault["id"] == 1
    assert (await stage.get("/v1/faults"))["items"] == []
    refused = await stage.post(f"{one}/v1/faults", {"action": "fail_tls"}, 400)
    assert "fail_tls cannot be done here" in refused["error"]
    await stage.post(f"{one}/v1/faults/1", method="DELETE", status=204)
    token = await stage.post(f"{one}/v1/tokens", {"token": "AB" * 32}, 201)
    assert (token["token"], token["automatic"]) == ("ab" * 32, True)
    stage.push("ab" * 32, state={"n": 1})
    assert (await stage.get(f"{one}/v1/pushes"))["items"][0]["token"] == "ab" * 32
    assert (
        "another namespace" in (await stage.post("/v1/tokens", {"token": "ab" * 32}, 400))["error"]
    )
    channel = await stage.post(f"{one}/v1/channels", {"storage_policy": 1}, 201)
    assert (channel["storage_policy"], channel["bundle_id"]) == (1, stage.fake.bundle_id)
    found = stage.fake.state.channels.get(channel["bundle_id"], channel["channel_id"])
    assert found is not None
    await stage.post("/v1/channels", {"storage_policy": 2}, 400)
    await stage.post("/v1/channels", {"bundle_id": "com.example.nobody"}, 404)


async def test_namespaces_are_listed_and_removed(stage):
    await stage.post("/v1/namespaces", {"name": "one"}, 201)
    assert (await stage.post("/v1/namespaces", {"name": "one"}, 409))["field"] == "name"
    await stage.post("/v1/namespaces", {"name": "a/b"}, 400)
    listed = (await stage.get("/v1/namespaces"))["items"]
    assert [each["name"] for each in listed] == ["one"]
    await stage.post("/namespaces/one/v1/devices", {}, 201)
    await stage.post("/v1/namespaces/one", method="DELETE", status=204)
    await stage.post("/v1/namespaces/one", method="DELETE", status=404)
    missing = await stage.get("/namespaces/one/v1/devices", 404)
    assert missing["error"] == "there is no such namespace"
    await stage.post("/v1/namespaces", {"name": "one"}, 201)
    assert (await stage.get("/namespaces/one/v1/devices"))["items"] == []
    # None is in another.
    assert (await stage.client.get("/namespaces/one/v1/namespaces")).status_code == 404


async def test_a_poll_hears_its_own_namespace(stage):
    one = (await stage.post("/v1/namespaces", {}, 201))["path"]
    phone = await stage.post(f"{one}/v1/devices", {"attributes_types": [GAME]}, 201)
    start = next(each["token"] for each in phone["tokens"] if each["kind"] == "start")
    stage.push("ef" * 32)
    stage.push(start, "start", {"score": 1})
    found = await stage.get(f"{one}/v1/pushes/next", after=0, timeout=5)
    assert found["token"] == start
    [nothing] = [await stage.get(f"{one}/v1/pushes/next", 204, timeout=0)]
    assert nothing is None
