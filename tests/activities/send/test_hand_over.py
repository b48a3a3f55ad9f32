"""Cards that are soon too old get a successor, and are ended when its token comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apns_live.activities import (
    AlertText,
    Audience,
    Presentation,
    ServiceSettings,
    Start,
    TokenRecord,
    Update,
)
from apns_live.activities.accept.idempotency import Writing
from apns_live.activities.accept.receipts import ReceiptRecord
from apns_live.activities.due import scheduler
from apns_live.activities.store import schema
from apns_live.delivery import lanes
from apns_live.errors import InvalidInput, InvalidSetting
from tests.activities.plans import every_query_indexed
from tests.activities.send.test_recovery import kill
from tests.activities.send.world import TYPE, World, a_start, an_end, an_update

AFTER = 600.0
LOUD = AlertText(title="Kick-off", body="It begins", sound="default")


@pytest.fixture(autouse=True)
def long_strides(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "LONGEST", 600.0)
    monkeypatch.setattr(lanes, "HOUSEKEEPING", 60.0)
    world.stride = 3600.0


async def run(world: World, count: int, **changes: Any) -> list[Any]:
    """Start a match whose cards are handed over after ten minutes, with its tokens handed in."""
    told = {"os_version": "18.2"} if "channel" in changes else {}
    phones = await world.add_phones(count, **told)
    start = a_start(presentation=Presentation(alert=LOUD), hand_over_after=AFTER, **changes)
    await world.service.activities.start(world.app, start)
    await world.until(lambda: None not in world.shown(phones))
    await world.pass_time(2)
    await world.settled()
    return phones


async def update(world: World, n: int) -> None:
    await world.service.activities.update(world.app, an_update(n))
    await world.settled()


def cards(phone: Any) -> list[tuple[str, Any]]:
    """Each card of a phone: its state, and what it says."""
    return [(card.state, json.loads(card.content)["n"]) for card in phone.activities]


def starts(world: World) -> list[Any]:
    bodies = [json.loads(push.body)["aps"] for push in world.fake.pushes]
    return [aps for aps in bodies if aps["event"] == "start"]


async def kinds(world: World) -> list[tuple[str, str, int, int, int]]:
    return [
        (row.kind, row.status, row.targeted, row.accepted, row.failed)
        for row in await world.operations()
    ]


async def test_the_old_card_is_ended_when_the_new_one_has_come(world: World) -> None:
    phones = await run(world, 3)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = False
    await world.pass_time(AFTER - 300 + 5)
    # Both cards are up, and the first is the one that gets updates.
    assert [cards(phone) for phone in phones] == [[("active", 1), ("active", 1)]] * 3
    await update(world, 2)
    assert [cards(phone) for phone in phones] == [[("active", 2), ("active", 1)]] * 3
    world.registering = True
    await world.hand_in()
    await world.settled()
    await world.pass_time(2)
    assert [cards(phone) for phone in phones] == [[("dismissed", 2), ("active", 2)]] * 3
    pushes = len(world.fake.pushes)
    await update(world, 3)
    assert [cards(phone)[-1] for phone in phones] == [("active", 3)] * 3
    assert len(world.fake.pushes) == pushes + 3  # one for each card
    # It says what is newest, and makes no sound.
    assert [aps["content-state"]["n"] for aps in starts(world)] == [0] * 3 + [1] * 3
    assert [aps["alert"].get("sound") for aps in starts(world)] == ["default"] * 3 + [None] * 3
    assert await kinds(world) == [
        ("start", "done", 3, 3, 0),
        ("update", "done", 3, 3, 0),
        ("start", "done", 3, 3, 0),
        ("update", "done", 3, 6, 0),  # on two cards each
        ("hand-over", "done", 3, 3, 0),
        ("update", "done", 3, 3, 0),
    ]
    await world.service.activities.end(world.app, an_end(4))
    await world.settled()
    assert [cards(phone)[-1] for phone in phones] == [("ended", 4)] * 3


async def test_it_goes_on_for_as_long_as_the_caller_is_at_work(world: World) -> None:
    [phone] = await run(world, 1)
    for n in range(1, 8):
        await world.pass_time(300)
        await update(world, n)
    assert [state for state, _ in cards(phone)] == ["dismissed"] * 3 + ["active"]
    [row] = await world.rows_of_activity()
    assert row.expires_at >= world.now() + 7 * 3_600_000
    await world.pass_time(3 * AFTER)
    # One more for the last update; then nobody said anything for a card's age.
    assert len(starts(world)) == 5
    world.clock.advance_sync(9 * 3600)
    await world.pass_time(1)
    [row] = await world.rows_of_activity()
    assert (row.status, row.end_reason) == ("ended", "expired")
    assert len(starts(world)) == 5


async def test_a_device_whose_last_start_gave_no_token_keeps_its_card(world: World) -> None:
    phones = await world.add_phones(2)
    world.registering = False
    start = a_start(hand_over_after=AFTER)
    await world.service.activities.start(world.app, start)
    await world.until(lambda: len(world.handed_in) == 2)
    world.handed_in = [one for one in world.handed_in if one.device == phones[0].id]
    world.registering = True
    await world.pass_time(300)
    await update(world, 1)
    await world.pass_time(AFTER)
    assert cards(phones[0]) == [("dismissed", 1), ("active", 1)]
    assert cards(phones[1]) == [("active", 0)]


async def test_a_second_start_without_a_token_is_not_followed_by_a_third(world: World) -> None:
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = False
    for n in range(2, 8):
        await world.pass_time(300)
        await update(world, n)
    # The first card, which can be updated, is kept up to date.
    assert cards(phone) == [("active", 7), ("active", 1)]
    assert len(starts(world)) == 2


@pytest.mark.parametrize("event", ["dismissed", "ended"])
async def test_a_card_that_is_gone_gets_no_successor(world: World, event: Any) -> None:
    phones = await run(world, 2)
    world.fake.devices.dismiss(phones[0].activities[0])
    gone = ReceiptRecord(device=phones[0].id, event=event, activity="match")
    await world.service.receipts.record(world.app, [gone])
    await world.pass_time(300)
    await update(world, 1)
    pushes = len(world.fake.pushes)
    await world.pass_time(AFTER)
    assert [len(phone.activities) for phone in phones] == [1, 2]
    assert len(world.fake.pushes) == pushes + 2  # a start and an end: the card says the newest


async def test_the_report_that_the_first_card_is_gone_does_not_end_the_second(world: World) -> None:
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    await world.pass_time(AFTER - 300 + 5)
    for event in ("ended", "dismissed"):
        told = ReceiptRecord(device=phone.id, event=event, activity="match", at=world.now())
        await world.service.receipts.record(world.app, [told])
    await update(world, 2)
    assert cards(phone)[-1] == ("active", 2)
    await world.pass_time(400)
    told = ReceiptRecord(device=phone.id, event="dismissed", activity="match", at=world.now())
    await world.service.receipts.record(world.app, [told])
    assert [row.retired_reason for row in await world.members()] == ["dismissed"]


async def test_the_end_of_the_first_card_by_ios_does_not_end_the_second(world: World) -> None:
    [phone] = await world.add_phones(1)
    after = 7.5 * 3600
    await world.service.activities.start(world.app, a_start(hand_over_after=after))
    await world.until(lambda: None not in world.shown([phone]))
    await world.pass_time(3600)
    # The first card's token is replaced, and its app does not tell: no end reaches that card.
    world.registering = False
    world.fake.devices.rotate(phone.activities[0].token)
    world.handed_in, world.registering = [], True
    await update(world, 1)
    await world.pass_time(after - 3600 + 60)
    assert cards(phone) == [("active", 0), ("active", 1)]
    await world.pass_time(1800)
    assert cards(phone) == [("ended", 0), ("active", 1)]
    told = ReceiptRecord(device=phone.id, event="ended", activity="match")
    await world.service.receipts.record(world.app, [told])
    await update(world, 2)
    assert cards(phone)[-1] == ("active", 2)


async def test_a_report_that_names_its_card_is_about_that_one(world: World) -> None:
    world.tells_cards = True
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = False
    await world.pass_time(AFTER - 300 + 5)
    first, second = phone.activities

    async def report(event: Any, card: Any) -> None:
        told = ReceiptRecord(device=phone.id, event=event, activity="match", card=card.id)
        await world.service.receipts.record(world.app, [told])

    # The second one, whose token has not come, was swiped away: the first goes on.
    await report("dismissed", second)
    await update(world, 2)
    assert cards(phone)[0] == ("active", 2)
    await world.hand_in()
    await world.settled()
    # The phone was away, so the first one ended late.
    await world.pass_time(400)
    await report("ended", first)
    await update(world, 3)
    assert cards(phone)[-1] == ("active", 3)
    await report("dismissed", second)
    assert [row.retired_reason for row in await world.members()] == ["dismissed"]


@pytest.mark.parametrize("how", ["reported", "refused"])
async def test_the_second_card_counts_when_the_first_is_gone(world: World, how: str) -> None:
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = False
    await world.pass_time(AFTER - 300 + 5)
    assert cards(phone) == [("active", 1), ("active", 1)]
    first = phone.activities[0]
    if how == "reported":
        world.fake.devices.dismiss(first)
        gone = ReceiptRecord(device=phone.id, event="dismissed", activity="match")
        await world.service.receipts.record(world.app, [gone])
    else:
        world.fake.devices.kill(first.token, "unregistered")
    done = await world.service.activities.update(world.app, an_update(2))
    assert (done.answer.devices, done.answer.queued) == ((0, 1) if how == "reported" else (1, 0))
    await world.settled()
    known = await world.service.activities.get(world.app, "match")
    assert (known["devices"], known["queued"]) == (0, 1)
    await world.hand_in()
    await world.settled()
    assert cards(phone)[-1] == ("active", 2)


async def test_a_second_card_without_a_token_is_reported_when_ios_has_ended_the_first(
    world: World,
) -> None:
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = False
    await world.pass_time(8 * 3600)
    await update(world, 2)
    assert [state for state, _ in cards(phone)] == ["ended", "active"]
    assert len(starts(world)) == 2
    known = await world.service.activities.get(world.app, "match")
    assert (known["devices"], known["queued"], known["missing"]) == (0, 1, 1)
    pushes = len(world.fake.pushes)
    await update(world, 3)
    assert len(world.fake.pushes) == pushes  # nothing to the card that is over
    await world.hand_in()
    await world.settled()
    assert cards(phone)[-1] == ("active", 3)


async def test_the_first_cards_token_does_not_come_back(world: World) -> None:
    [phone] = await run(world, 1)
    [member] = await world.members()
    first = member.token
    await world.pass_time(300)
    await update(world, 1)
    await world.pass_time(AFTER)
    [member] = await world.members()
    assert (member.replaced_token, member.replaced_ending_at) == (first, None)
    records = [a_token(world, phone, first)]
    await world.service.tokens.register_activity_tokens(world.app, records)
    [again] = await world.members()
    assert again.token == member.token != first


def a_token(world: World, phone: Any, token: str) -> Any:
    return TokenRecord(
        device=phone.id, kind="activity", token=token, registered_at=world.now(), scope="match"
    )


@pytest.mark.parametrize("order", ["rotated first", "rotated last", "together"])
async def test_a_rotated_token_of_the_first_card_is_not_taken_for_the_seconds(
    world: World, order: str
) -> None:
    world.tells_cards = True
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = False
    await world.pass_time(AFTER - 300 + 5)
    world.fake.devices.rotate(phone.activities[0].token)
    await world.pass_time(1)
    second, rotated = world.handed_in
    world.handed_in = []
    calls = [[rotated], [second]] if order == "rotated first" else [[second], [rotated]]
    if order == "together":
        calls = [[rotated, second]]
    for index, told in enumerate(calls):
        await world.service.tokens.register_activity_tokens(world.app, told)
        await update(world, 2 + index)
        if order == "rotated first" and not index:
            # The first card goes on, under its new token.
            assert cards(phone) == [("active", 2), ("active", 1)]
    await world.pass_time(70)
    await update(world, 4)
    assert [state for state, _ in cards(phone)] == ["dismissed", "active"]
    assert cards(phone)[-1] == ("active", 4)


@pytest.mark.parametrize(
    "whose", ["first's, then second's", "second's twice", "second's, then first's"]
)
async def test_without_card_ids_the_newest_token_counts(world: World, whose: str) -> None:
    """The service sees the same in each case: two new tokens, and APNs answers 200 for old ones.

    No rule can be right in all three. That the newest counts is right in two, and in the third the app
    puts it right when it registers its cards again.
    """
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = False
    await world.pass_time(AFTER - 300 + 5)
    first, second = phone.activities
    phones = world.fake.devices
    if whose == "second's twice":
        tokens = [second.token.text, phones.rotate(second.token).text]
    else:
        tokens = [phones.rotate(first.token).text, second.token.text]
        if whose == "second's, then first's":
            tokens.reverse()
    world.handed_in = []
    for token in tokens:
        await world.service.tokens.register_activity_tokens(
            world.app, [a_token(world, phone, token)]
        )
        await world.pass_time(1)
    await update(world, 2)
    right = whose != "second's, then first's"
    assert [card.content_state["n"] for card in (first, second)][right] == 2
    assert second.state == "active"
    world.fake.devices.dismiss(first)
    again = [a_token(world, phone, second.token.text)]
    await world.service.tokens.register_activity_tokens(world.app, again)
    await update(world, 3)
    assert cards(phone)[-1] == ("active", 3)


async def test_nothing_is_handed_over_after_the_end_or_just_before_it(world: World) -> None:
    [phone] = await run(world, 1, end_at=world.clock.time() + 3600)
    await world.pass_time(300)
    await update(world, 1)
    await world.pass_time(2 * AFTER)
    assert len(phone.activities) == 1
    await world.pass_time(3600)
    assert [state for state, _ in cards(phone)] == ["ended"]


async def test_an_end_stops_a_hand_over_that_has_not_left(world: World) -> None:
    [phone] = await run(world, 1)
    await world.pass_time(300)
    await update(world, 1)
    [row] = await world.rows_of_activity()
    async with world.database.write() as connection:
        writing = Writing(connection, world.app, world.now())
        await world.service.activities.hand_over_within(writing, row)
    await world.service.activities.end(world.app, an_end(2))
    await world.settled()
    assert cards(phone) == [("ended", 2)]


@pytest.mark.parametrize("moment", ["due", "started", "owed"])
async def test_it_survives_a_crash(world: World, moment: str) -> None:
    phones = await run(world, 2)
    await world.pass_time(300)
    await update(world, 1)
    world.registering = moment == "due"
    if moment != "due":
        await world.pass_time(AFTER - 300 + 5)
        assert [len(phone.activities) for phone in phones] == [2, 2]
    if moment == "owed":
        handed_in, world.handed_in = world.handed_in, []
        await world.service.tokens.register_activity_tokens(world.app, handed_in)
    await kill(world)
    if moment == "due":
        world.clock.advance_sync(AFTER - 300 + 5)
    await world.open()
    world.registering = True
    await world.pass_time(10)
    await world.settled()
    await world.pass_time(70)
    assert [cards(phone) for phone in phones] == [[("dismissed", 1), ("active", 1)]] * 2
    assert len(starts(world)) == 4  # no start twice


async def test_a_start_that_certainly_did_not_happen_leaves_the_first_card(world: World) -> None:
    phones = await run(world, 2)
    await world.pass_time(300)
    await update(world, 1)
    world.fake.devices.kill(phones[0].token_of("start"), "unregistered")
    await world.pass_time(AFTER)
    assert cards(phones[0]) == [("active", 1)]
    assert cards(phones[1]) == [("dismissed", 1), ("active", 1)]
    assert [row.handed_over_at for row in await world.members()] == [None, None]
    await update(world, 2)
    assert [cards(phone)[-1] for phone in phones] == [("active", 2)] * 2


async def test_a_device_that_was_started_often_is_not_started_again(world: World) -> None:
    [phone] = await run(world, 1)
    for number in range(8):
        start = a_start(f"other-{number}", hand_over_after=0)
        await world.service.activities.start(world.app, start)
        await world.pass_time(2)
        await world.service.activities.end(world.app, an_end(1, f"other-{number}"))
        await world.settled()
    await world.pass_time(300)
    await update(world, 1)
    await world.pass_time(AFTER)
    assert len(phone.activities) == 9


async def test_on_a_channel_the_second_card_follows_it_too(world: World) -> None:
    channel = world.fake.add_channel(1)
    [phone] = await run(world, 1, channel=channel.channel_id)
    await world.pass_time(300)
    await update(world, 1)
    await world.pass_time(AFTER)
    await update(world, 2)
    assert cards(phone) == [("active", 2), ("active", 2)]
    for n in range(3, 5):
        await world.pass_time(300)
        await update(world, n)
    assert cards(phone) == [("active", 4)] * 3


async def test_a_start_on_a_channel_says_nothing_about_a_devices_tokens(world: World) -> None:
    phone, _ = await world.add_phones(2, os_version="18.2")
    await world.service.activities.start(world.app, a_start(hand_over_after=AFTER))
    await world.until(lambda: len(phone.activities) == 1)
    await world.pass_time(300)
    await update(world, 1)
    channel = world.fake.add_channel(1)
    on_it = a_start("other", channel=channel.channel_id, hand_over_after=0)
    await world.service.activities.start(world.app, on_it)
    await world.pass_time(AFTER)
    assert cards(phone) == [("dismissed", 1), ("active", 0), ("active", 1)]


async def test_a_stream_is_handed_over_under_its_activity(world: World) -> None:
    phones = await world.add_phones(2)

    async def put(n: int) -> Any:
        request = Start(
            stream_key="backup",
            attributes_type=TYPE,
            id_attribute="activity",
            content_state={"n": n},
            presentation=Presentation(alert=LOUD),
            audience=Audience(everyone=True),
            hand_over_after=AFTER,
        )
        done = await world.service.streams.put(
            world.app, request, change=Update(id="", content_state={"n": n})
        )
        await world.pass_time(2)
        await world.settled()
        return done.answer

    first = await put(0)
    await world.pass_time(300)
    # The same state says that somebody is at work.
    assert (await put(0)).operation == "noop"
    [third] = await world.add_phones(1, first=2)
    await world.pass_time(AFTER)
    for phone in phones:
        assert cards(phone) == [("dismissed", 0), ("active", 0)]
    # Whoever came into the audience since gets a card then.
    assert cards(third) == [("active", 0)]
    again = await put(1)
    assert (again.operation, again.activity) == ("updated", first.activity)


def attributes(phone: Any) -> list[Any]:
    return [json.loads(card.attributes).get("side") for card in phone.activities]


async def test_a_second_card_has_the_newest_attributes_of_its_stream(world: World) -> None:
    [phone] = await world.add_phones(1)
    for n in range(2):
        given = {"attributes": {"side": "home" if n else "away"}, "id_attribute": "activity"}
        request = a_start(
            None, stream_key="goals", content_state={"n": n}, hand_over_after=AFTER, **given
        )
        await world.service.streams.put(world.app, request)
        await world.pass_time(300)
        await world.settled()
    await world.pass_time(AFTER)
    assert attributes(phone) == ["away", "home"]


async def test_a_card_that_its_app_began_is_handed_over_once_a_start_told_what_it_says(
    world: World,
) -> None:
    phones = await world.add_phones(2)
    told = {"activity": "match", "side": "home"}
    for phone in phones:
        world.fake.devices.start_activity(phone, TYPE, told, {"n": 0})
    await world.hand_in()
    # Nothing tells its attributes, its alert and its state: it cannot be started by push.
    [row] = await world.rows_of_activity()
    assert row.hand_over_after is None
    here = Audience(devices=tuple(phone.id for phone in phones))
    start = a_start(attributes=told, audience=here, hand_over_after=AFTER, content_state={"n": 1})
    await world.service.activities.start(world.app, start)
    await world.settled()
    assert [cards(phone) for phone in phones] == [[("active", 1)]] * 2
    await world.service.devices.withdraw(world.app, phones[1].id, TYPE)
    await world.pass_time(300)
    await update(world, 2)
    await world.pass_time(AFTER)
    assert cards(phones[0]) == [("dismissed", 2), ("active", 2)]
    assert attributes(phones[0]) == ["home", "home"]
    assert cards(phones[1]) == [("active", 2)]  # it has no start token
    await update(world, 3)
    assert [cards(phone)[-1] for phone in phones] == [("active", 3)] * 2


async def test_it_can_be_set_for_an_activity_an_app_and_the_service(world: World) -> None:
    async def stored(**changes: Any) -> Any:
        done = await world.service.activities.start(world.app, a_start(None, **changes))
        table = schema.activities
        rows = await world.database.rows(
            table.select().where(table.c.public_id == done.answer.activity)
        )
        return rows[0].hand_over_after

    assert await stored() == 7.5 * 3_600_000
    assert await stored(hand_over_after=0) is None
    # A vendor lets iOS end a card.
    assert await stored(dialect="braze") is None
    assert await stored(dialect="activitysmith", stream_key="a") == 7.5 * 3_600_000
    world.app = await world.service.apps.configure(world.app, {"hand_over_after": 7200})
    assert await stored() == await stored(dialect="braze") == 7_200_000
    assert await stored(hand_over_after=3600.0) == 3_600_000
    for bad in (10, -1, 29_000, float("nan")):
        with pytest.raises(InvalidInput, match="not an age"):
            await stored(hand_over_after=bad)
        with pytest.raises(InvalidInput, match="not an age"):
            await world.service.apps.configure(world.app, {"hand_over_after": bad})
    with pytest.raises(InvalidSetting, match="too late"):
        ServiceSettings(hand_over_after=29_000.0)


async def test_every_question_has_an_index(world: World) -> None:
    await run(world, 2)
    await world.pass_time(300)
    await update(world, 1)
    small = {"apps", "credentials", "token_changes"}
    async with every_query_indexed(world.database, small=small):
        await world.pass_time(AFTER)
    assert len(starts(world)) == 4
