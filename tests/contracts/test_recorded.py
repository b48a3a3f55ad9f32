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
        accepts = contract.types[vector["type"]].state._accepts
        good += vector["ok"]
        if accepts is not None and accepts(vector["json"]):
            assert vector["ok"], vector
            taken += 1
    assert taken > good * 0.4  # it would be of no use if it sent all to the exact checker


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
