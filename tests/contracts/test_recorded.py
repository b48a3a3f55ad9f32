"""The checker against verdicts that Swift's own JSONDecoder gave (recorded by Swift 6.0.3).

``APNS_LIVE_CONTRACT_VECTORS`` names another folder with .swift files and ``vectors.jsonl.gz``.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from apns_live.contracts import Contract
from apns_live.errors import ApnsLiveError
from apns_live.payload import Update
from apns_live.payload.encode import encode

FIXTURES = Path(__file__).parents[2] / "fixtures" / "contracts"
FOLDERS = [
    pytest.param(FIXTURES, id="300 types"),
    pytest.param(FIXTURES / "unusual", id="unusual source"),
    *(pytest.param(Path(f), id=f) for f in [os.environ.get("APNS_LIVE_CONTRACT_VECTORS")] if f),
]


def recorded(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "vectors.jsonl.gz") as lines:
        return [json.loads(line) for line in lines]


def contract_of(folder: Path) -> Contract:
    return Contract.read(*(path for path in folder.glob("*.swift") if path.stem != "cannot_tell"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_verdict_kind_and_path_is_swifts(folder: Path) -> None:
    contract = contract_of(folder)
    wrong, kinds = [], Counter[str]()
    for vector in recorded(folder):
        verdict = contract.check(vector["type"], vector["json"])
        kinds[vector.get("kind", "ok")] += 1
        expected = (vector["ok"], vector.get("kind"), tuple(vector.get("path", ())))
        if (verdict.ok, verdict.kind, verdict.path) != expected:
            wrong.append((vector, verdict))
    assert wrong == []
    assert set(kinds) == {"ok", "typeMismatch", "valueNotFound", "keyNotFound", "dataCorrupted"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_quick_way_accepts_swift_accepts(folder: Path) -> None:
    contract = contract_of(folder)
    good = taken = 0
    for vector in recorded(folder):
        accepts = contract.types[vector["type"]].state.accepts
        good += vector["ok"]
        if accepts is not None and accepts(vector["json"], False):
            assert vector["ok"], vector
            taken += 1
    assert taken > good * 0.4  # it would be of no use if it sent all to the exact checker


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_quick_way_accepts_of_our_own_encoder_decodes(folder: Path) -> None:
    contract = contract_of(folder)
    encoded = taken = 0
    for vector in recorded(folder):
        try:
            state = json.loads(vector["json"])
            body = encode(Update(content_state=state), now=1_800_000_000.0).body
        except (ValueError, ApnsLiveError):
            continue  # it is no state that a client sends
        encoded += 1
        found = contract.types[vector["type"]].payload
        if found.accepts is not None and found.accepts(body, True):
            assert found.judge(body).ok, vector
            taken += 1
    assert taken > encoded * 0.2


NUMBERS = """
struct NumberAttributes: ActivityAttributes {
    struct ContentState: Codable {
        var double: Double?; var float: Float?; var decimal: Decimal?; var date: Date?
        var list: [Double]?; var keyed: [String: Float]?; var text: String?
    }
}
"""
TOKENS = [
    *(
        "0",
        "0.0",
        "-0.0",
        "1",
        "-1.5",
        "10",
        "100.0",
        "1e5",
        "10e5",
        "1E5",
        "1e16",
        "1e22",
        "1e300",
    ),
    *("1e-5", "1E-5", "1e-30", "1e-37", "1e-38", "1e-40", "1e-44", "1e-46", "-1e-60", "1e-127"),
    *("1e-130", "1e-307", "2.2250738585072014e-308", "1e-310", "5e-324", "-5e-324", "1e-324"),
    *(
        "1e-400",
        "0e5",
        "0E5",
        "0e0",
        "0e-9",
        "0.0e5",
        "-0e1",
        "0.00E-400",
        "00.5",
        "1e400",
        "-1e400",
    ),
    *("0." + "0" * 39 + "1", "0." + "0" * 400 + "1", "0." + "0" * 50, "1" + "0" * 45, "0.10e-399"),
]
PLACES = [
    *(f'{{"{name}":%s}}' for name in ("double", "float", "decimal", "date")),
    *('{"list":[%s]}', '{"list":[1,%s]}', '{"list": [\n%s ,\t%s\r]}', '{"keyed":{"a": %s}}'),
    *('{"double": %s, "text":"e-"}', '{"text":"0e","float":\t%s}', '{"other":[%s],"double":1}'),
]


def test_no_number_slips_through_the_quick_way() -> None:
    """Swift refuses what underflows and takes some zeros for that; msgspec makes zero of all of them."""
    found = Contract({"Numbers.swift": NUMBERS}).types["NumberAttributes"].state
    assert found.accepts is not None
    taken, verdicts = 0, set()
    for token in TOKENS:
        for place in PLACES:
            document = place.replace("%s", token)
            for given in (document, document.encode()):
                ok = found.judge(given).ok
                verdicts.add(ok)
                if found.accepts(given, False):
                    assert ok, document
                    taken += 1
    assert verdicts == {True, False}
    assert taken > 200


@pytest.mark.parametrize(
    "number",
    [0.0, -0.0, 1e-5, 1e16, 1e22, 1e-37, 1e-40, 1e-130, 2.3e-308, 1e-310, 5e-324, -5e-324, 1e300],
)
def test_no_number_of_our_own_encoder_slips_through(number: float) -> None:
    found = Contract({"Numbers.swift": NUMBERS}).types["NumberAttributes"].payload
    assert found.accepts is not None
    for name in ("double", "float", "decimal", "date"):
        for state in ({name: number}, {"text": "re-start", name: number}, {"list": [1.5, number]}):
            body = encode(Update(content_state=state), now=1_800_000_000.0).body
            assert not found.accepts(body, True) or found.judge(body).ok, body


@pytest.mark.parametrize(
    "text",
    [
        "a re-start, one-two",
        "E-Mail",
        "#80e1f0",
        "0E",
        "550e8400-e29b-41d4-a716-44665543e-4",
        "3e-4d",
        "Kopfball über den 10e-Fünfer",
        "🙂 0e",
    ],
)
def test_words_that_look_like_numbers_take_the_quick_way(text: str) -> None:
    contract = Contract({"Numbers.swift": NUMBERS})
    found = contract.types["NumberAttributes"]
    document = json.dumps({"double": 0.5, "text": text}, ensure_ascii=False)
    assert found.state.accepts is not None
    assert found.state.accepts(document, False)
    assert found.state.accepts(document.encode(), False)
    body = encode(Update(content_state=json.loads(document)), now=1_800_000_000.0).body
    assert found.payload.accepts is not None
    assert found.payload.accepts(body, True)


def test_a_change_decodes_as_some_type_of_the_app() -> None:
    """Whatever type the changes before it were of."""
    other = NUMBERS.replace("Number", "Other").replace("double: Double?", "must: Int")
    third = NUMBERS.replace("Number", "Third").replace("double: Double?", "need: String")
    contract = Contract({"Other.swift": other, "Third.swift": third})
    good = [{"must": 1}, {"need": "x"}, {"need": "y"}, {"must": 2, "need": 5}]
    bad = [{}, {"must": "1"}, {"need": 1, "list": []}]
    for state in good + bad + good[::-1] + bad:
        body = encode(Update(content_state=state), now=1_800_000_000.0).body
        verdict = contract.check_change(body)
        assert verdict.ok is (state in good), state
        assert verdict == contract.check_payload(body)


def test_bytes() -> None:
    check = Contract.read(FIXTURES / "unusual").check
    for document, ok in [
        (b'\xef\xbb\xbf{"i": 1}', True),
        (b'{"s": "\xff"}', False),
        (b'{"unused": "\xff"}', True),
        (b'{"\xff": 1}', False),
        (b"", False),
    ]:
        assert check("NumberAttributes", document).ok is ok, document
