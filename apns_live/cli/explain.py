"""``apns-live explain``: what a reason, an outcome or a symptom means, and what to do."""

from __future__ import annotations

from ..errors import InvalidInput
from .options import Shared, command
from .output import ExitCode


@command(
    """
    REASON|OUTCOME|SYMPTOM: An Apple reason (BadDeviceToken), a verdict (unknown), or what you see ("two
        cards"). Without one, all are listed.
    """
)
def explain(shared: Shared, word: str | None = None) -> int:
    """Say what a reason, an outcome or a symptom means, whose fault it is, and what to do."""
    from ..explain import ROWS, find, near
    from ..reasons import TABLE, normalise

    reasons = {name.casefold(): row for name, row in TABLE.items()}
    if word is None:
        rows = [(row.kind, row.name, row.meaning) for row in ROWS]
        rows += [("reason", row.name, row.meaning) for row in TABLE.values()]
        names = ("kind", "name", "meaning")
        data = [dict(zip(names, row, strict=True)) for row in rows]
        shared.screen.rows(data, ("kind", "word", "meaning"), sorted(rows))
        return ExitCode.OK
    reason = reasons.get(normalise(word).casefold())
    row = find(word)
    if reason is None and row is None:
        nearest = near(word) or ["nothing shown"]
        raise InvalidInput(
            f"nothing is known of {word!r:.80}",
            field="REASON|OUTCOME|SYMPTOM",
            remedy=f"Did you mean {' or '.join(map(repr, nearest))}? Without a word all are listed.",
        )
    facts: dict[str, object] = {}
    if reason is not None:
        statuses = list(reason.statuses)
        facts = {"name": reason.name, "kind": "reason", "meaning": reason.meaning}
        facts |= {"remedy": reason.remedy, "statuses": statuses, "verdict": reason.verdict.value}
    if row is not None:
        more = {name: value for name, value in row._asdict().items() if name != "words"}
        facts = {**more, **facts, "fault": row.fault}
        if reason is not None:
            facts["remedy"] = f"{reason.remedy} {row.remedy}"
    shown = [f"{facts['name']} ({facts['kind']}): {facts['meaning']}."]
    labels = {"fault": "whose fault", "remedy": "what to do", "log": "log on the phone"}
    shown += [f"  {label}: {facts[name]}" for name, label in labels.items() if facts.get(name)]
    if reason is not None:
        shown.append(f"  verdict: {reason.verdict.value}, HTTP {', '.join(map(str, statuses))}")
    shared.screen.answer(facts, "\n".join(shown))
    return ExitCode.OK
