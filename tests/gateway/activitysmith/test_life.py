"""Activities by id: what each documented request is answered with, and what the phones show then."""

from __future__ import annotations

from tests.gateway.activitysmith.world import SmithWorld

BACKUP = {
    "title": "Weekly mirror",
    "subtitle": "copy volumes",
    "number_of_steps": 4,
    "current_step": 1,
    "type": "segmented_progress",
    "color": "cyan",
}


async def test_start_update_end(world: SmithWorld) -> None:
    phones = await world.add_smith_phones(3)
    started = await world.ok("POST", "/api/live-activity/start", {"content_state": BACKUP})
    assert started["success"] is True
    assert started["devices_notified"] == 3
    assert started["users_notified"] == 3
    assert started["effective_channel_slugs"] is None
    activity = started["activity_id"]
    assert len(activity) == 32
    await world.until(lambda: all(phone.activities for phone in phones))
    for phone in phones:
        assert world.card(phone) == BACKUP
        assert world.attributes(phone) == {"activity_id": activity}
    await world.tokens()

    updated = await world.ok(
        "POST",
        "/api/live-activity/update",
        {
            "activity_id": activity,
            "content_state": {
                "title": "Weekly mirror",
                "subtitle": "check sums",
                "number_of_steps": 4,
                "current_step": 2,
            },
        },
    )
    assert updated["success"] is True
    assert updated["activity_id"] == activity
    assert updated["devices_notified"] == 3
    assert updated["devices_queued"] == 0
    for phone in phones:
        shown = world.card(phone)
        assert shown["type"] == "segmented_progress"
        assert (shown["subtitle"], shown["current_step"]) == ("check sums", 2)
        assert phone.activities[-1].alerts == 1, "an update is quiet"

    ended = await world.ok(
        "POST",
        "/api/live-activity/end",
        {
            "activity_id": activity,
            "content_state": {
                "title": "Weekly mirror",
                "subtitle": "done",
                "number_of_steps": 4,
                "current_step": 4,
                "auto_dismiss_minutes": 2,
            },
        },
    )
    assert ended["devices_notified"] == 3
    assert ended["devices_queued"] == 0
    assert "ignored" not in ended
    for phone in phones:
        card = phone.activities[-1]
        assert card.state == "ended"
        assert world.card(phone)["subtitle"] == "done"
        assert "auto_dismiss_minutes" not in world.card(phone)
    again = await world.ok(
        "POST",
        "/live-activity/end",
        {"activity_id": activity, "content_state": {"title": "x", "current_step": 4}},
    )
    assert again["ignored"] is True
    assert again["end_reason"] == "requested"
    await world.refused(
        404,
        "POST",
        "/live-activity/update",
        {"activity_id": activity, "content_state": {"title": "late", "current_step": 1}},
    )
