"""Commands that need no network: ``lint``, ``explain``, ``completion``, ``token``, ``contract``."""

import base64
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ..clock import SystemClock
from ..contracts import Contract
from ..contracts.generate import example as make
from ..contracts.generate import losses, python_models
from ..contracts.shapes import Unknown
from ..errors import InvalidInput
from ..payload import check_token
from ..payload.lint import lint as linted
from ..reasons import explained, listed
from .options import CONNECTION, Shared, command, group
from .output import ExitCode, spoken

token = group("Inspect a provider token (JWT) or a device token; mint a provider token.")
SHELLS = ("bash", "zsh", "fish")
_TYPICAL = {
    64: "the usual length of a device token",
    160: "seen for push-to-start and activity tokens",
}


@command(
    """
    FILE...: Payload files (JSON with aps); - reads stdin.
    --broadcast: Check for a broadcast: 5120 bytes, and no start.
    --strict: Treat warnings as problems.
    """
)
def lint(shared: Shared, files: list[str], broadcast: bool = False, strict: bool = False) -> int:
    """Check payloads: print problems, warnings, the bytes of each key, and what a phone will do."""
    failed = False
    reports: list[dict[str, Any]] = []
    for name in files:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        report = linted(data, target="broadcast" if broadcast else "device", now=time.time())
        failed |= not report.ok or (strict and bool(report.warnings))
        reports.append({"file": name, "ok": report.ok, **msgspec.to_builtins(report)})
        shared.line(f"{name}: {report.kind}, {report.size} of {report.limit} bytes")
        for kind, findings in (("problem", report.problems), ("warning", report.warnings)):
            for finding in findings:
                place = f"{finding.field}: " if finding.field else ""
                shared.line(f"  {kind}: {place}{finding.message}")
        for sentence in report.explanation:
            shared.line(f"  {sentence}")
        if report.bytes_by_key:
            shared.table(("key", "bytes"), list(report.bytes_by_key.items()))
    shared.answer(reports[0] if len(reports) == 1 else {"files": reports})
    return ExitCode.NOT_ACCEPTED if failed else ExitCode.OK


@command(
    """
    REASON|OUTCOME|SYMPTOM: An Apple reason (BadDeviceToken), a verdict (unknown), or what you see ("two
        cards"). Without one, all are listed.
    """
)
def explain(shared: Shared, word: str | None = None) -> None:
    """Explain a reason, an outcome or a symptom: whose fault it is, and what to do."""
    if word is None:
        data = listed()
        rows = sorted((row["kind"], row["name"], row["meaning"]) for row in data)
        shared.rows(data, ("kind", "word", "meaning"), rows)
        return
    facts = explained(word, "REASON|OUTCOME|SYMPTOM")
    shown = [f"{facts['name']} ({facts['kind']}): {facts['meaning']}."]
    labels = {"fault": "whose fault", "remedy": "what to do", "log": "log on the phone"}
    shown += [f"  {label}: {facts[name]}" for name, label in labels.items() if facts.get(name)]
    if "verdict" in facts:
        statuses = ", ".join(map(str, facts["statuses"]))
        shown.append(f"  verdict: {facts['verdict']}, HTTP {statuses}")
    shared.answer(facts, *shown)


@command("SHELL: bash, zsh or fish.")
def completion(shared: Shared, shell: str) -> None:
    """Print the completion script for bash, zsh or fish."""
    if shell not in SHELLS:
        problem = f"{shell!r:.40} is not a shell that can complete"
        raise InvalidInput(problem, "SHELL", f"Use {', '.join(SHELLS)}.")
    # Typer documents this variable; it is the same in every release of typer and click.
    environment = os.environ | {"_APNS_LIVE_COMPLETE": f"source_{shell}"}
    words = [sys.executable, "-m", "apns_live.cli"]
    script = subprocess.check_output(words, env=environment, text=True).strip()  # noqa: S603 - ourselves
    shared.answer({"shell": shell, "script": script}, script)


# --- tokens


@token.command("mint")
@command("--header: Print the whole authorization header.", CONNECTION)
def mint(shared: Shared, header: bool = False) -> None:
    """Print the provider token that every client with this key uses now. It is a secret."""
    from ..credentials import ProviderTokens

    key = shared.settings().provider_key()
    made = ProviderTokens(key, SystemClock()).current()
    bearer = made.value.decode("ascii")
    jwt = bearer.removeprefix("bearer ")
    facts = {"token": jwt, "issued_at": made.issued_at}
    facts |= {"key_id": key.key_id, "team_id": key.team_id}
    shared.answer(facts, f"authorization: {bearer}" if header else jwt)


