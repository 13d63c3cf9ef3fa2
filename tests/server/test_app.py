"""The application on storages that fail, without a socket between."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.store_double import StoreDouble
from verity._ledger.calls import Answer, Request
from verity._store.api_keys import ApiKey
from verity._store.interface import StorageError
from verity.server.api_keys import issue
from verity.server.app import LedgerApp, create_app
from verity.server.serving import LedgerServer
from verity.server.settings import ServerSettings

KEY, RECORD = issue("test", "agent", now=0)


class FailingStore(StoreDouble):
    def __init__(self, *, on_answer: BaseException | None = None, on_find: BaseException | None = None) -> None:
        self.on_answer = on_answer
        self.on_find = on_find

    async def answer(self, request: Request) -> Answer:
        if self.on_answer is not None:
            raise self.on_answer
        return Answer(200, b"{}")

    async def find_key(self, sha256: bytes) -> ApiKey | None:
        if self.on_find is not None:
            raise self.on_find
        return RECORD


async def post(app: LedgerApp, path: str = "/v1/effects/a/lease") -> httpx.Response:
    transport = httpx.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://ledger", headers=headers) as client:
        return await client.post(path, json={"effectKey": "a", "inputJson": "payload"})


async def test_a_fault_is_a_500_and_the_log_tells_where_but_not_what(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(FailingStore(on_answer=RuntimeError(f"payload of {KEY}")))
    with caplog.at_level(logging.DEBUG):
        response = await post(app)
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "payload" not in response.text + caplog.text
    assert KEY not in response.text + caplog.text
    (record,) = [record for record in caplog.records if record.name == "verity.server"]
    assert record.__dict__["requestId"] == response.json()["requestId"]
    assert "RuntimeError" in record.message
    assert "test_app.py" in record.message


async def test_storage_that_does_not_answer_is_a_503() -> None:
    app = create_app(FailingStore(on_find=StorageError("BusyError")))
    response = await post(app)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://ledger") as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200


async def test_a_client_that_leaves_is_not_answered() -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/v1/effects/a/lease",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {KEY}".encode())],
    }
    await create_app(FailingStore())(scope, receive, send)
    assert sent == []


async def test_a_cancelled_request_stays_cancelled() -> None:
    with pytest.raises(asyncio.CancelledError):
        await post(create_app(FailingStore(on_answer=asyncio.CancelledError())))


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("handlers")
def test_a_signal_that_comes_before_the_server_listens_stops_it(number: signal.Signals) -> None:
    server = LedgerServer(create_app(FailingStore()), ServerSettings())
    server.stop_on_signals()
    signal.raise_signal(number)
    assert server.should_exit
