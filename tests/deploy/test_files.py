"""The files of deploy/, each checked by the program that will read it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from apns_live.cli.app import load
from apns_live.settings import TABLE
from tests.programs import program

DEPLOY = Path(__file__).parents[2] / "deploy"
OPERATE = (DEPLOY.parent / "docs" / "operate.md").read_text("utf-8")
KNOWN = {one.variable for one in TABLE}


def run(*command: str, cwd: Path = DEPLOY, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def compose() -> dict[str, Any]:
    text: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return text


@pytest.mark.external("hadolint")
def test_the_container_file() -> None:
    assert run(program("hadolint"), "Containerfile") == ""


@pytest.mark.external("docker-compose")
def test_the_compose_file(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "deploy" / "sealing-key").write_text("a key")
    example = (DEPLOY / "example.env").read_text("utf-8")
    (tmp_path / "deploy" / ".env").write_text(example.replace("=\n", "=x\n"))
    said = run(program("docker-compose"), "config", "--format", "json", cwd=tmp_path / "deploy")
    services = json.loads(said)["services"]
    assert set(services) == {
        "gateway-a",
        "gateway-b",
        "grafana",
        "postgres",
        "prometheus",
        "proxy",
        "upgrade",
    }
    for name in ("gateway-a", "gateway-b", "upgrade"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]


def test_compose_names_files_settings_and_commands_that_there_are() -> None:
    services = compose()["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), source
        for variable in service.get("environment", ()):
            assert not variable.startswith("APNS_LIVE_") or variable in KNOWN, variable
    commands = load().commands
    options = {
        flag for one in commands["gateway"].params for flag in (*one.opts, *one.secondary_opts)
    }
    lines = [
        json.loads(re.findall(r"^CMD (\[.+\])$", (DEPLOY / "Containerfile").read_text(), re.M)[0])
    ]
    unit = (DEPLOY / "apns-live.service").read_text()
    lines += [line.split()[1:] for line in re.findall(r"^ExecStart=(.+)$", unit, re.M)]
    for words in lines:
        assert words[0] == "gateway"
        assert {word for word in words if word.startswith("--")} <= options
    assert services["upgrade"]["command"] == ["store", "upgrade"]
    assert "upgrade" in commands["store"].commands


def test_compose_asks_for_what_the_example_names() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    asked = set(re.findall(r"\$\{(\w+)", text))
    assert asked == set(re.findall(r"^(\w+)=", (DEPLOY / "example.env").read_text(), re.M))


@pytest.mark.external("haproxy")
def test_the_proxy(tmp_path: Path) -> None:
    # The names of the gateways exist inside compose's network only.
    text = (DEPLOY / "haproxy.cfg").read_text("utf-8")
    (tmp_path / "haproxy.cfg").write_text(re.sub(r"gateway-[ab]", "127.0.0.1", text))
    said = run(program("haproxy"), "-c", "-f", str(tmp_path / "haproxy.cfg"))
    assert "WARNING" not in said


@pytest.mark.external("systemd-analyze")
def test_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "apns-live.service").read_text("utf-8")
    unit = tmp_path / "apns-live.service"
    unit.write_text(text.replace("/opt/apns-live/bin/apns-live", "/bin/true"))
    assert run(program("systemd-analyze"), "verify", str(unit)) == ""
    said = run(program("systemd-analyze"), "security", "--offline=true", str(unit))
    (level,) = re.findall(r"Overall exposure level for .+: ([\d.]+)", said)
    assert float(level) < 2.5


@pytest.mark.external("promtool")
def test_prometheus_configuration_and_rules(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    token = tmp_path / "token"
    token.touch()
    file = tmp_path / "deploy" / "prometheus.yml"
    file.write_text(file.read_text().replace("/run/secrets/metrics-token", str(token)))
    run(program("promtool"), "check", "config", str(file))


def test_every_alert_has_its_entry_in_the_runbook() -> None:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    described = re.findall(r"^### (\w+)$", OPERATE, re.MULTILINE)
    assert [rule["alert"] for rule in rules] == described
