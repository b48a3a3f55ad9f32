"""The pages of a gateway without a fake: ``/`` leads to the reference, and nothing else may feed or frame it."""

from __future__ import annotations

import re

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from apns_live.gateway import GatewaySettings, create_app
from apns_live.gateway.app import FOLDER

from .conftest import Live


async def test_the_address_leads_to_the_reference(live: Live) -> None:
    async with httpx.AsyncClient(base_url=live.url) as anyone:
        page = await anyone.get("/", follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/reference")
        assert page.headers["content-type"].startswith("text/html")
        policy = page.headers["content-security-policy"]
        assert (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in policy
        )
        assert "unsafe" not in policy
        assert page.headers["x-frame-options"] == "DENY"
        for name in re.findall(r'(?:href|src)="([\w.-]+)"', page.text):
            assert (await anyone.get(f"/{name}")).status_code == 200, name
        assert (await anyone.post("/reference")).status_code == 405


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: str(file.name))
def test_the_files_name_no_other_host_and_write_no_markup(file: object) -> None:
    text = FOLDER.joinpath(str(file)).read_text("utf-8")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


async def test_it_works_below_a_path_and_can_be_switched_off(live: Live) -> None:
    on, off = (
        create_app(live.service, settings=GatewaySettings(pages=pages)) for pages in (True, False)
    )
    whole = Starlette(routes=[Mount("/live", on), Mount("/bare", off)])
    transport = httpx.ASGITransport(whole)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        answer = await http.get("/live/", follow_redirects=True)
        assert (answer.status_code, answer.url.path) == (200, "/live/reference")
        for path in ("/bare/", "/bare/reference", "/bare/reference.js", "/bare/openapi.json"):
            assert (await http.get(path)).status_code == 404
