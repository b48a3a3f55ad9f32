"""Swift as app developers write it: every type is found, and no verdict is a guess.

Each folder of fixtures/contracts/apps holds an app's source and ``expected.jsonl``, whose verdicts
follow from the compiler's rules for synthesized ``init(from:)``; null where source alone cannot tell.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from apns_live.contracts import Contract

APPS = sorted((Path(__file__).parents[2] / "fixtures" / "contracts" / "apps").iterdir())


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_an_apps_source(app: Path) -> None:
    contract = Contract.read(app)
    for line in (app / "expected.jsonl").read_text("utf-8").splitlines():
        expected = json.loads(line)
        verdict = contract.check(expected["type"], expected["json"])
        assert verdict.ok is expected["ok"], (line, verdict)
        assert (verdict.message == "") is (expected["ok"] is True)


def test_every_type_is_found() -> None:
    declared = re.compile(
        r"^[^/\n]*\b(?:struct|class) (\w+)[^{]*\bActivityAttributes\b", re.MULTILINE
    )
    for app in APPS:
        text = "\n".join(file.read_text("utf-8") for file in app.glob("*.swift"))
        assert set(declared.findall(text)) - {"Fake"} <= set(Contract.read(app).names), app.name


@pytest.mark.parametrize(
    ("state", "phase"),
    [("; var 🍕: Int", "case a"), ("", "case a; var t: T { 1 }; var u: U { 2 }")],
    ids=["an emoji in a name", "more behind a computed property on its line"],
)
def test_what_the_grammar_does_not_read_is_not_guessed(state: str, phase: str) -> None:
    contract = Contract(
        {
            "app.swift": "struct A: ActivityAttributes { struct ContentState: Codable "
            f"{{ var phase: Phase{state} }} }}\nenum Phase: String, Codable {{ {phase} }}"
        }
    )
    verdict = contract.check("A", '{"phase": "b"}')
    assert verdict.ok is None
    assert "could not be read" in verdict.message
