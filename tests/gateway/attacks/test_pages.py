"""The pages beside the gateway: another page's calls, and what is shown of keys."""

from __future__ import annotations

import httpx
import pytest

from apns_live.cli.with_fake import Calls, readable
from apns_live.testing.control.server import Guard


@pytest.mark.parametrize(("name", "value"), [("origin", "http://[::1"), ("host", "[::1")])
async def test_the_control_api_answers_400_to_what_is_no_address(name: str, value: str) -> None:
    """It was 500: such a header cannot be taken apart."""

    async def never(*_: object) -> None:
        raise AssertionError

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(Guard(never, token=None)),  # type: ignore[arg-type]
        base_url="http://localhost",
    ) as http:
        answer = await http.post("/v1/reset", json={}, headers={name: value})
        assert answer.status_code == 400


async def test_the_calls_of_the_page_are_taken_from_its_own_origin_alone() -> None:
    from starlette.applications import Starlette

    calls = Calls(Starlette())
    guarded = Guard(Starlette(routes=calls.routes), token=None)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(guarded, client=("127.0.0.1", 1))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8080") as http:
        for origin, status in (
            ("http://localhost:9999", 403),
            ("http://[::1", 400),
            ("null", 403),
            ("http://localhost:8080", 400),
        ):
            answer = await http.post("/gateway/send", json={}, headers={"origin": origin})
            assert answer.status_code == status, origin
    await calls.aclose()


def test_the_calls_of_the_page_show_no_key() -> None:
    pem = "-----BEGIN PRIVATE KEY-----\\nMIGH\\n-----END PRIVATE KEY-----"
    for body in (
        f'{{"id": "1", "secret": "apnslive_1234_{"a" * 64}"}}',
        f'{{"key": "{pem}"}}',
        f'{{"said": ["Bearer braze_1234_{"a" * 64}"], "pem": "x"}}',
        f"p8={pem}",
        '{"credential": "apnsdev1.aaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbb"}',
    ):
        shown = str(readable(body.encode()))
        assert "hidden" in shown
        assert "MIGH" not in shown
        assert "aaaa" not in shown
    assert readable(b'{"content_state": {"key": "goal"}}') == {"content_state": {"key": "goal"}}
