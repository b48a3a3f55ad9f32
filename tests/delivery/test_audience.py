"""The book of who has which version: a model, and what happens while a version is being sent."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from apns_live.delivery.audience import LEAVING, Audience
from apns_live.delivery.journal import SHARD, MembersRecord, ProgressRecord
from apns_live.delivery.pacing import Trouble


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


def test_expiry_compares_versions_above_256_too():
    audience = Audience(newest=1000)
    audience.join("a", confirmed=int("1000"))
    assert audience.give_up_waiting() == []


def test_a_journal_restores_who_has_which_version():
    audience = Audience()
    for number in range(SHARD + 2):
        audience.join(str(number))
    audience.publish()
    has, doubtful, gone = SHARD, SHARD + 1, 1
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
    kinds = {"members": MembersRecord, "progress": ProgressRecord}
    found = [msgspec.msgpack.decode(each.value, type=kinds[each.kind]) for each in entries]
    again = Audience(newest=1)
    assert again.restore(list(zip(found[:2], found[2:], strict=True)), 77) == 1
    assert again.tokens == audience.tokens
    assert again.troubles == {doubtful: Trouble(may_have_been_sent=True, timestamp=77)}
    assert again.behind == SHARD
    assert again.join("new") == gone, "in the empty place"


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
                for place in audience.pick(number):
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
