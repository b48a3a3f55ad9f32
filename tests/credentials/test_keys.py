"""Reading keys: every form that is taken, and that nothing gives the private part away."""

from __future__ import annotations

import base64
import copy
import pickle
import traceback

import pytest

from apns_live.credentials import ProviderKey, ProviderToken
from apns_live.errors import InvalidKey

IDS = {"key_id": "TEST123KEY", "team_id": "TEAM123456"}


@pytest.fixture
def pem(keys):
    return (keys / "AuthKey_TEST123KEY.p8").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda pem: pem,
        lambda pem: pem.encode(),
        lambda pem: bytearray(pem.encode()),
        lambda pem: "\ufeff" + pem,
        lambda pem: pem.replace("\n", "\r\n").encode(),
        lambda pem: b"\xef\xbb\xbf" + pem.replace("\n", "\r\n").encode(),
        lambda pem: pem.replace("\n", "\\n"),
        lambda pem: pem.replace("\n", "\\r\\n"),
        lambda pem: pem.replace("\n", " "),
        lambda pem: f'"{pem}"',
        lambda pem: f"  {pem}\n\n",
        lambda pem: "Bag Attributes\n    friendlyName: key\n" + pem,
        lambda pem: base64.b64encode(pem.encode()),
        lambda pem: base64.b64encode(pem.encode()).decode() + "\n",
        lambda pem: base64.encodebytes(pem.replace("\n", "\r\n").encode()),
    ],
)
def test_every_form_of_a_pem_gives_the_same_key(key, pem, change):
    read = ProviderKey.from_pem(pem=change(pem), **IDS)
    assert read == key
    assert read.sign(issued_at=1_795_212_000) == key.sign(1_795_212_000)


@pytest.mark.parametrize(
    "name", ["AuthKey_TEST123KEY.p8", "AuthKey_TEST123KEY (1).p8", "AuthKey_TEST123KEY(2).p8"]
)
def test_the_key_id_comes_from_the_files_name(tmp_path, pem, name):
    path = tmp_path / name
    path.write_text(pem)
    assert ProviderKey.from_file(path=path, team_id="TEAM123456").key_id == "TEST123KEY"
    assert ProviderKey.from_file(str(path), team_id="TEAM123456").key_id == "TEST123KEY"


def test_a_file_of_any_name_with_the_key_id(tmp_path, pem, key):
    path = tmp_path / "apns.pem"
    path.write_text(pem)
    assert ProviderKey.from_file(path, **IDS) == key


def test_the_key_id_may_be_before_and_behind_the_teams_id_in_the_alphabet(pem):
    for key_id in ("AAAAAAAAAA", "ZZZZZZZZZZ"):
        assert ProviderKey.from_pem(pem, key_id=key_id, team_id="TEAM123456").key_id == key_id


def test_equality_is_by_ids_and_public_key(key, keys, pem):
    other = ProviderKey.from_file(keys / "AuthKey_TEST456KEY.p8", team_id="TEAM123456")
    assert key == ProviderKey.from_pem(pem, **IDS)
    assert hash(key) == hash(ProviderKey.from_pem(pem, **IDS))
    assert key != other
    assert key != ProviderKey.from_pem(pem, key_id="TEST123KEY", team_id="TEAM654321")
    assert key != "TEST123KEY"
    assert key.fingerprint == "c8ef745325f62bd30f70f17e08967cc90cab4d862a7521ada576a678ab76a24c"
    assert other.fingerprint != key.fingerprint


def test_nothing_shows_the_private_part(key, pem):
    assert repr(key) == str(key) == "ProviderKey(key_id='TEST123KEY', team_id='TEAM123456')"
    assert f"{key}" == repr(key)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(key, protocol)
    assert copy.copy(key) is key
    assert copy.deepcopy({"key": key})["key"] is key
    assert not hasattr(key, "__dict__")
    public = [name for name in dir(key) if not name.startswith("_")]
    assert public == ["fingerprint", "from_file", "from_pem", "key_id", "sign", "team_id"]


def test_a_key_cannot_be_changed(key):
    with pytest.raises(AttributeError, match=r"cannot (assign|delete)"):
        key.team_id = "OTHER12345"
    with pytest.raises(AttributeError, match=r"cannot (assign|delete)"):
        del key.team_id


def test_a_provider_token_shows_no_secret():
    token = ProviderToken(b"bearer abc.def.ghi", 1500, 1)
    assert "abc" not in repr(token) + str(token)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(token)


def test_a_traceback_of_a_refused_key_has_no_cause_that_could_quote_it(pem):
    damaged = pem.replace("\nM", "\nA", 1)
    try:
        ProviderKey.from_pem(damaged, **IDS)
    except ValueError as error:
        shown = "".join(traceback.format_exception(error))
    assert "During handling" not in shown
    assert "direct cause" not in shown
    assert not any(line in shown for line in pem.splitlines()[1:-1])


def test_the_key_id_of_a_file_may_be_given_and_must_be_its_own(keys):
    path = keys / "AuthKey_TEST123KEY.p8"
    key = ProviderKey.from_file(path, key_id="TEST123KEY", team_id="TEAM123456")
    assert key.key_id == "TEST123KEY"
    for other in ("AAAAAAAAAA", "ZZZZZZZZZZ"):
        with pytest.raises(InvalidKey, match="the file is named for the key TEST123KEY"):
            ProviderKey.from_file(path, key_id=other, team_id="TEAM123456")
