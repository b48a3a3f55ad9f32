"""``apns-live fan-out``: files of tokens in, and an account of every token out."""

from __future__ import annotations

import json
import random
import signal
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from apns_live.testing import Push, ThreadedFakeApns

from .conftest import Place, tokens

STATE = ("--state", '{"home": 71}')
START = (
    *("--event", "start", "--state", "{}", "--attributes-type", "MatchAttributes"),
    *("--attributes", "{}", "--title", "Kick-off", "--body", "Lions"),
)


@pytest.fixture
def watched() -> Iterator[ThreadedFakeApns]:
    """A fake whose pushes the test can see."""
    with ThreadedFakeApns(record_limit=200_000) as running:
        yield running


@pytest.fixture
def near(watched: ThreadedFakeApns, tmp_path: Path) -> Place:
    """A place whose commands reach the watched fake."""
    fake = watched.fake
    host, port, ca_file, manage_host, manage_port = fake.endpoint
    lines = [
        f'key_file = "{fake.key_file}"',
        f'team_id = "{fake.team_id}"',
        f'bundle_id = "{fake.bundle_id}"',
        "[endpoint]",
        f'host = "{host}"',
        f"port = {port}",
        f'ca_file = "{ca_file}"',
        f'manage_host = "{manage_host}"',
        f"manage_port = {manage_port}",
        "[pool]",
        "response_timeout = 60",  # no answer is given up because the machine is busy
    ]
    tmp_path.joinpath("apns-live.toml").write_text("\n".join(lines), "utf-8")
    return Place(tmp_path)


def give_up_after(place: Place, seconds: float) -> None:
    """Set how long a push waits for an answer, for tests of answers that never come."""
    settings = place.read("apns-live.toml")
    place.write(
        "apns-live.toml", settings.replace("response_timeout = 60", f"response_timeout = {seconds}")
    )


def pushed(watched: ThreadedFakeApns) -> Counter[str]:
    return Counter(push.token for push in watched.fake.pushes)


def mode(place: Place, name: str) -> int:
    return stat.S_IMODE((place.directory / name).stat().st_mode)


