"""A Django project in one file; every refund goes through the one client of the module.

Run as users run it: `gunicorn tests.apps.django_app:app`.
"""

# Django ships no types.
# mypy: disable-error-code="import-untyped, untyped-decorator"

from __future__ import annotations

import os
import urllib.request
import uuid

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST

from verity import ConflictRetryConfig, SyncVerityClient

settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="only for tests")
django.setup()

# The defaults wait for half a second and more; a test's other holder is done in milliseconds.
verity = SyncVerityClient(
    namespace="payments",
    conflict_retry=ConflictRetryConfig(max_attempts=1000, initial_delay_s=0.01, max_delay_s=0.05),
)
# Used before a server forks its workers: what it opened must not travel into them.
verity.protect(f"deployed:{uuid.uuid4()}", act=lambda: "deployed")


@require_POST
def refund(_request: HttpRequest, order: str) -> JsonResponse:
    tell_provider("arrived", order)

    def act() -> dict[str, str]:
        return {"refund": tell_provider("refunded", order)}

    return JsonResponse(verity.protect(f"refund:{order}", act=act))


def tell_provider(what: str, order: str) -> str:
    """The payment provider, seen from the app."""
    url = f"{os.environ['PROVIDER_URL']}/{what}/{order}"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=60) as answer:
        return str(answer.read().decode())


urlpatterns = [path("refunds/<str:order>", refund)]
app = get_wsgi_application()
