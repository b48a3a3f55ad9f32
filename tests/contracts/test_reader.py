"""What the reader finds, and where it says that it cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from apns_live.contracts import Contract
from apns_live.contracts.syntax import read, walk
from apns_live.errors import InvalidInput

FIXTURES = Path(__file__).parents[2] / "fixtures" / "contracts"
SOURCE = (FIXTURES / "cannot_tell.swift").read_text()
CONTRACT = Contract({"cannot_tell.swift": SOURCE})
FULL = (
    '{"a":1,"b":1,"phase":"a","part":{"a":1},"color":{},"image":{},"c":1,'
    '"pair":[1,2],"any":1,"wrapped":{"x":1}}'
)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CustomInitAttributes", "its own init(from:) (cannot_tell.swift:7)"),
        ("ExtensionInitAttributes", "its own init(from:)"),
        ("WrapperAttributes", "wrapped by @Clamped"),
        ("MissingTypeAttributes", "SomewhereElse is neither in the files"),
        ("MissingModuleAttributes", "OtherModule.Date"),
        ("DebugAttributes", "depends on #if DEBUG"),
        ("UnknownProtocolAttributes", "conforms to LenientlyDecodable"),
        ("LenientAttributes", "own init(from:)"),
        ("RawInitAttributes", "its own init(rawValue:)"),
        ("UnknownCaseAttributes", "its own init(from:)"),
        ("MacroAttributes", "@Codable may change"),
        ("NotDecodableAttributes", "no file says that Part is Decodable"),
        ("ColorAttributes", "Color is neither in the files"),
        ("NoStateAttributes", "ContentState is neither"),
        ("FarStateAttributes", "FarAway is neither"),
        ("InferenceAttributes", "the type of a is not written"),
        ("TwiceAttributes", "declared twice"),
        ("TupleAttributes", "(Int, Int) is not a type that decodes"),
        ("OwnKeysAttributes", "makes its own keys"),
        ("AliasLoopAttributes", "leads to itself"),
        ("BrokenAttributes", "could not be read"),
        ("ElsewhereAttributes", "is not in the files"),
        ("FailableRawAttributes", "Code has its own rawValue"),
        ("ComputedRawAttributes", "Code has its own rawValue"),
        ("EnumRawAttributes", "Code has its own rawValue"),
        ("WhereInitAttributes", "Held has its own init(from:)"),
        ("UnicodeFieldAttributes", "decodes Wrapped in its own way"),
    ],
)
def test_what_the_source_does_not_tell_is_not_guessed(name: str, reason: str) -> None:
    verdict = CONTRACT.check(name, FULL)
    assert (verdict.ok, verdict.kind) == (None, None)
    assert verdict.message.startswith("Cannot tell: ")
    assert reason in verdict.message


def test_a_certain_refusal_beside_an_uncertain_field_is_a_refusal() -> None:
    source = """
    struct A: ActivityAttributes { struct ContentState: Codable { var x: Far; var y: Int; var z: Far? } }
    """
    check = Contract({"a.swift": source}).check
    assert check("A", '{"x": 1, "y": "no"}').ok is False
    assert check("A", '{"x": 1, "y": 1}').ok is None
    optional = source.replace("var x: Far;", "")
    assert Contract({"a.swift": optional}).check("A", '{"y": 1, "z": null}').ok is True


def test_types_that_lead_into_themselves_end() -> None:
    for name in ("OuroborosAttributes", "ExpandingAttributes"):
        assert CONTRACT.check(name, "{}").ok is not True


def test_copies_of_a_type_are_one_and_others_are_not() -> None:
    one = "struct A: ActivityAttributes { struct ContentState: Codable { var x: Int } }"
    same = Contract({"app.swift": one, "widget.swift": one.replace("{ var", "{\n    var")})
    assert same.check("A", '{"x": 1}').ok is True
    other = Contract({"app.swift": one, "widget.swift": one.replace("Int", "String")})
    assert "declared twice" in other.check("A", '{"x": 1}').message


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ("os(iOS)", True),
        ("canImport(ActivityKit) && !os(macOS)", True),
        ("os(macOS) || targetEnvironment(simulator)", False),
        ("swift(>=5.9)", True),
        ("DEBUG", None),
        ("!DEBUG", None),
        ("DEBUG && os(macOS)", False),
        ("DEBUG || os(iOS)", True),
        ("(os(iOS) || DEBUG) && (true)", True),
    ],
)
def test_conditional_compilation(condition: str, taken: bool | None) -> None:
    source = f"""
    struct A: ActivityAttributes {{ struct ContentState: Codable {{
    #if {condition}
        var x: Int
    #endif
    }} }}
    """
    assert Contract({"a.swift": source}).check("A", "{}").ok is {True: False, False: True}.get(
        taken
    )


def test_a_vendors_protocol_that_refines_apples_is_found() -> None:
    source = """
    struct OrderAttributes: OneSignalLiveActivityAttributes {
        struct ContentState: OneSignalLiveActivityContentState {
            var status: String
            var onesignal: OneSignalLiveActivityContentStateData?
        }
    }
    """
    contract = Contract({"a.swift": source})
    assert contract.check("OrderAttributes", '{"status": "x"}').ok is True
    assert contract.check("OrderAttributes", '{"status": 1}').ok is False


def test_no_source_crashes_the_reader() -> None:
    for cut in range(0, len(SOURCE), 61):
        Contract({"cut.swift": SOURCE[:cut]})
        list(walk(read(SOURCE[cut:], "cut.swift")))
    for text in (
        "",
        "}}}",
        "struct",
        "struct A: ActivityAttributes {",
        '"',
        '#"',
        "/*",
        "#if",
        "\0",
    ):
        Contract({"odd.swift": text})


def test_what_is_nested_too_deep_is_said_so() -> None:
    source = (
        "struct A: ActivityAttributes { struct ContentState: Codable { var of: [ContentState]? } }"
    )
    contract = Contract({"a.swift": source})
    assert contract.check("A", '{"of": [{"of": [{"of": null}]}]}').ok is True
    deep = '{"of":[' * 250 + "{}" + "]}" * 250
    assert contract.check("A", deep).ok is not False
    assert contract.check("A", '{"of":[' * 300 + "{}" + "]}" * 300).ok is False  # over 512 levels
    with pytest.raises(InvalidInput, match="nested too deep"):
        Contract({"a.swift": source.replace("[ContentState]", "[" * 3000 + "Int" + "]" * 3000)})