ROWS = tokens(50)
FILES = {
    "plain.txt": "# tokens\n\n" + "\n".join(ROWS) + "\n\n",
    "windows.txt": "\ufeff" + "\r\n".join(ROWS),
    "named.csv": "user,token,note\n" + "".join(f'u{n},{t},"a, b"\n' for n, t in enumerate(ROWS)),
    "semicolon.csv": "id;Device Token\n" + "".join(f"{n};{t}\n" for n, t in enumerate(ROWS)),
    "bare.csv": "".join(f"{n},{t}\n" for n, t in enumerate(ROWS)),
    "single.csv": "Token\n" + "\n".join(ROWS),
    "rows.jsonl": "".join(json.dumps({"id": n, "token": t}) + "\n" for n, t in enumerate(ROWS)),
    "texts.ndjson": "".join(json.dumps(t) + "\n\n" for t in ROWS),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_token_files(place: Place, name: str, source: str) -> None:
    place.write(name, FILES[name])
    if source == "file":
        result = place.run("fan-out", name, *STATE, "--json")
    else:
        result = place.run("fan-out", "-", *STATE, "--json", stdin=FILES[name])
    assert result.code == 0, result
    assert result.json["verdicts"] == {"accepted": 50}
    assert (result.json["read"], result.json["repeated"]) == (50, 0)


@pytest.mark.parametrize("column", ["push", "PUSH", "2"])
def test_the_column_may_be_chosen(near: Place, watched: ThreadedFakeApns, column: str) -> None:
    near.write("t.csv", "token,push\n" + "".join(f"{'ff' * 32},{t}\n" for t in ROWS))
    result = near.run("fan-out", "t.csv", *STATE, "--column", column)
    assert result.code == 0, result
    assert pushed(watched) == Counter(ROWS)


def test_a_json_key_may_be_chosen(near: Place, watched: ThreadedFakeApns) -> None:
    near.write("t.jsonl", "".join(json.dumps({"token": 1, "push": t}) + "\n" for t in ROWS))
    assert near.run("fan-out", "t.jsonl", *STATE, "--column", "push").code == 0
    assert pushed(watched) == Counter(ROWS)


def test_a_token_gets_one_push_however_often_it_is_listed(
    near: Place, watched: ThreadedFakeApns
) -> None:
    near.write("t.txt", "\n".join([*ROWS, *(t.upper() for t in ROWS), *ROWS]))
    result = near.run("fan-out", "t.txt", *STATE)
    assert result.code == 0
    assert "100 repeated tokens were left out" in result.out
    assert {token.lower() for token in pushed(watched)} == set(ROWS)
    assert watched.fake.pushes.total == 50


def test_the_table_says_what_happened(place: Place) -> None:
    place.write("t.txt", "\n".join([*tokens(40), *tokens(5, "410"), *tokens(3, "400"), "no hex"]))
    result = place.run("fan-out", "t.txt", *STATE)
    assert result.code == 1
    for word in ("accepted", "drop token", "ExpiredToken", "BadDeviceToken", "49 pushes in"):
        assert word in result.out, result.out
    assert "belong to this environment" in result.err


def test_drop_file(place: Place) -> None:
    expired, bad = tokens(5, "410"), tokens(3, "400")
    place.write("t.txt", "\n".join([*tokens(40), *expired, *bad, "no hex"]))
    result = place.run(
        *("fan-out", "t.txt", *STATE, "--drop-file", "drop.jsonl", "--retry-file", "retry.txt")
    )
    assert result.code == 1
    rows = [json.loads(line) for line in place.lines("drop.jsonl")]
    assert {row["token"] for row in rows} == {*expired, *bad, "no hex"}
    by_token = {row["token"]: row for row in rows}
    assert by_token[expired[0]]["drop_if_registered_before"] == "2027-01-15T08:00:00+00:00"
    assert by_token[bad[0]]["check_environment"] is True
    assert by_token["no hex"]["reason"] == "invalid_token"
    assert place.read("retry.txt") == ""
    assert mode(place, "drop.jsonl") == mode(place, "retry.txt") == 0o600
    assert place.run("fan-out", "t.txt", *STATE, "--drop-file", "drop.csv").code == 1
    assert place.lines("drop.csv")[0] == "token,verdict,reason"


def test_files_are_private_even_where_an_open_one_lay(place: Place) -> None:
    place.write("t.txt", "\n".join(tokens(2, "403")))
    for name in ("retry.txt", "retry.txt.partial"):
        place.write(name, "old")
        (place.directory / name).chmod(0o666)
    result = place.run("fan-out", "t.txt", *STATE, "--retry-file", "retry.txt")
    assert result.code == 3
    assert place.lines("retry.txt") == tokens(2, "403")
    assert mode(place, "retry.txt") == 0o600
    assert not (place.directory / "retry.txt.partial").exists()


def test_a_file_may_be_read_and_be_the_retry_file(near: Place, watched: ThreadedFakeApns) -> None:
    near.write("t.txt", "\n".join(tokens(3_000)))
    fault = watched.call(
        lambda fake: fake.fault("answer", status=403, reason="InvalidProviderToken", fraction=0.5)
    )
    result = near.run("fan-out", "t.txt", *STATE, "--retry-file", "t.txt", "--json")
    left = near.lines("t.txt")
    assert result.json["accepted"] + len(left) == 3_000
    assert 0 < len(left) < 3_000
    watched.call(lambda fake: fake.faults.remove(fault))
    assert near.run("fan-out", "t.txt", *STATE, "--retry-file", "t.txt").code == 0
    assert near.read("t.txt") == ""
    # An update that may have been processed goes out again, so only the refused came back.
    assert "unknown" not in result.json["verdicts"]
    assert pushed(watched) == Counter(tokens(3_000))


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl"])
def test_feeding_back_never_resends_what_was_accepted(
    near: Place, watched: ThreadedFakeApns, suffix: str
) -> None:
    # A start that is sent twice is two cards. Connections break in the middle of it all.
    wanted = tokens(4_000)
    near.write("t.txt", "\n".join(wanted))
    draw = random.Random(suffix)
    source, retry = "t.txt", f"retry.{suffix}"
    unknown: list[str] = []
    for _ in range(12):
        skip = draw.randrange(50, 1_500)
        fault = watched.call(lambda fake, skip=skip: fake.fault("disconnect", skip=skip, times=1))
        result = near.run(*("fan-out", source, *START, "--retry-file", retry, "--json"))
        watched.call(lambda fake, fault=fault: fake.faults.remove(fault))
        assert result.code in (0, 1), result
        name, count = result.json["files"].get("unknown", (f"{retry}.unknown", 0))
        if count:
            rows = near.lines(name)
            assert len(rows) == count
            unknown += rows
            assert mode(near, name) == 0o600
        source = retry
        if not near.read(retry).strip().removeprefix("token,verdict,reason"):
            break
    else:
        pytest.fail("the retry file never became empty")
    times = pushed(watched)
    assert max(times.values()) == 1
    assert set(wanted) - set(times) <= set(unknown)
    assert unknown


def test_unknown_starts_are_retried_only_on_demand(near: Place, watched: ThreadedFakeApns) -> None:
    near.write("t.txt", "\n".join([tokens(1, "cd")[0], *tokens(20)]))
    # The first is answered each time, and with that the stream limit of 1 is lifted.
    give_up_after(near, 1.0)
    watched.call(lambda fake: fake.fault("withhold", token="ab"))
    result = near.run("fan-out", "t.txt", *START, "--retry-file", "retry.txt")
    assert result.code == 1
    assert near.read("retry.txt") == ""
    assert sorted(near.lines("retry.txt.unknown")) == tokens(20)
    result = near.run(*("fan-out", "t.txt", *START, "--retry-file", "retry.txt", "--retry-unknown"))
    assert sorted(near.lines("retry.txt")) == tokens(20)
    # The old file of unknown starts would be taken for this run's.
    result = near.run("fan-out", "t.txt", *START, "--unknown-file", "u.jsonl", "--json")
    assert {json.loads(line)["verdict"] for line in near.lines("u.jsonl")} == {"unknown"}
    result = near.run("fan-out", "t.txt", *START)
    assert "20 starts may have been processed" in result.err


def test_unknown_updates_may_go_out_again(near: Place, watched: ThreadedFakeApns) -> None:
    near.write("t.txt", "\n".join([tokens(1, "cd")[0], *tokens(20)]))
    give_up_after(near, 1.0)
    watched.call(lambda fake: fake.fault("withhold", token="ab"))
    near.run("fan-out", "t.txt", *STATE, "--retry-file", "retry.txt", "--deadline", "1.5")
    assert sorted(near.lines("retry.txt")) == tokens(20)
    assert not (near.directory / "retry.txt.unknown").exists()


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, "1"), (signal.SIGTERM, "1"), (signal.SIGINT, "2")]
)
def test_an_interrupt_leaves_a_full_account(
    near: Place, watched: ThreadedFakeApns, number: signal.Signals, workers: str
) -> None:
    wanted = tokens(30_000)
    near.write("t.txt", "\n".join(wanted))
    arrived = threading.Event()

    def look(happening: object) -> None:
        if isinstance(happening, Push) and watched.fake.pushes.total >= 2_500:
            arrived.set()

    watched.call(lambda fake: fake.listen(look))
    give_up_after(near, 1.0)
    # 2,000 are answered, the next hundreds are not: starts that nobody can know of.
    watched.call(lambda fake: fake.fault("withhold", skip=2_000))
    files = ("--retry-file", "retry.txt", "--unknown-file", "u.txt")
    asked = ("fan-out", "t.txt", *START, *files, "--json", "--workers", workers)
    with near.start(*asked) as process:
        assert arrived.wait(30)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert "Traceback" not in err
    facts = json.loads(out)
    assert facts["interrupted"]
    retry, unknown = near.lines("retry.txt"), near.lines("u.txt")
    assert facts["accepted"] + len(retry) + len(unknown) == 30_000
    assert len({*retry, *unknown}) == len(retry) + len(unknown)
    # Nothing that may be sent again has reached the fake.
    reached = pushed(watched)
    assert not reached.keys() & set(retry)
    assert reached.keys() - set(unknown) | set(unknown) | set(retry) == set(wanted)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_interrupt_ends_the_wait(
    near: Place, watched: ThreadedFakeApns, workers: str
) -> None:
    near.write("t.txt", "\n".join(tokens(100)))
    near.write("apns-live.toml", near.read("apns-live.toml") + "\nclose_timeout = 0.2\n")
    arrived = threading.Event()
    watched.call(lambda fake: fake.listen(lambda what: isinstance(what, Push) and arrived.set()))
    watched.call(lambda fake: fake.fault("withhold"))
    files = ("--retry-file", "retry.txt", "--unknown-file", "u.txt")
    with near.start("fan-out", "t.txt", *START, *files, "--workers", workers) as process:
        assert arrived.wait(30)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert "again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    assert sorted([*near.lines("retry.txt"), *near.lines("u.txt")]) == tokens(100)
    assert not pushed(watched).keys() & set(near.lines("retry.txt"))


