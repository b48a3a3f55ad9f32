"""The Python examples of README and docs, cut out of their pages and run as they stand.

A block marked ```python runs by itself, in a fresh process, with the names that a reader would have:
``activity_token``, ``start_token``, ``tokens``, ``start_tokens``; and where a block uses a service that it
does not open, ``service`` and ``app``, with ``phone-1`` and ``phone-2`` in it. What the reader has to fill in (key
file, team, bundle id, environment) is replaced by the local fake's. A comment ``<!-- then: ... -->``
after a block is run after it, and ``<!-- not run: why -->`` before a block leaves it out.
"""

from __future__ import annotations

import ast
import asyncio
import json
import re
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^>]+ -->\n)?"
    r"^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```\n?"
    r"(?P<then>\s*<!-- then:\n.*?-->)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Example:
    """One block: where it stands, its code, and what to run after it."""

    page: str
    line: int
    code: str
    then: str
    skipped: bool

    @property
    def name(self) -> str:
        """Return page and line, for the test's name."""
        return f"{self.page}:{self.line}"

    @property
    def is_test(self) -> bool:
        """Whether the block is itself a pytest test."""
        return "def test_" in self.code


def pages() -> list[Path]:
    """Return every page that may hold examples."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples_of(page: Path) -> list[Example]:
    """Return the Python blocks of a page."""
    text = page.read_text()
    found = []
    for match in BLOCK.finditer(text):
        indent = match["indent"]
        code = "\n".join(line.removeprefix(indent) for line in match["code"].splitlines()) + "\n"
        then = (match["then"] or "").strip().removeprefix("<!-- then:\n").removesuffix("-->")
        line = text.count("\n", 0, match.start()) + 1
        name = str(page.relative_to(ROOT))
        found.append(Example(name, line, code, then, bool(match["skip"])))
    return found


def fill_in(code: str, ready: dict[str, Any]) -> str:
    """Return the code with the fake's key, team, bundle id and endpoint in the reader's place."""
    code = code.replace("AuthKey_ABC123DEFG.p8", ready["key_file"])
    settings = Path(ready["key_file"]).with_name("apns-live.toml")
    code = code.replace("fake/apns-live.toml", str(settings))
    swift = ROOT / "fixtures/contracts/MatchAttributes.swift"
    code = code.replace("ios/Shared/MatchAttributes.swift", str(swift))
    team = f"team_id={ready['team_id']!r}"
    if 'key_id="ABC123DEFG"' in code:
        code = code.replace('key_id="ABC123DEFG"', f"key_id={ready['key_id']!r}")
    else:  # the name of the key file says it, and that of the fake's may be another
        team += f", key_id={ready['key_id']!r}"
    code = code.replace('team_id="DEF123GHIJ"', team)
    code = code.replace("com.example.scores", ready["bundle_id"])
    code = re.sub(
        r'(\bService(?:\.open)?)\("',
        r'\1(endpoints={"production": ENDPOINT, "sandbox": ENDPOINT}, database="',
        code,
    )
    return re.sub(r'environment="(sandbox|production)"', "environment=ENDPOINT", code)


def _needs_service(code: str) -> bool:
    return "service." in code and not re.search(r"\bService(\.open)?\(|as service\b", code)


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


@asynccontextmanager
async def opened_service(
    ready: dict[str, Any], namespace: dict[str, Any]
) -> AsyncIterator[tuple[Any, Any]]:
    """Open a service as the first example of docs/activities.md does, with two phones in it."""
    from apns_live.activities import Database, DeviceRecord, Sealer, Service, TokenRecord
    from apns_live.activities.store.sealing import new_key
    from apns_live.activities.store.upgrade import upgrade

    endpoint = namespace["ENDPOINT"]
    async with Database.open("example.db") as database:
        await upgrade(database)
        async with Service.open(
            database, sealing=Sealer(new_key()), endpoints={"production": endpoint}
        ) as service:
            app = await service.apps.create(
                id="scores", name="Scores", bundle_id=ready["bundle_id"]
            )
            await service.apps.add_key(
                app,
                Path(ready["key_file"]).read_text(),
                key_id=ready["key_id"],
                team_id=ready["team_id"],
                environment="any",
            )
            names = ("phone-1", "phone-2")
            await service.devices.tell(app, [DeviceRecord(id=name) for name in names])
            await service.devices.register(
                app,
                [
                    TokenRecord(
                        device=name,
                        kind="start",
                        scope="MatchAttributes",
                        token=token,
                        registered_at=1_700_000_000_000,
                    )
                    for name, token in zip(names, namespace["start_tokens"], strict=False)
                ],
            )
            yield service, app


def run(code: str, then: str, ready: dict[str, Any]) -> None:
    """Run one example, and what follows it, in this process."""
    from apns_live import ActivityToken, Endpoint, StartToken

    namespace: dict[str, Any] = {
        "__name__": "__example__",
        "ENDPOINT": Endpoint(
            "localhost",
            _port(ready["endpoint"]),
            ca_file=ready["ca_file"],
            manage_host="localhost",
            manage_port=_port(ready["manage"]),
        ),
        "activity_token": ActivityToken("a1" * 32),
        "start_token": StartToken("b2" * 32),
        "tokens": [ActivityToken(f"{number:064x}") for number in range(50)],
        "start_tokens": [StartToken(f"{number:064x}") for number in range(50, 100)],
    }
    for part in (code, then):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled = compile(fill_in(part, ready), "<example>", "exec", flags=flags)
        if compiled.co_flags & 0x80:  # a coroutine: there is an await outside of any function

            async def main(source: Any = compiled, given: bool = _needs_service(code)) -> None:
                async with AsyncExitStack() as stack:
                    if given:
                        opened = opened_service(ready, namespace)
                        pair = await stack.enter_async_context(opened)
                        namespace["service"], namespace["app"] = pair
                    await eval(source, namespace)

            asyncio.run(main())
        else:
            exec(compiled, namespace)
    outcome = namespace.get("outcome")
    if outcome is not None and not outcome.accepted:
        raise AssertionError(f"the last push was not accepted: {outcome}")


if __name__ == "__main__":
    warnings.simplefilter("error")
    given = json.load(sys.stdin)
    run(given["code"], given["then"], given["ready"])
