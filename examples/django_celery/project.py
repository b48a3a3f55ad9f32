"""A Django project in one file: tokens come in, scores go out through Celery."""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        DEBUG=True,
        SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "for trying this out only"),
        ALLOWED_HOSTS=["127.0.0.1", "localhost", "testserver"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "scores.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()

from django.core.management import execute_from_command_line
from django.db import connection, models
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST


class Token(models.Model):
    """An activity token of a card, as the app on the phone handed it in."""

    match = models.CharField(max_length=64, db_index=True)
    token = models.CharField(max_length=512, unique=True)

    class Meta:
        app_label = "scores"


@csrf_exempt
@require_POST
def register(request: HttpRequest) -> HttpResponse:
    """Take a token in."""
    Token.objects.update_or_create(
        token=request.POST["token"], defaults={"match": request.POST["match"]}
    )
    return HttpResponse(status=204)


@csrf_exempt
@require_POST
def score(request: HttpRequest) -> HttpResponse:
    """Hand a score to Celery: the request does not wait for the pushes."""
    from tasks import push_score

    push_score.delay(request.POST["match"], int(request.POST["home"]), int(request.POST["away"]))
    return HttpResponse(status=202)


urlpatterns = [path("tokens", register), path("score", score)]


def migrate() -> None:
    """Create the one table."""
    if Token._meta.db_table not in connection.introspection.table_names():
        with connection.schema_editor() as editor:
            editor.create_model(Token)


if __name__ == "__main__":
    sys.modules["project"] = sys.modules["__main__"]
    if sys.argv[1:] == ["migrate"]:
        migrate()
    else:
        execute_from_command_line(sys.argv)
