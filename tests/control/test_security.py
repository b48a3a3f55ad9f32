import httpx
import pytest

from apns_live.errors import FakeError
from apns_live.testing import FakeApns
from apns_live.testing.control import serve_control

JSON = {"content-type": "application/json"}


async def test_every_answer_is_guarded(stage):
    for path in ("/", "/v1/fake", "/v1/nothing", "/v1/events"):
        async with stage.client.stream("GET", path) as answer:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "access-control-allow-origin" not in answer.headers


async def test_names_of_other_machines_are_refused(stage):
    answer = await stage.client.get("/v1/fake", headers={"host": "evil.example"})
    assert answer.status_code == 403
    for host in ("localhost", "127.0.0.1:1", "[::1]:8080"):
        answer = await stage.client.get("/v1/fake", headers={"host": host})
        assert answer.status_code == 200, host


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({}, 415),
        (JSON | {"origin": "https://evil.example"}, 403),
        (JSON | {"origin": "null"}, 403),
        (JSON | {"content-type": "application/json; charset=utf-8"}, 204),
    ],
)
async def test_other_sites_change_nothing(stage, headers, status):
    stage.fake.devices.add_device("phone-1")
    answer = await stage.client.post("/v1/reset", content=b"{}", headers=headers)
    assert answer.status_code == status
    # Only the call that is allowed has reset the fake.
    left = [] if status == 204 else ["phone-1"]
    assert list(stage.fake.devices.devices) == left


async def test_our_own_page_may_change_things(stage):
    answer = await stage.client.post(
        "/v1/reset", content=b"{}", headers=JSON | {"origin": stage.url}
    )
    assert answer.status_code == 204


async def test_another_address_needs_a_token():
    async with FakeApns() as fake:
        with pytest.raises(FakeError, match="token"):
            async with serve_control(fake, host="0.0.0.0"):
                pass


async def test_with_a_token_everybody_must_know_it():
    async with (
        FakeApns() as fake,
        serve_control(fake, token="geheim") as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer \xfc"}):
            sent = {name: value.encode("latin-1") for name, value in headers.items()}
            answer = await client.get("/v1/fake", headers=sent)
            assert answer.status_code == 401
        answer = await client.get("/v1/fake", headers={"authorization": "Bearer geheim"})
        assert answer.status_code == 200
        # Any Host is fine for who knows the token.
        headers = {"authorization": "Bearer geheim", "host": "build-7.example:1"}
        assert (await client.get("/v1/fake", headers=headers)).status_code == 200
        assert (await client.get("/?token=wrong")).status_code == 401
        answer = await client.get("/?token=geheim")
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert (await client.get("/v1/fake")).status_code == 200
