"""The two tables of reasons: the client's and the fake's, made apart, compared here."""

from __future__ import annotations

from apns_live import reasons as client
from apns_live.testing import reasons as fake

# Every difference, explained. name -> why
ONLY_THE_CLIENT_HAS = {
    "BadEnvironmentKeyInToken": "the wire's spelling is a row there and a column here",
    "BroadcastFeatureNotEnabled": "the wire's spelling is a row there and a column here",
}
ONLY_THE_FAKE_HAS: dict[str, str] = {}
DIFFERENT_STATUSES: dict[str, str] = {}


def test_the_names_differ_only_where_explained() -> None:
    ours = {row.name for row in fake.ROWS}
    theirs = set(client.TABLE)
    assert theirs - ours == set(ONLY_THE_CLIENT_HAS)
    assert ours - theirs == set(ONLY_THE_FAKE_HAS)
    assert {row.wire for row in fake.ROWS if row.wire} == set(ONLY_THE_CLIENT_HAS)


def test_the_statuses_differ_only_where_explained() -> None:
    different = {
        row.name
        for row in fake.ROWS
        if row.name in client.TABLE and client.TABLE[row.name].statuses != (row.status,)
    }
    assert different == set(DIFFERENT_STATUSES)


def test_the_client_knows_every_spelling_with_its_status() -> None:
    for row in fake.ROWS:
        for documented in (False, True):
            known = client.classify(row.status, row.spelled(documented))
            assert known is client.TABLE[row.spelled(documented)]


def test_the_fake_s_table_is_sound() -> None:
    assert len(fake.TABLE) == len(fake.ROWS)
    for row in fake.ROWS:
        assert row.source
        assert row.where
        assert fake.find(row.name) is row
        assert fake.find(row.spelled(False)) is row
    assert fake.find("NoSuchReason") is None
