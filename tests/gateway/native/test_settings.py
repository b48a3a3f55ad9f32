"""What of the gateway can be set, from where, and that nothing of it was forgotten."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from apns_live.activities import ServiceSettings
from apns_live.cli.gateway import Tuned
from apns_live.errors import InvalidSetting
from apns_live.gateway import GatewaySettings, Limit
from apns_live.settings.table import GATEWAY, NAMES, SERVICE
from tests.warm import run_command

from .test_program import ended, program

OFFERED = {"gateway": GatewaySettings, "service": ServiceSettings}
NOT_FOR_A_COMMAND = {"service.client", "gateway.audit_days"}
"""Arguments of a class; and what one option sets for both."""


def test_every_field_is_offered() -> None:
    known = {
        f"{part}.{field.name}" for part, kind in OFFERED.items() for field in fields(kind)
    } - NOT_FOR_A_COMMAND
    assert known <= NAMES.keys()
    options = [one.option for one in (*GATEWAY, *SERVICE)]
    assert len(options) == len(set(options))


def loaded(
    monkeypatch: pytest.MonkeyPatch, folder: Path, text: str = "", **variables: str
) -> Tuned:
    (folder / "apns-live.toml").write_text(text)
    monkeypatch.chdir(folder)
    return Tuned({}, variables)


def test_option_over_variable_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[gateway]\nbody_bytes = 2048\nevents = 3\nbulk = 7\n"
    (tmp_path / "apns-live.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    variables = {"APNS_LIVE_GATEWAY_BODY_BYTES": "4096", "APNS_LIVE_GATEWAY_EVENTS": "4"}
    tuned = Tuned({"gateway.body_bytes": 8192}, variables)
    made = tuned.gateway()
    assert (made.body_bytes, made.events, made.bulk) == (8192, 4, 7)
    assert made.depth == GatewaySettings().depth
    assert tuned.found.sources["gateway.body_bytes"] == "--body-bytes"


def test_lists_limits_switches_and_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = loaded(
        monkeypatch,
        tmp_path,
        '[service]\ndevice_limit_ends = "least relevant"\ndevice_limit = 2\naudit_days = 9\n',
        APNS_LIVE_GATEWAY_WEBHOOK_HOSTS="one.internal, two.internal",
        APNS_LIVE_GATEWAY_LIMITS="braze=10/2,native=0",
        APNS_LIVE_GATEWAY_METRICS="off",
    )
    made, service = tuned.gateway(), tuned.service()
    assert made.webhook_hosts == {"one.internal", "two.internal"}
    assert made.limit_of("braze") == Limit(per_minute=10, concurrent=2)
    assert made.limit_of("native") == Limit()
    assert made.limit_of("activitysmith") == GatewaySettings().limit_of("activitysmith")
    assert made.metrics is False
    assert (service.device_limit_ends, service.device_limit) == ("least relevant", 2)
    assert made.audit_days == service.audit_days == 9


@pytest.mark.parametrize(
    ("variables", "text", "field", "problem"),
    [
        ({"APNS_LIVE_GATEWAY_BODY_BYTES": "x"}, "", "APNS_LIVE_GATEWAY_BODY_BYTES", "not a number"),
        (
            {"APNS_LIVE_GATEWAY_BODY_BYTES": "1"},
            "",
            "APNS_LIVE_GATEWAY_BODY_BYTES",
            "not a valid value",
        ),
        (
            {"APNS_LIVE_GATEWAY_LIMITS": "braze"},
            "",
            "APNS_LIVE_GATEWAY_LIMITS",
            "not a valid limit",
        ),
        ({"APNS_LIVE_GATEWAY_PAGES": "perhaps"}, "", "APNS_LIVE_GATEWAY_PAGES", "neither"),
        (
            {"APNS_LIVE_GATEWAY_PUBLIC_URL": "x"},
            "",
            "APNS_LIVE_GATEWAY_PUBLIC_URL",
            "not a valid address",
        ),
        ({"APNS_LIVE_GATEWAY_METRICS_TOKEN": "short"}, "", "METRICS_TOKEN", "guessed"),
        ({"APNS_LIVE_SERVICE_BUDGET": "huge"}, "", "APNS_LIVE_SERVICE_BUDGET", "not one of"),
        ({"APNS_LIVE_GATEWAY_BULK": "501"}, "", "APNS_LIVE_GATEWAY_BULK", "too large"),
        ({}, "[gateway]\nbody_byte = 1\n", "gateway.body_byte", "is not a setting"),
        ({}, "[gateway]\nwebhook_hosts = 'x'\n", "gateway.webhook_hosts", "not a list"),
        ({}, "gateway = 3\n", "gateway", "not a table"),
        ({}, "[gateway", "apns-live.toml", "is not TOML"),
        ({"APNS_LIVE_CONFIG": "gone.toml"}, "", "gone.toml", "does not exist"),
        ({"APNS_LIVE_KEYFILE": "x"}, "", "APNS_LIVE_KEYFILE", "is not a setting"),
        ({}, "[pool]\nmax_connection = 1\n", "pool.max_connection", "is not a setting"),
    ],
)
def test_what_cannot_be_is_said_where_it_stands(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    text: str,
    field: str,
    problem: str,
) -> None:
    def made() -> None:
        tuned = loaded(monkeypatch, tmp_path, text, **variables)
        tuned.gateway()
        tuned.service()

    with pytest.raises(InvalidSetting) as caught:
        made()
    assert field in caught.value.field
    assert problem in caught.value.problem
    assert "shorty" not in str(caught.value)


def test_the_program_takes_them(tmp_path: Path) -> None:
    """One word each: an option, a variable, the file, seen from outside."""
    config = tmp_path / "apns-live.toml"
    config.write_text("[gateway]\npages = false\n")
    words = ("--dir", str(tmp_path / "data"), "--body-bytes", "2048", "--device-limit", "3")
    environment = {
        "APNS_LIVE_CONFIG": str(config),
        "APNS_LIVE_GATEWAY_METRICS_TOKEN": "a-token-of-some-length",
    }
    with program("--with-fake", *words, **environment) as (ready, process):
        headers = {"authorization": f"Bearer {ready['keys']['native']}"}
        with httpx.Client(base_url=ready["url"], headers=headers) as http:
            large = http.post("/v1/audience", json={"audience": {"users": ["u" * 3_000]}})
            assert large.status_code == 413
            for path in ("/openapi.json", "/reference", "/reference.js"):
                assert http.get(path).status_code == 404
            assert http.get("/metrics").status_code == 401
            token = {"authorization": "Bearer a-token-of-some-length"}
            assert http.get("/metrics", headers=token).status_code == 200
        assert "a-token" not in ended(process)


def test_a_public_address_is_in_the_buttons(tmp_path: Path) -> None:
    """What a card's webhook button calls is this gateway, as phones reach it."""
    words = ("--dir", str(tmp_path), "--public-url", "https://live.example/")
    with program("--with-fake", *words, "--webhook-host", "hooks.internal") as (ready, process):
        headers = {"authorization": f"Bearer {ready['keys']['activitysmith']}"}
        body: dict[str, Any] = {
            "content_state": {
                "title": "Deploy",
                "type": "segmented_progress",
                "number_of_steps": 3,
                "current_step": 1,
            },
            "target": {"channels": ["demo"]},
            "action": {
                "title": "Stop",
                "type": "webhook",
                "url": "https://hooks.internal/stop",
                "method": "POST",
            },
        }
        started = httpx.post(
            f"{ready['url']}/live-activity/start", json=body, headers=headers, timeout=30
        )
        assert started.status_code == 200, started.text
        with httpx.Client(base_url=ready["inspector"]) as fake:
            for _ in range(200):
                cards = fake.get("/v1/activities").json()["items"]
                if cards:
                    break
        assert "https://live.example/" in json.dumps(cards)
        ended(process)


def test_wrong_words_end_the_program_with_one_line(tmp_path: Path) -> None:
    run = run_command(["gateway", "--public-url", "nowhere"], cwd=tmp_path)
    assert run.returncode == 2
    assert "--public-url" in run.stderr
    assert "Traceback" not in run.stderr
