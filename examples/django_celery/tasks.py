"""The Celery task; run a worker with ``celery -A tasks worker``."""

from __future__ import annotations

import os

from celery import Celery
from push import push_state

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project")
app = Celery("scores", broker=os.environ.get("CELERY_BROKER", "filesystem://"))
app.conf.update(
    # A broker of files, so that the example needs none. Name a real one in CELERY_BROKER.
    broker_transport_options={
        "data_folder_in": ".broker",
        "data_folder_out": ".broker",
        "processed_folder": ".broker-done",
    },
    task_ignore_result=True,
)
os.makedirs(".broker", exist_ok=True)  # noqa: PTH103 - as short as it can be
os.makedirs(".broker-done", exist_ok=True)  # noqa: PTH103


@app.task
def push_score(match: str, home: int, away: int) -> None:
    """Push a score to everyone who follows the match, and forget the tokens that are dead."""
    import project

    followers = project.Token.objects.filter(match=match)
    pushed = push_state(
        followers.values_list("token", flat=True).iterator(), {"home": home, "away": away}
    )
    followers.filter(token__in=pushed.dead).delete()
