"""``apns-live contract check`` as it is called from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SWIFT = """
struct MatchAttributes: ActivityAttributes {
    struct ContentState: Codable, Hashable { var home: Int; var away: Int?; var start: Date }
    var title: String
}
"""


def run(place: Path, *words: str, stdin: str = "") -> tuple[int, str, str]:
    command = [sys.executable, "-m", "apns_live.cli", "contract", *words]
    done = subprocess.run(
        command, cwd=place, input=stdin, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_check_answers_each_line_in_order(tmp_path: Path) -> None:
    (tmp_path / "Match.swift").write_text(SWIFT)
    states = [
        {"type": "MatchAttributes", "json": '{"home": 1, "start": 0}'},
        {"type": "MatchAttributes", "json": '{"home": "1", "start": 0}'},
        {"type": "OtherAttributes", "json": "{}"},
        {"type": "MatchAttributes", "json": {"home": 1, "start": "now"}},
    ]
    lines = "".join(json.dumps(state) + "\n" for state in states)
    code, out, _ = run(tmp_path, "check", "Match.swift", "--states", "-", "--json", stdin=lines)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [(a["ok"], a["kind"], a["path"]) for a in answers] == [
        (True, None, []),
        (False, "typeMismatch", ["home"]),
        (None, None, []),
        (False, "typeMismatch", ["start"]),
    ]
    assert list(answers[0]) == ["type", "ok", "kind", "path", "message"]
    assert "apple_date()" in answers[3]["message"]
    code, out, _ = run(tmp_path, "check", "Match.swift", "--states", "-", stdin=lines)
    assert code == 1
    assert "line 2, MatchAttributes: refused (typeMismatch). home: Swift needs Int" in out
    assert "1 decode, 2 are refused, 1 cannot be told" in out


def test_a_line_that_is_no_state_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "Match.swift").write_text(SWIFT)
    code, out, err = run(tmp_path, "check", "Match.swift", "--states", "-", stdin='{"type": 1}\n')
    assert (code, out) == (2, "")
    assert "line 1 is not a state" in err


def test_types_are_listed(tmp_path: Path) -> None:
    (tmp_path / "Match.swift").write_text(SWIFT)
    code, out, _ = run(tmp_path, "check", ".")
    assert (code, out) == (0, "MatchAttributes (Match.swift:2)\n")


def test_examples_can_be_checked_and_models_are_python(tmp_path: Path) -> None:
    (tmp_path / "Match.swift").write_text(SWIFT)
    code, made, _ = run(tmp_path, "example", "Match.swift", "--count", "20", "--json")
    assert code == 0
    code, out, _ = run(tmp_path, "check", "Match.swift", "--states", "-", stdin=made)
    assert (code, out) == (0, "20 decode, 0 are refused, 0 cannot be told\n")
    code, models, _ = run(tmp_path, "python", "Match.swift")
    assert code == 0
    (tmp_path / "models.py").write_text(models)
    use = "from models import MatchAttributesState as S; print(S(home=1, start=2.5).encode().decode())"
    done = subprocess.run(
        [sys.executable, "-c", use], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == '{"home":1,"start":2.5}\n'


def test_diff_tells_both_directions(tmp_path: Path) -> None:
    (tmp_path / "Old.swift").write_text(SWIFT)
    (tmp_path / "New.swift").write_text(SWIFT.replace("away: Int?", "away: Int"))
    code, out, _ = run(tmp_path, "diff", "Old.swift", "New.swift")
    assert code == 1
    assert "MatchAttributes, states old to new: away is missing" in out
    assert "new to old" not in out
    assert run(tmp_path, "diff", "Old.swift", "Old.swift")[0] == 0
