"""The tables of docs/errors.md, from the tables of the code. Rewrites them as a program:

python -m tests.workshop.retry_table
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from apns_live.outcome import Verdict
from apns_live.reasons import BY_STATUS, ROWS, Retry
from apns_live.retry import LOST, Circumstances, next_step

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"
BEGIN, END = "<!-- begin: generated -->\n", "<!-- end: generated -->\n"


def table() -> str:
    """Return the table of reasons and of lost pushes, in Markdown."""
    groups: dict[tuple[tuple[int, ...], Verdict, Retry], list[str]] = defaultdict(list)
    for row in ROWS:
        groups[row.statuses, row.verdict, row.retry].append(row.name)
    lines = [
        "| answer | what the client does by itself | verdict when that does not help |",
        "|---|---|---|",
    ]
    for (statuses, verdict, retry), names in sorted(
        groups.items(), key=lambda group: (group[0][0], group[1])
    ):
        numbers = ", ".join(map(str, statuses))
        reasons = ", ".join(f"`{name}`" for name in sorted(names))
        lines.append(f"| {numbers} {reasons} | {retry.value.words} | {_ends(verdict, retry)} |")
    for status, (verdict, retry) in sorted(BY_STATUS.items()):
        words = f"{status} with another reason or none"
        lines.append(f"| {words} | {retry.value.words} | {_ends(verdict, retry)} |")
    lines.extend(f"| {case} | {words} | {ends} |" for case, words, ends in LOST)
    return "\n".join(lines) + "\n"


def _ends(verdict: Verdict, retry: Retry) -> str:
    row = next(row for row in ROWS if row.retry is retry)
    words = [f"`{verdict.name}`"]
    if retry is Retry.NEW_TOKEN_ONCE:
        clock = next_step(row, Circumstances(token_is_current=True)).verdict
        words.append(f"`{clock.name}` when the token was current: check the clock")
    if retry is Retry.TWO_TRIES:
        start = next_step(row, Circumstances(replay_safe=False)).verdict
        words.append(f"of a start `{start.name}`")
    return "; ".join(words)


def page_with_table(text: str) -> str:
    """Return the page's text with the table of today."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + "\n" + table() + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text()))
