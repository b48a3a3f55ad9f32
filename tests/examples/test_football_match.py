"""The football backend from registration to full time, against a phone of the fake."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from tests.examples.conftest import Fake

TEAMS = {"home": "Lions", "away": "Bears"}


def test_a_match_from_registration_to_full_time(
    fake: Fake, backend: Callable[[], httpx.Client]
) -> None:
    phone, start_token = fake.phone(attributes_types=["MatchAttributes"])
    other, other_token = fake.phone(attributes_types=["MatchAttributes"])
    scores = backend()
    for device, token, follows in (
        (phone["id"], start_token, "final"),
        (other["id"], other_token, "another"),
    ):
        body = {"device": device, "start_token": token, "follows": follows}
        assert scores.post("/devices", json=body).status_code == 204
    assert scores.post("/matches/final/kick-off", json=TEAMS).status_code == 202
    assert scores.post("/matches/final/kick-off", json=TEAMS).status_code == 409
    begun = fake.next_push(event="start")
    assert begun["device"] == phone["id"]
    assert begun["payload"]["aps"]["attributes"] == TEAMS
    # The app on the phone is woken, gets the card's own token and hands it in.
    issued = fake.api.get(
        "/v1/tokens/next",
        params={"kind": "activity", "device": phone["id"], "after": 0, "timeout": 30},
    ).json()
    body = {"device": phone["id"], "token": issued["token"]}
    assert scores.post("/matches/final/tokens", json=body).status_code == 204
    goal = {"side": "home", "minute": 12}
    assert scores.post("/matches/final/goal", json=goal).json() == {"home": 1, "away": 0}
    assert scores.post("/matches/final/goal", json=goal).json() == {"home": 1, "away": 0}
    shown = fake.next_push(event="update", token=issued["token"], state="delivered")
    while shown["payload"]["aps"]["content-state"]["home"] == 0:
        shown = fake.next_push(event="update", token=issued["token"], after=shown["number"])
    assert shown["payload"]["aps"]["content-state"] == {"home": 1, "away": 0, "minute": 12}
    # The backend is restarted in the second half, and goes on.
    scores = backend()
    assert scores.get("/matches/final").json()["content_state"]["home"] == 1
    assert scores.post("/matches/final/goal", json={"side": "away", "minute": 80}).is_success
    assert scores.post("/matches/final/full-time").status_code == 202
    ended = fake.next_push(event="end", token=issued["token"])
    assert ended["state"] == "delivered"
    assert fake.api.get("/v1/activities", params={"state": "ended"}).json()["items"][0][
        "content_state"
    ] == {"home": 1, "away": 1, "minute": 80}
    assert scores.get("/matches/final").json()["status"] == "ended"
    late = scores.post("/matches/final/goal", json={"side": "away", "minute": 95})
    assert late.status_code == 409
    assert scores.get("/matches/nothing").status_code == 404
    pushed = fake.api.get("/v1/pushes").json()["items"]
    assert {push["device"] for push in pushed} == {phone["id"]}
