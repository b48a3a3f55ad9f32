"""The checker against verdicts that Swift's own JSONDecoder gave (recorded by Swift 6.0.3).

``APNS_LIVE_CONTRACT_VECTORS`` names another folder with ``types.swift`` and ``vectors.jsonl.gz``.
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
FOLDERS = [FIXTURES, *map(Path, filter(None, [os.environ.get("APNS_LIVE_CONTRACT_VECTORS")]))]


def recorded(folder: Path) -> list[dict[str, Any]]:
    with gzip.open(folder / "vectors.jsonl.gz") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_every_verdict_kind_and_path_is_swifts(folder: Path) -> None:
    contract = Contract.read(folder / "types.swift")
    vectors = recorded(folder)
    wrong, kinds = [], Counter[str]()
    for vector in vectors:
        verdict = contract.check(vector["type"], vector["json"])
        kinds[vector.get("kind", "ok")] += 1
        expected = (vector["ok"], vector.get("kind"), tuple(vector.get("path", ())))
        if (verdict.ok, verdict.kind, verdict.path) != expected:
            wrong.append((vector, verdict))
    assert wrong == []
    assert set(kinds) == {"ok", "typeMismatch", "valueNotFound", "keyNotFound", "dataCorrupted"}


def test_what_the_quick_way_accepts_swift_accepts() -> None:
    contract = Contract.read(FIXTURES / "types.swift")
    taken = 0
    for vector in recorded(FIXTURES):
        accepts = contract.types[vector["type"]].state._accepts
        if accepts is not None and accepts(vector["json"]):
            assert vector["ok"], vector
            taken += 1
    assert taken > 5_000  # it would be of no use if it sent all to the exact checker
