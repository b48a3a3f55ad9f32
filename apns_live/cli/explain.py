"""``apns-live explain``: explains a reason, an outcome or a symptom."""

from __future__ import annotations

from .options import Shared, command
from .output import ExitCode


@command(
    """
    REASON|OUTCOME|SYMPTOM: An Apple reason (BadDeviceToken), a verdict (unknown), or what you see ("two
        cards"). Without one, all are listed.
    """
)
def explain(shared: Shared, word: str | None = None) -> int:
    """Explain a reason, an outcome or a symptom: whose fault it is, and what to do."""
    from ..reasons import explained, listed

    if word is None:
        data = listed()
        rows = sorted((row["kind"], row["name"], row["meaning"]) for row in data)
        shared.screen.rows(data, ("kind", "word", "meaning"), rows)
        return ExitCode.OK
    facts = explained(word, "REASON|OUTCOME|SYMPTOM")
    shown = [f"{facts['name']} ({facts['kind']}): {facts['meaning']}."]
    labels = {"fault": "whose fault", "remedy": "what to do", "log": "log on the phone"}
    shown += [f"  {label}: {facts[name]}" for name, label in labels.items() if facts.get(name)]
    if "verdict" in facts:
        shown.append(
            f"  verdict: {facts['verdict']}, HTTP {', '.join(map(str, facts['statuses']))}"
        )
    shared.screen.answer(facts, "\n".join(shown))
    return ExitCode.OK
