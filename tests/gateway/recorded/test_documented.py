"""The calls that Braze and OneSignal document: each gets the promised answer, and the phones show the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.activities.databases import database, store_address  # noqa: F401 - fixtures
from tests.gateway.braze.conftest import store_kind, world  # noqa: F401 - fixtures
from tests.gateway.braze.world import VendorWorld

FILE = Path(__file__).parents[3] / "fixtures" / "vendor_examples" / "live_activities.json"
EXAMPLES: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text("utf-8"))
SCHEMES = {"braze": "Bearer", "onesignal": "Key"}
ENGLISH = {"field": "language", "relation": "=", "value": "en"}


def like(found: Any, expected: Any) -> bool:
    """Whether an answer is the documented one; ``errors`` beside a message say more."""
    if expected == "*":
        return bool(found)
    if isinstance(expected, dict) and isinstance(found, dict):
        more = set(found) - set(expected) - {"errors", "warnings"}
        return not more and all(like(found.get(name), value) for name, value in expected.items())
    return bool(found == expected)


@pytest.mark.parametrize("vendor", EXAMPLES)
async def test_documented_calls(world: VendorWorld, vendor: str) -> None:  # noqa: F811
    phones = await world.add_users(2, language="en")
    people, segments = world.service.people, world.service.segments
    await segments.save(world.app, "everyone", ENGLISH, id="segment-1")
    await segments.save(world.app, "nobody", {**ENGLISH, "value": "fr"})
    for number in range(2):
        await people.set_attributes(world.app, "user", f"user-{number}", {"plan": "gold"})
    secret = await world.key(vendor)
    for number, step in enumerate(EXAMPLES[vendor]):
        key = step.get("key", secret)
        answer = await world.http.post(
            step["path"], json=step["body"], headers={"authorization": f"{SCHEMES[vendor]} {key}"}
        )
        where = f"{number} {step['path']}: {answer.text}"
        assert answer.status_code == step["status"], where
        assert like(answer.json(), step["answer"]), where
        assert step.get("headers", {}).items() <= dict(answer.headers).items(), where
        if "shows" in step:
            state, content = step["shows"]
            await world.shows(phones, state, **content)
            if state == "active":
                await world.have_tokens(phones)
