"""The app's side in docs/swift calls what the native API has, with its names and its words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import tree_sitter
import tree_sitter_swift

from apns_live.activities.cards.content_states import COLORS, FIELDS, TYPES
from apns_live.gateway.native import describe

SWIFT = (
    Path(__file__).parents[3] / "docs" / "swift" / "LiveActivityRegistration.swift"
).read_text()
DOCUMENT = describe("1")


def block(kind: str, name: str, within: str = SWIFT) -> str:
    """What stands between the braces of a type."""
    begin = re.search(rf"\b{kind} {name}\b[^{{]*{{", within)
    assert begin is not None, name
    depth, place = 1, begin.end()
    while depth:
        depth += {"{": 1, "}": -1}.get(within[place], 0)
        place += 1
    return within[begin.end() : place - 1]


def fields(text: str) -> set[str]:
    """The stored properties of a struct, without computed ones and those of types inside it."""
    flat = re.sub(r"{[^{}]*}", "...", re.sub(r"{[^{}]*}", "...", text))
    return set(re.findall(r"\b(?:let|var) (\w+): \S+$", flat, re.MULTILINE))


def cases(text: str) -> set[str]:
    """The raw values of an enum."""
    words: set[str] = set()
    for line in re.findall(r"^\s*case (.+)$", text, re.MULTILINE):
        for one in line.split(", "):
            name, _, raw = one.partition(" = ")
            words.add(raw.strip('"') or name)
    return words


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def body_of(method: str, path: str) -> dict[str, Any]:
    content = DOCUMENT["paths"][path][method]["requestBody"]["content"]
    return resolve(content["application/json"]["schema"])


def items_of(method: str, path: str, name: str) -> dict[str, Any]:
    return resolve(resolve(body_of(method, path)["properties"][name])["items"])


def words_of(schema: dict[str, Any]) -> set[str]:
    found = resolve(schema)
    options = [resolve(one) for one in found.get("anyOf", [found])]
    return {word for one in options for word in one.get("enum", [])}


def test_every_call_is_one_of_the_description() -> None:
    calls = set(re.findall(r'send\(\s*"(\w+)", "([^"]+)"', SWIFT))
    assert calls == {
        ("POST", "v1/device/tokens"),
        ("POST", "v1/device/receipts"),
        ("PUT", "v1/device"),
    }
    for method, path in calls:
        assert method.lower() in DOCUMENT["paths"][f"/{path}"]


@pytest.mark.parametrize(
    ("struct", "schema"),
    [
        ("TokenReport", items_of("post", "/v1/device/tokens", "tokens")),
        ("Receipt", items_of("post", "/v1/device/receipts", "receipts")),
        ("Facts", body_of("put", "/v1/device")),
        (
            "DeviceCredential",
            resolve(
                DOCUMENT["paths"]["/v1/devices/{device}/credentials"]["post"]["responses"]["201"][
                    "content"
                ]["application/json"]["schema"]
            ),
        ),
    ],
)
def test_the_fields_are_those_of_the_description(struct: str, schema: dict[str, Any]) -> None:
    named = fields(block("struct", struct))
    assert named
    assert named <= set(schema["properties"])
    assert struct == "DeviceCredential" or set(schema.get("required", ())) <= named


def test_its_lists_are_as_short_as_the_api_wants_them() -> None:
    tokens = resolve(body_of("post", "/v1/device/tokens")["properties"]["tokens"])
    assert re.findall(r"prefix\((\d+)\)", SWIFT) == [str(tokens["maxItems"]), "1"]


def test_it_parses_as_swift() -> None:
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
    waiting = [parser.parse(SWIFT.encode()).root_node]
    wrong = []
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            wrong.append((node.start_point[0] + 1, node.text))
        waiting += node.children
    assert not wrong


def test_it_reads_what_the_streams_may_not_say() -> None:
    read = block("func", "read")
    assert "pushToStartToken {" in read
    assert "filter(Self.isUp)" in read
    assert "activity.pushToken," in block("func", "follow")
    for name in ("refresh", "register\\(deviceToken"):
        assert "reading()" in block("func", name)


def test_it_sends_session_facts() -> None:
    sessions = {"first_session", "last_session", "session_count", "country", "os_version"}
    assert sessions <= fields(block("struct", "Facts"))


def test_its_words_are_those_of_the_api() -> None:
    token = items_of("post", "/v1/device/tokens", "tokens")["properties"]
    receipt = items_of("post", "/v1/device/receipts", "receipts")["properties"]
    assert set(re.findall(r'kind: "(\w+)"', SWIFT)) == words_of(token["kind"])
    assert set(re.findall(r'return "(\w+)"', SWIFT)) == words_of(token["environment"])
    told = set(re.findall(r'report\("(\w+)"', SWIFT))
    assert told == words_of(receipt["event"]) - {"confirmed"}


def test_it_draws_every_kind_of_activitysmiths_states() -> None:
    attributes = block("struct", "ActivitySmithAttributes")
    assert cases(block("enum", "Kind", attributes)) == set(TYPES)
    assert cases(block("enum", "Tint", attributes)) == COLORS
    times = {"started_at", "ends_at", "frozen_remaining", "frozen_elapsed"}
    buttons = {"action", "secondary_action"}
    state = fields(block("struct", "ContentState", attributes))
    assert state == set(FIELDS) | times | buttons
    assert fields(attributes) >= {"activity_id", "stream_key"}
