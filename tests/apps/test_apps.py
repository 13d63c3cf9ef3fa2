"""Real Flask and Django apps under gunicorn: 32 requests at once, and the outside world counts what was done."""

from __future__ import annotations

import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers.gunicorn import gunicorn
from tests.helpers.payment_provider import PaymentProvider
from tests.helpers.served_ledger import ServedLedger

REQUESTS = 32
# Each with as many threads in all as requests must meet; a pre-forked worker takes half of them and no more.
SERVERS = {
    "threads": ["--workers=1", "--threads=16"],
    "preforked": ["--preload", "--workers=2", "--threads=8", "--worker-connections=16", "--keep-alive=0"],
}
MEETING = 16


@pytest.fixture(scope="module", params=["embedded", "served"])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Where the ledger is, as the variables that a client reads."""
    directory = tmp_path_factory.mktemp("ledger")
    if request.param == "embedded":
        yield {"VERITY_BASE_URL": f"sqlite:///{directory}/verity.db"}
        return
    with ServedLedger(f"sqlite:///{directory}/served.db") as served:
        yield {"VERITY_BASE_URL": served.base_url, "VERITY_API_KEY": served.create_key()}


@pytest.fixture(scope="module")
def provider() -> Iterator[PaymentProvider]:
    with PaymentProvider() as provider:
        yield provider


@pytest.fixture(scope="module", params=["flask_app", "django_app"])
def app(request: pytest.FixtureRequest) -> str:
    return f"tests.apps.{request.param}:app"


@pytest.fixture(scope="module", params=SERVERS)
def port(
    request: pytest.FixtureRequest,
    app: str,
    ledger: dict[str, str],
    provider: PaymentProvider,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[int]:
    log = tmp_path_factory.mktemp("gunicorn") / "log"
    environment = {**ledger, "PROVIDER_URL": provider.url}
    with gunicorn(app, log, environment, *SERVERS[request.param]) as port:
        yield port


def post_at_once(port: int, orders: list[str]) -> list[tuple[int, Any]]:
    """(status, JSON) of a refund request for each order, all sent at the same moment."""
    ready = threading.Barrier(len(orders))

    def post(order: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
            ready.wait()
            connection.request("POST", f"/refunds/{order}")
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, json.loads(body) if answer.status == 200 else body
        finally:
            connection.close()

    with ThreadPoolExecutor(len(orders)) as pool:
        return list(pool.map(post, orders))


@pytest.fixture
def order() -> str:
    """An order that no other test knows."""
    return f"order_{uuid.uuid4()}"


def test_the_same_key_acts_once_and_all_get_its_result(port: int, provider: PaymentProvider, order: str) -> None:
    provider.hold_until_arrived(MEETING)
    answers = post_at_once(port, [order] * REQUESTS)
    assert answers == [answers[0]] * REQUESTS
    assert answers[0][0] == 200, answers[0]
    assert answers[0][1]["refund"].startswith("re_")
    assert provider.refunds[order] == 1


def test_keys_of_their_own_act_once_each(port: int, provider: PaymentProvider, order: str) -> None:
    provider.hold_until_arrived(MEETING)
    orders = [f"{order}_{number}" for number in range(REQUESTS)]
    answers = post_at_once(port, orders)
    assert [status for status, _ in answers] == [200] * REQUESTS
    assert len({body["refund"] for _, body in answers}) == REQUESTS
    assert [provider.refunds[each] for each in orders] == [1] * REQUESTS