def test_at_the_deadline_the_rest_is_for_another_time(
    near: Place, watched: ThreadedFakeApns
) -> None:
    near.write("t.txt", "\n".join(tokens(25_000)))
    watched.call(lambda fake: fake.fault("withhold", skip=100))
    files = ("--retry-file", "retry.txt", "--unknown-file", "u.txt")
    result = near.run("fan-out", "t.txt", *START, *files, "--deadline", "0.7", "--json")
    assert result.code == 1
    assert result.json["deadline_passed"]
    assert result.json["not_read"] > 0
    retry, unknown = near.lines("retry.txt"), near.lines("u.txt")
    assert result.json["accepted"] == 100
    assert len({*retry, *unknown}) == len(retry) + len(unknown) == 24_900
    assert not pushed(watched).keys() & set(retry)


def test_a_slow_producer_on_stdin_does_not_hold_up_the_answers(
    near: Place, watched: ThreadedFakeApns
) -> None:
    arrived = threading.Event()
    watched.call(lambda fake: fake.listen(lambda what: isinstance(what, Push) and arrived.set()))
    with near.start("fan-out", "-", *STATE, "--json") as process:
        assert process.stdin is not None
        process.stdin.write(ROWS[0] + "\n")
        process.stdin.flush()
        # The pipe stays open and silent; the push goes out all the same.
        assert arrived.wait(30)
        out, _ = process.communicate("\n".join(ROWS[1:]), timeout=60)
    assert json.loads(out)["accepted"] == 50