@token.command("inspect")
@command("VALUE: JWT or token; - reads stdin, which keeps it from the process list.", CONNECTION)
def inspect(shared: Shared, value: str = "-") -> int:
    """Describe a provider token or a device token, and report problems.

    The signature is checked when a key is set.
    """
    text = (sys.stdin.read(65_536) if value == "-" else value).strip()
    text = text.removeprefix("authorization:").strip()
    if text[:7].lower() == "bearer ":
        text = text[7:].strip()
    facts = _provider_token(text, shared) if text.count(".") == 2 else _device_token(text)
    problems = [f"problem: {problem}" for problem in facts["problems"]] or ["no problem found"]
    shared.answer(facts, *spoken(facts, "problems"), *problems)
    return ExitCode.NOT_ACCEPTED if facts["problems"] else ExitCode.OK


def _device_token(text: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"kind": "device token", "digits": len(text), "problems": []}
    try:
        check_token(text)
        facts["length"] = _TYPICAL.get(len(text), "unusual, which proves nothing")
    except InvalidInput as error:
        facts["problems"].append(str(error))
    return facts


def _provider_token(text: str, shared: Shared) -> dict[str, Any]:
    problems: list[str] = []
    head, claims, signature = text.split(".")
    header = _part(head, "header", problems)
    payload = _part(claims, "claims", problems)
    raw = _bytes(signature)
    facts: dict[str, Any] = {"kind": "provider token", "header": header, "claims": payload}
    if header.get("alg") != "ES256":
        problems.append(f"alg is {header.get('alg')!r}: APNs takes ES256 only")
    for name, place in (("kid", header), ("iss", payload)):
        found = place.get(name)
        if not isinstance(found, str) or len(found) != 10:
            problems.append(f"{name} is {found!r}: it has ten characters")
    issued = payload.get("iat")
    if isinstance(issued, bool) or not isinstance(issued, int | float):
        problems.append(f"iat is {issued!r}: it is seconds since 1970, as a number")
    else:
        age = time.time() - issued
        facts["age_seconds"] = round(age)
        if age > 3600:
            problems.append(f"it is {age / 60:.0f} minutes old: APNs refuses it after 60")
        elif age < -60:
            problems.append(f"it is issued {-age:.0f} s in the future: check the clock")
    if raw is None:
        problems.append("the signature is not base64url")
    elif len(raw) != 64:
        looks = "it looks like DER" if raw[:1] == b"\x30" else "it is cut or altered"
        problems.append(f"the signature has {len(raw)} bytes, not 64: {looks} (RFC 7518, 3.4)")
    if "=" in text:
        problems.append("it is padded with =: base64url without padding is the rule (RFC 7515)")
    facts["signature"] = _verified(text, shared, problems)
    return facts | {"problems": problems}


def _verified(text: str, shared: Shared, problems: list[str]) -> str:
    if (public := shared.settings().public_key()) is None:
        return "not checked: no key is set"
    import jwt

    times = {"verify_iat": False, "verify_aud": False, "verify_exp": False}
    try:
        jwt.decode(text, key=public, algorithms=["ES256"], options=times)  # type: ignore[arg-type]
    except jwt.InvalidTokenError:
        problems.append("the signature is not that of the key that is set")
        return "not that of the key that is set"
    return "that of the key that is set"


def _part(text: str, name: str, problems: list[str]) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        if isinstance(content := json.loads(_bytes(text) or b""), dict):
            return content
    problems.append(f"the {name} is not a JSON object in base64url")
    return {}


def _bytes(text: str) -> bytes | None:
    """Decode base64url, with or without padding; None if it is not base64url."""
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None


# --- content states against the app's Swift source

contracts = group("Check content states against the app's Swift source; needs the extra contracts.")
_FILES = """
FILE.swift...: Swift files (or folders) that declare the ActivityAttributes and what they use.
--type TEXT: One attributes type; all by default.
"""


class _Line(msgspec.Struct):
    """One line of --states."""

    type: str
    json: msgspec.Raw


@contracts.command("check")
@command(
    _FILES,
    """
    --states FILE|-: JSON Lines {"type": "MatchAttributes", "json": "..."}; - reads stdin. Without it the
        types are listed.
    """,
)
def check(shared: Shared, files: list[Path], states: str | None = None) -> int:
    """Check whether the app decodes content states, as Swift's JSONDecoder would."""
    contract = Contract.read(*files)
    if states is None:
        for name in contract.names:
            found = contract.types[name]
            shape = found.state.shape
            reason = shape.reason if isinstance(shape, Unknown) else ""
            said = f"{name} ({found.place})" + (f": cannot tell: {reason}" if reason else "")
            shared.answer({"type": name, "place": found.place, "cannot_tell": reason}, said)
        if not contract.names:
            shared.line("no file declares an ActivityAttributes type")
        return ExitCode.OK
    if states == "-":
        return _check_lines(shared, contract, sys.stdin.buffer)
    with Path(states).open("rb") as lines:
        return _check_lines(shared, contract, lines)


