"""The book of who has which version: a model, and what happens while a version is being sent."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apns_live.delivery.audience import LEAVING, Audience, Publication
from apns_live.delivery.budget import FULL, Charge, Urgency
from apns_live.delivery.journal import (
    SHARD,
    ActivityRecord,
    LaneRecord,
    MembersRecord,
    ProgressRecord,
)
from apns_live.delivery.pacing import NEVER, Trouble
from apns_live.delivery.state import State
from apns_live.payload import Alert, End, Update, encode

NOW = 1_000_000.0
QUIET, TEN = Charge(5, FULL), Charge(10, FULL)


def serve(audience: Audience, limit: int = 10) -> list[str]:
    """Send the newest version to at most ``limit`` tokens, each accepted at once."""
    places = audience.pick(limit)
    for place in places:
        audience.accepted(place, audience.newest)
    return [audience.tokens[place] for place in places]


def test_tokens_that_join_while_a_version_is_sent_make_no_other_token_miss_it():
    audience = Audience()
    for number in range(100):
        audience.join(str(number))
    audience.publish()
    served = serve(audience, 50)
    audience.publish()
    for number in range(5):
        audience.join(f"late {number}", confirmed=audience.newest - 1)
    while audience.pending:
        served += serve(audience)
    assert audience.behind == 0
    assert all(audience.confirmed[place] == 2 for place in audience.index.values())


def test_a_token_that_joins_before_the_last_place_of_a_sweep_makes_nobody_miss_it():
    audience = Audience()
    for token in "ab":
        audience.join(token)
    audience.publish()
    assert serve(audience, 1) == ["a"]
    audience.publish()  # this sweep begins with b
    assert serve(audience, 1) == ["b"]
    audience.join("c", confirmed=audience.newest)
    assert serve(audience) == ["a"]
    assert audience.behind == 0
    assert not audience.pending
    audience.join("d", confirmed=audience.newest)
    assert not audience.pending, "nobody lacks anything"


def test_nothing_is_sent_before_something_was_published():
    audience = Audience()
    assert (audience.pending, audience.pick(1)) == (False, [])
    audience.join("a")
    assert (audience.pending, audience.pick(1)) == (False, [])


def test_giving_up_leaves_nothing_to_send():
    audience = Audience()
    for token in "abc":
        audience.join(token)
    audience.publish()
    assert serve(audience, 1) == ["a"]
    assert audience.give_up_waiting() == [1, 2]
    assert (audience.behind, audience.pending) == (0, False)
    assert audience.pick(10) == []


def test_a_token_that_leaves_and_joins_again_in_flight_is_behind_once():
    audience = Audience()
    place = audience.join("a")
    audience.join("b")
    audience.publish()
    assert audience.pick(10) == [place, 1]
    audience.accepted(1, 1)
    assert audience.behind == 1
    audience.leave("a")
    assert audience.behind == 0
    assert audience.join("a") is None
    assert audience.behind == 1
    audience.publish()
    assert audience.behind == 2
    audience.accepted(place, 1)
    assert audience.behind == 2
    assert sorted(serve(audience)) == ["a", "b"]
    assert audience.behind == 0


def test_expiry_gives_up_only_tokens_that_lack_the_newest_version():
    audience = Audience()
    for token in "abcd":
        audience.join(token)
    audience.publish()
    delivered = serve(audience, 2)
    [flying] = audience.pick(1)
    given_up = audience.give_up_waiting()
    assert [audience.tokens[place] for place in given_up] == ["d"]
    assert audience.behind == 1, "what is in flight gets its answer"
    audience.accepted(flying, 1)
    assert audience.behind == 0
    assert delivered == ["a", "b"]
    assert not audience.pending
    assert [audience.confirmed[place] for place in given_up] == [audience.newest]


def test_a_token_that_left_is_not_sent_again_after_its_failure():
    audience = Audience()
    place = audience.join("a")
    audience.publish()
    assert audience.pending
    assert audience.pick(1) == [place]
    assert audience.leave("a")
    audience.again(place, 5.0, 0.0)
    audience.tick(5.0)
    assert (len(audience), audience.pending, audience.tokens) == (0, False, [""])


def test_a_held_token_is_due_behind_one_that_has_left():
    audience = Audience()
    for token in "ab":
        audience.join(token)
    audience.publish()
    for place in audience.pick(2):
        audience.again(place, 5.0 + place, 0.0)
    audience.leave("a")
    audience.tick(6.0)
    assert serve(audience) == ["b"]


def test_versions_above_256_are_compared_by_value():
    audience = Audience(newest=999)
    audience.join("a", confirmed=int("998"))
    audience.publish()
    audience.join(token="b", confirmed=int("1000"))
    assert audience.behind == 1
    assert audience.pick(10) == [0], "the other has it"
    audience.accepted(0, int("1000"))
    assert (audience.behind, audience.pending) == (0, False)
    assert audience.give_up_waiting() == []
    audience.leave("b")
    assert audience.behind == 0


def test_tokens_that_were_sent_the_next_version_elsewhere_are_not_sent_it_again():
    audience = Audience()
    for token in "abcdef":
        audience.join(token)
    audience.publish()
    [leaving] = audience.pick(1)
    audience.leave("a")
    assert len(serve(audience)) == 5
    audience.ahead |= {1, 2}
    audience.publish()
    assert audience.behind == 3
    assert serve(audience) == ["d", "e", "f"]
    assert audience.behind == 0
    assert (audience.confirmed[1], audience.cursor[1], audience.ahead) == (2, 2, set())
    audience.accepted(leaving, 1)
    audience.publish()
    assert serve(audience) == ["b", "c", "d", "e", "f"]


def test_no_more_tokens_are_picked_than_there_is_room_for():
    audience = Audience()
    audience.publish()
    for number in range(600):
        audience.join(str(number))
    assert len(serve(audience, 500)) == 500
    audience.publish()
    assert len(audience.pick(350)) == 350, "100 that wait, then 250 of the sweep"


def test_an_old_answer_before_its_turn_does_not_put_a_token_in_front_of_the_others():
    audience = Audience()
    for token in "abc":
        audience.join(token)
    audience.publish()
    [first] = audience.pick(1)
    audience.publish()
    audience.accepted(first, 1)
    assert [serve(audience, 1) for _ in range(3)] == [["b"], ["c"], ["a"]]


def test_a_token_in_flight_as_the_sweep_passes_is_served_after_its_answer():
    audience = Audience()
    for token in "ab":
        audience.join(token)
    audience.publish()
    [first] = audience.pick(1)
    audience.publish()
    assert serve(audience) == ["b"]
    assert not audience.pending
    audience.accepted(first, 1)
    assert serve(audience) == ["a"]
    assert audience.behind == 0


def test_what_was_not_sent_after_all_is_next_unless_it_has_left():
    audience = Audience()
    for token in "abc":
        audience.join(token)
    audience.publish()
    kept, left, dropped = audience.pick(3)
    for token in "bc":
        assert audience.leave(token)
        assert not audience.leave(token)
    audience.put_back(kept)
    audience.put_back(left)
    assert audience.dropped(dropped)
    assert (len(audience), audience.behind) == (1, 1)
    [kept] = audience.pick(3)
    assert not audience.dropped(kept)
    assert (len(audience), audience.behind) == (0, 0)


def test_a_token_that_joins_twice_is_sent_once():
    audience = Audience(newest=1)
    place = audience.join("a")
    assert audience.join("A") is None
    assert audience.behind == 1
    audience.leave("a")
    assert audience.join("a") == place
    assert audience.behind == 1
    assert audience.pick(3) == [place]
    audience.join("b")
    audience.leave("b")
    assert audience.pick(3) == []


def test_a_sweep_leaves_a_held_token_to_its_time():
    audience = Audience()
    for token in "ab":
        audience.join(token)
    audience.publish()
    held, _ = audience.pick(2)
    audience.again(held, 5.0, 0.0)
    audience.accepted(1, 1)
    audience.publish()
    assert serve(audience) == ["b"]
    audience.tick(5.0)
    assert serve(audience) == ["a"]
    assert audience.behind == 0


@pytest.mark.parametrize(
    ("not_before", "now", "due"), [(5.0, 5.0, True), (5.0, 6.0, True), (7.0, 6.0, False)]
)
def test_a_held_token_is_due_when_its_trouble_allows(not_before, now, due):
    audience = Audience()
    audience.join("a")
    audience.publish()
    [place] = audience.pick(1)
    audience.troubles[place] = Trouble(not_before=not_before)
    audience.again(place, 5.0, 0.0)
    audience.tick(4.9)
    assert not audience.pending
    audience.tick(now)
    assert audience.pending == due
    if due:
        assert serve(audience) == ["a"]
        assert audience.troubles == {}, "its next trouble is its first"


def test_the_next_time_is_that_of_the_first_held_token():
    audience = Audience()
    for token in "abcd":
        audience.join(token)
    audience.publish()
    assert audience.next_time() == NEVER
    for place, when in zip(audience.pick(3), (6.0, 5.0, 50.0), strict=True):
        audience.again(place, when, 0.0)
    assert audience.next_time() == 5.0
    for when in (3.0, 4.0):
        [last] = audience.pick(1)
        assert not audience.pending
        audience.again(last, when, 4.0)
        assert audience.pending, "it is due now"


def test_a_token_that_came_back_is_not_sent_twice_when_its_old_time_comes():
    audience = Audience()
    audience.join("a")
    audience.publish()
    [place] = audience.pick(1)
    audience.again(place, 5.0, 0.0)
    audience.leave("a")
    assert audience.join("a") == place
    assert audience.pick(1) == [place]
    audience.tick(5.0)
    assert audience.pick(1) == []


def test_a_journal_restores_who_has_which_version():
    audience = Audience()
    for number in range(SHARD + 2):
        audience.join(str(number))
    audience.publish()
    has, doubtful, gone = SHARD, SHARD + 1, 3
    audience.pick(SHARD + 2)
    audience.accepted(has, 1)
    audience.cursor[doubtful] = 1
    audience.accepted(gone, 1)
    audience.leave(str(gone))
    audience.progressed.update({has, doubtful, gone})
    entries = audience.entries("match")
    assert [(entry.kind, entry.number) for entry in entries] == [
        ("members", 0),
        ("members", 1),
        ("progress", 0),
        ("progress", 1),
    ]
    assert audience.entries("match") == []
    audience.progressed.add(has)
    assert [(entry.kind, entry.number) for entry in audience.entries("match")] == [("progress", 1)]
    kinds = {"members": MembersRecord, "progress": ProgressRecord}
    found = [msgspec.msgpack.decode(each.value, type=kinds[each.kind]) for each in entries]
    one, none = b"\1\0\0\0", b"\0\0\0\0"
    assert (found[3].confirmed, found[3].intended) == (one + none, none + one)
    assert len(found[2].confirmed) == len(found[2].intended) == 4 * SHARD
    again = Audience(newest=1)
    assert again.restore(list(zip(found[:2], found[2:], strict=True)), 77) == 1
    assert again.tokens == audience.tokens
    assert again.troubles == {doubtful: Trouble(may_have_been_sent=True, timestamp=77)}
    assert again.behind == SHARD
    assert again.join("new") == gone, "in the empty place"


def test_a_journal_has_the_same_bytes_on_a_big_endian_machine(monkeypatch):
    audience = Audience(newest=1)
    audience.join("a", confirmed=1)
    monkeypatch.setattr("sys.byteorder", "big")
    [_, entry] = audience.entries("match")
    found = msgspec.msgpack.decode(entry.value, type=ProgressRecord)
    assert found.confirmed == b"\0\0\0\1", "this machine's own order, swapped"


def test_a_shard_without_all_its_progress_is_restored_in_its_place_and_sent_again():
    tokens = MembersRecord(activity="match", number=1, tokens=("a", "b", "c"))
    one = b"\1\0\0\0"
    progress = ProgressRecord(activity="match", number=1, confirmed=one, intended=one)
    for known, behind in ((progress, 2), (None, 3)):
        audience = Audience(newest=1)
        assert audience.restore([(tokens, known)], 77) == 0
        assert audience.index == {"a": SHARD, "b": SHARD + 1, "c": SHARD + 2}
        assert audience.behind == behind
        assert audience.entries("match") == []


class Model:
    """What each token has, kept the plain way."""

    def __init__(self) -> None:
        self.audience = Audience()
        self.has: dict[str, int] = {}
        self.flying: dict[int, tuple[str, int]] = {}

    def check(self) -> None:
        audience = self.audience
        members = {
            token for token, place in audience.index.items() if audience.status[place] != LEAVING
        }
        assert members == set(self.has)
        behind = sum(version < audience.newest for version in self.has.values())
        assert audience.behind == behind


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["join", "leave"]), st.integers(0, 5)),
            st.tuples(st.just("publish"), st.just(0)),
            st.tuples(st.just("pick"), st.integers(1, 4)),
            st.tuples(
                st.sampled_from(["accept", "again", "drop", "give up", "put back"]),
                st.integers(0, 5),
            ),
        ),
        max_size=60,
    )
)
def test_against_a_plain_model_nobody_is_missed(steps):
    model = Model()
    audience = model.audience
    for step, number in steps:
        token = f"t{number}"
        match step:
            case "join":
                back = token in audience.index and token not in model.has
                if audience.join(token) is not None:
                    model.has[token] = 0
                elif back:
                    model.has[token] = audience.confirmed[audience.index[token]]
            case "leave":
                assert audience.leave(token) == (token in model.has)
                model.has.pop(token, None)
            case "publish":
                audience.publish()
            case "pick":
                picked = audience.pick(number)
                assert len(picked) <= number
                for place in picked:
                    assert place not in model.flying
                    model.flying[place] = (audience.tokens[place], audience.newest)
            case _ if model.flying:
                place = list(model.flying)[number % len(model.flying)]
                name, version = model.flying.pop(place)
                if step in ("accept", "give up"):
                    audience.accepted(place, version)
                    if name in model.has:
                        model.has[name] = version
                elif step == "again":
                    audience.again(place, 0.0, 1.0)
                elif step == "drop":
                    audience.dropped(place)
                    model.has.pop(name, None)
                else:
                    audience.put_back(place)
        model.check()
    for place, (name, version) in model.flying.items():
        audience.accepted(place, version)
        if name in model.has:
            model.has[name] = version
    model.check()
    for _ in range(100):
        for name in serve(audience, 3):
            model.has[name] = audience.newest
    assert audience.behind == 0
    model.check()


def test_a_stale_entry_holds_up_no_other_place_that_comes_due():
    audience = Audience()
    for token in "abc":
        audience.join(token)
    audience.publish()
    first, second, third = audience.pick(3)
    for place, when in ((first, 5.0), (second, 6.0), (third, 50.0)):
        audience.again(place, when=when, now=0.0)
    audience.leave("a")
    audience.tick(10.0)
    assert audience.pick(3) == [second]
    audience.tick(50.0)
    assert audience.pick(3) == [third]


def state(priority: int = 10, *, alert: bool = False, end: bool = False, **more) -> State:
    given = Alert(title="Goal", body="1:0") if alert else None
    message = End() if end else Update(content_state={"n": 1}, alert=given)
    encoded = encode(message, now=NOW, priority=priority)
    return State(encoded, Urgency.NORMAL, **more)


def published(*states: State, slow: Charge = QUIET) -> Publication:
    publication = Publication(prepare=lambda encoded: encoded)
    for version, each in enumerate(states, 1):
        publication.publish(version, each, slow)
    return publication


def sent(publication: Publication, confirmed: int, **more) -> tuple[int, bool]:
    """Return the priority for a token that has this version, and whether it rings."""
    encoded = publication.variant(confirmed=confirmed, **more).sendable
    assert encoded.timestamp == int(NOW)
    assert (b"Goal" in encoded.body) == encoded.has_alert
    return encoded.priority, encoded.has_alert


def test_a_token_gets_the_priority_and_the_alert_that_it_missed_and_no_other():
    publication = published(state(5))
    assert sent(publication, 0) == sent(publication, 0, slow=True) == (5, False)
    publication.publish(2, state(10), QUIET)
    assert [sent(publication, has) for has in (1, 2, 3)] == [(10, False), (5, False), (5, False)]
    assert sent(publication, 1, slow=True) == (5, False), "its own account is spent"
    publication.publish(3, state(10, alert=True), TEN)
    publication.publish(4, state(5), QUIET)
    for slow in (False, True):
        missed = [sent(publication, has, slow=slow) for has in (2, 3, 4)]
        assert missed == [(10, True), (5, False), (5, False)]
        assert sent(publication, 2, quiet=True, slow=slow) == (10, False)
    publication.publish(5, state(10, alert=True), TEN)
    assert sent(publication, 4) == (10, True)
    assert sent(publication, 4, quiet=True) == (10, False)
    assert sent(publication, 5) == (5, False)


def test_an_end_and_an_alert_are_pressing():
    assert not published().is_pressing
    for each, pressing in ((state(), False), (state(alert=True), True), (state(end=True), True)):
        assert published(each).is_pressing == pressing


def test_a_publication_survives_a_restart():
    lane = LaneRecord(token="ab")
    assert published().record("match", lane) == ActivityRecord(activity="match", lane=lane)
    alert, last = state(alert=True), state(5, deadline=NOW + 50, lifetime=100.0)
    before = published(alert, last)
    record = before.record("match", lane)
    assert record == ActivityRecord(
        activity="match",
        lane=lane,
        version=2,
        current=last.encoded,
        alert=alert.encoded,
        alert_version=1,
        ten_version=1,
        deadline=NOW + 50,
    )
    again = published()
    again.restore(record)
    assert again.record("match", lane) == record
    assert (again.last_moment, again.expired) == (NOW + 50, False)
    assert (sent(again, 0), sent(again, 0, slow=True)) == ((10, True), (10, True))
    assert not again.renew(NOW + 60, 0.0), "a caller may have set its deadline"
    record.deadline = None
    again.restore(record)
    assert again.last_moment == NEVER
    assert again.record("match", lane) == record


def test_a_state_without_a_deadline_is_renewed_from_its_last_moment_on():
    publication = published()
    assert not publication.renew(NOW, 0.0), "nothing was published"
    publication.publish(1, state(deadline=NOW + 50, lifetime=100.0), TEN)
    sent(publication, 0)
    assert not publication.renew(NOW + 49.9, 10.0)
    publication.expired = True
    assert publication.renew(NOW + 50, 10.0)
    assert (publication.last_moment, publication.expired) == (NOW + 150, False)
    assert publication.variant(0).sendable.expiration == int(NOW) + 160, "on the server's clock"
    assert publication.renew(NOW + 200, 10.0)
    assert publication.last_moment == NOW + 300
    publication.expired = True
    publication.publish(2, state(deadline=NOW + 50), TEN)
    assert not publication.expired
    assert not publication.renew(NOW + 50, 10.0), "it has a deadline"


def test_a_newer_timestamp_is_sent_from_then_on():
    publication = published()
    publication.restamp(7)
    assert publication.timestamp == 0
    publication.publish(1, state(), TEN)
    assert publication.timestamp == int(NOW)
    sent(publication, 0)
    publication.restamp(int(NOW) + 7)
    assert publication.timestamp == publication.variant(0).sendable.timestamp == int(NOW) + 7
