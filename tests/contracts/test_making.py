"""Examples, Python models and the comparison of two versions."""

from __future__ import annotations

import json
import os
import random
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest

from apns_live.contracts import Contract
from apns_live.contracts.generate import example, losses, python_models
from apns_live.errors import InvalidInput

FIXTURES = Path(__file__).parents[2] / "fixtures" / "contracts"
ROUNDS = int(os.environ.get("APNS_LIVE_FUZZ", "5000")) // 10
ODD = [None, True, 0, -1, 1.5, 1e-40, 10**30, "x", "", [], {}, [1], [None], {"a": 1}, "0E1A"]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return Contract.read(FIXTURES / "types.swift", FIXTURES / "unusual")


def changed(value: Any, chance: random.Random) -> Any:
    """Return the value with one place replaced, taken away or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        fate = chance.random()
        if fate < 0.2:
            return rest
        return rest | {key + "X" if fate < 0.3 else key: changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], changed(value[at], chance), *value[at + 1 :]]
    return chance.choice(ODD)


def test_examples_decode(contract: Contract) -> None:
    chance = random.Random(5)
    for name in contract.names:
        for _ in range(4):
            text = json.dumps(example(contract.types[name].state.shape, chance))
            assert contract.check(name, text).ok is True, (name, text)


def test_what_the_models_encode_decodes(contract: Contract) -> None:
    shapes = {}
    for name in contract.names:
        try:
            python_models({name: contract.types[name].state.shape})
        except InvalidInput:
            continue  # dictionaries that Swift keeps as arrays, and ranges
        shapes[f"{name}State"] = contract.types[name].state.shape
    assert len(shapes) > 300
    module = types.ModuleType("models_under_test")
    sys.modules[module.__name__] = module
    try:
        exec(python_models(shapes), module.__dict__)
        chance = random.Random(6)
        made = refused = 0
        for name, shape in shapes.items():
            decoder = msgspec.json.Decoder(getattr(module, name))
            for count in range(12):
                value = example(shape, chance)
                for _ in range(count % 3):
                    value = changed(value, chance)
                try:
                    model = decoder.decode(json.dumps(value))
                except (msgspec.ValidationError, ValueError):
                    refused += 1
                    continue
                made += 1
                text = msgspec.json.encode(model)
                verdict = contract.check(name.removesuffix("State"), text)
                assert verdict.ok is True, (name, text, verdict)
        assert made > 1_000
        assert refused > 1_000
    finally:
        del sys.modules[module.__name__]


def test_random_documents_crash_nothing(contract: Contract) -> None:
    chance = random.Random(7)
    verdicts = set()
    for _ in range(ROUNDS):
        name = chance.choice(contract.names)
        text = json.dumps(changed(example(contract.types[name].state.shape, chance), chance))
        if chance.random() < 0.5:
            at = chance.randrange(len(text) + 1)
            odd = chance.choice(
                ['"', "\\", "{", "]", ",", "0", "e", "-", "\0", "\\ud800", "é", "1e999"]
            )
            text = text[:at] + odd + text[at + chance.randrange(3) :]
        document = text.encode() if chance.random() < 0.2 else text
        verdicts.add(contract.check(name, document).ok)
        contract.check_attributes(name, document)
    assert verdicts == {True, False}


def test_random_payloads_crash_nothing(contract: Contract) -> None:
    chance = random.Random(11)
    verdicts = set()
    for _ in range(ROUNDS // 4):
        name = chance.choice(contract.names)
        state = example(contract.types[name].state.shape, chance)
        aps = {"event": "start", "attributes-type": name, "attributes": {}, "content-state": state}
        text = json.dumps(changed({"aps": aps}, chance))
        if chance.random() < 0.5:
            at = chance.randrange(len(text) + 1)
            text = text[:at] + chance.choice('"\\{]\0é') + text[at + chance.randrange(3) :]
        verdicts.add(contract.check_payload(text if chance.random() < 0.5 else text.encode()).ok)
    assert False in verdicts


OLD = """
struct A: ActivityAttributes {
    enum Phase: String, Codable { case a, b, old }
    struct ContentState: Codable {
        var home: Int8; var away: Int?; var phase: Phase; var note: String; var list: [Int]
    }
}
"""
NEW = """
struct A: ActivityAttributes {
    enum Phase: String, Codable { case a, b }
    struct ContentState: Codable {
        var home: Int; var away: Int; var phase: Phase; var extra: Bool; var list: [String]
    }
}
"""


def test_the_comparison_names_what_goes_blank() -> None:
    old, new = (Contract({"a.swift": text}).types["A"].state for text in (OLD, NEW))
    assert losses(old, old) == []
    assert {line.split(" ")[0] for line in losses(old, new)} == {"away", "away:", "phase:", "extra"}
    assert {line.split(":")[0].split(" ")[0] for line in losses(new, old)} == {"home", "note"}
    kept = Contract({"a.swift": NEW.replace("var extra: Bool; ", "")}).types["A"].state
    assert any(line.startswith("list[]: Swift needs String") for line in losses(old, kept))