def _check_lines(shared: Shared, contract: Contract, source: BinaryIO) -> int:
    counts = {True: 0, False: 0, None: 0}
    encode = msgspec.json.Encoder().encode
    for first, block in _blocks(source):
        answers = []
        for number, line in enumerate(block, first):
            if not line.strip():
                continue
            kind, document = _state(line, number)
            verdict = contract.check(kind, document)
            counts[verdict.ok] += 1
            if shared.json_mode:
                answers.append(encode({"type": kind, **msgspec.structs.asdict(verdict)}))
            elif verdict.ok is not True:
                refused = "" if verdict.ok is None else f"refused ({verdict.kind}). "
                answers.append(f"line {number}, {kind}: {refused}{verdict.message}".encode())
        if answers:
            sys.stdout.buffer.write(b"\n".join(answers) + b"\n")
            sys.stdout.buffer.flush()
    said = f"{counts[True]} decode, {counts[False]} are refused, {counts[None]} cannot be told"
    shared.line(said)
    return ExitCode.NOT_ACCEPTED if counts[False] else ExitCode.OK


def _blocks(source: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the lines as they arrive, with the number of the first one."""
    rest, number = b"", 1
    while chunk := source.read1(1 << 18):  # type: ignore[attr-defined]
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield number, lines
            number += len(lines)
    if rest:
        yield number, [rest]


_decode_line = msgspec.json.Decoder(_Line).decode


def _state(line: bytes, number: int) -> tuple[str, str | bytes]:
    try:
        state = _decode_line(line)
        raw = bytes(state.json)
        return state.type, msgspec.json.decode(raw, type=str) if raw[:1] == b'"' else raw
    except msgspec.MsgspecError:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            loose = json.loads(line)  # the standard library takes lone surrogates
            if isinstance(loose["type"], str) and isinstance(loose["json"], str):
                return loose["type"], loose["json"]
    remedy = 'Write one object a line: {"type": "MatchAttributes", "json": "{...}"}.'
    raise InvalidInput(f"line {number} is not a state", "--states", remedy)


@contracts.command("example")
@command(
    _FILES,
    """
    --count N [1..]: Number of states for each type.
    --seed N: Seed; the same seed gives the same states.
    """,
)
def example(
    shared: Shared, files: list[Path], type_: str | None = None, count: int = 1, seed: int = 0
) -> None:
    """Generate content states that the app decodes; with --json in the format of `check --states`."""
    contract = Contract.read(*files)
    chance = random.Random(seed)  # noqa: S311 - examples, not secrets
    for name in _chosen(contract, type_):
        for _ in range(count):
            try:
                state = make(contract.types[name].state.shape, chance)
            except LookupError as error:
                raise InvalidInput(f"{name} has no example: {error.args[0]}") from error
            text = json.dumps(state, ensure_ascii=False, indent=None if shared.json_mode else 2)
            shared.answer({"type": name, "json": text}, name, text)


@contracts.command("python")
@command(_FILES)
def python(shared: Shared, files: list[Path], type_: str | None = None) -> None:
    """Generate typed models (msgspec) of the content states; the app decodes what they encode."""
    contract = Contract.read(*files)
    names = _chosen(contract, type_)
    text = python_models({f"{name}State": contract.types[name].state.shape for name in names})
    shared.answer({"types": names, "python": text}, text.rstrip("\n"))


@contracts.command("diff")
@command("OLD: The old version's Swift file or folder.", "NEW: The new version's.")
def diff(shared: Shared, old: Path, new: Path) -> int:
    """Find states of the old version that the new one does not decode, and the reverse."""
    before, after = Contract.read(old), Contract.read(new)
    found = []
    for name in dict.fromkeys([*before.names, *after.names]):
        for direction, one, other in (("old to new", before, after), ("new to old", after, before)):
            if name not in other.types:
                reasons = [f"there is no {name}"]
            elif name not in one.types:
                continue
            else:
                reasons = losses(one.types[name].state, other.types[name].state)
            place = {"type": name, "direction": direction}
            found += [place | {"reason": reason} for reason in reasons]
    said = [f"{item['type']}, states {item['direction']}: {item['reason']}" for item in found]
    same = ["every state of one version decodes under the other"]
    shared.answer({"same": not found, "losses": found}, *(said or same))
    return ExitCode.NOT_ACCEPTED if found else ExitCode.OK


def _chosen(contract: Contract, name: str | None) -> list[str]:
    if name is None:
        return list(contract.names)
    if name not in contract.types:
        known = ", ".join(contract.names) or "none"
        raise InvalidInput(f"no file declares {name}", "--type", f"Found: {known}.")
    return [name]