def test_an_interrupt_while_stdin_is_silent(near: Place, watched: ThreadedFakeApns) -> None:
    arrived = threading.Event()
    watched.call(lambda fake: fake.listen(lambda what: isinstance(what, Push) and arrived.set()))
    with near.start("fan-out", "-", *STATE, "--retry-file", "retry.txt") as process:
        assert process.stdin is not None
        process.stdin.write("\n".join(ROWS[:3]) + "\n")
        process.stdin.flush()
        assert arrived.wait(30)
        process.send_signal(signal.SIGINT)
        # What the producer still had goes into the retry file.
        _, err = process.communicate("\n".join(ROWS[3:]), timeout=60)
    assert process.returncode == 4, err
    assert pushed(watched).keys() | set(near.lines("retry.txt")) == set(ROWS)


def test_a_bad_line_ends_the_reading_and_is_named(near: Place, watched: ThreadedFakeApns) -> None:
    rows = [json.dumps(token) for token in tokens(10)]
    near.write("t.jsonl", "\n".join([*rows, "{broken", *rows]))
    result = near.run("fan-out", "t.jsonl", *STATE, "--retry-file", "r.txt")
    assert result.code == 2
    assert "t.jsonl, line 11" in result.err
    assert pushed(watched) == Counter(tokens(10))


def test_progress_goes_to_stderr(near: Place) -> None:
    near.write("t.txt", "\n".join(tokens(2_000)))
    result = near.run("fan-out", "t.txt", *STATE, "--progress", "--json")
    assert result.json["accepted"] == 2_000
    assert "sending" in result.err
    assert near.run("fan-out", "t.txt", *STATE, "--json").err == ""


def test_nothing_is_written_when_nothing_may_be_sent(near: Place) -> None:
    near.write("t.txt", "\n".join(ROWS))
    result = near.run("fan-out", "t.txt", "--event", "start", "--retry-file", "r.txt")
    assert result.code == 2
    assert not (near.directory / "r.txt").exists()
    assert not (near.directory / "r.txt.partial").exists()
