"""What the server logs: every line about a request has its id, with the access log on and off, and nothing secret."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from tests.helpers.new_ledger_notice import NEW_LEDGER_NOTICE
from tests.helpers.served_ledger import ServedLedger
from tests.helpers.verity_process import serving
from tests.server.test_app import KEY, FailingStore
from tests.server.test_connections import until_closed
from verity._ledger.calls import Answer, Request
from verity.server.api_keys import mint
from verity.server.app import create_app
from verity.server.logs import MAX_LINES_PER_SECOND, JsonFormatter, PlainFormatter, Throttle
from verity.server.settings import ServerSettings


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    formatter = JsonFormatter()
    said = [record for record in caplog.records if record.name.startswith("verity")]
    return [json.loads(formatter.format(record)) for record in said if NEW_LEDGER_NOTICE not in record.getMessage()]


@pytest.mark.parametrize("access_log", [False, True])
def test_storage_that_fails(access_log: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ServedLedger(f"sqlite:///{tmp_path}/v.db", settings=ServerSettings(access_log=access_log)) as served:
        headers = {"Authorization": f"Bearer {served.create_key()}", "X-Request-Id": "mine-7"}
        with httpx.Client(base_url=served.base_url, headers=headers) as client:
            assert client.get("/namespaces").status_code == 200
            apsw.Connection(f"{tmp_path}/v.db").execute("ALTER TABLE effects RENAME TO gone")
            body = {"effectKey": "secret-key", "inputJson": "secret-payload"}
            assert client.post("/effects/secret-namespace/lease", json=body).status_code == 503
    ids = [line.get("requestId") or line.get("requestIds") for line in lines(caplog)]
    assert ids == (["mine-7", ["mine-7"], "mine-7"] if access_log else [["mine-7"]])
    text = json.dumps(lines(caplog))
    assert "secret" not in text
    assert "vt_test_" not in text


def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with ServedLedger(settings=ServerSettings(access_log=True, body_timeout_s=0.2, key_cache_s=0.0)) as served:
        key = served.create_key()
        httpx.post(f"{served.base_url}/effects/a/lease", headers={"Authorization": f"Bearer {key}"}, json={})
        httpx.get(f"{served.base_url}/nowhere")
        url = httpx.URL(served.base_url)
        with socket.create_connection((url.host, url.port or 0), timeout=30) as slow:
            head = f"POST /v1/effects/a/lease HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            slow.sendall(f"{head}X-Request-Id: slow-1\r\nContent-Length: 9\r\n\r\n".encode())
            assert until_closed(slow) == b""
    said = [(line["message"], line["operation"]) for line in lines(caplog)]
    assert said == [("POST 400", "lease_effect"), ("GET 404", "unknown"), ("POST gone", "lease_effect")]
    assert lines(caplog)[2]["requestId"] == "slow-1"
    assert all(isinstance(line["durationMs"], float) for line in lines(caplog))


async def test_a_request_that_is_given_up_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """As uvicorn does with what is not done when its time to end is over."""

    begun = asyncio.Event()

    class Stuck(FailingStore):
        async def answer(self, request: Request) -> Answer:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

    sent: list[Any] = []
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "stuck-1"}
    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": b"/v1/effects/a/lease",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"effectKey":"a"}', "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    request = asyncio.create_task(create_app(Stuck())(scope, receive, send))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (sent[0]["status"], json.loads(sent[1]["body"])["error"]["code"]) == (503, "unavailable")
    (line,) = lines(caplog)
    assert line["requestId"] == "stuck-1"
    assert line["level"] == "error"


def record(logger: str, at: float, level: int = logging.WARNING, error: Exception | None = None) -> logging.LogRecord:
    made = logging.LogRecord(logger, level, __file__, 1, "said", (), (type(error), error, None) if error else None)
    made.created = at
    return made


@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
def test_a_librarys_exception_is_one_line_and_quotes_nothing(formatter: logging.Formatter) -> None:
    line = formatter.format(record("asyncpg.pool", 0.0, error=ConnectionError("secret\nsecond line")))
    assert "asyncpg.pool" in line
    assert "ConnectionError at " in line
    assert "secret" not in line
    assert "\n" not in line


@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
def test_of_a_callback_that_failed_it_is_not_told_what_it_was_called_with(
    formatter: logging.Formatter, caplog: pytest.LogCaptureFixture
) -> None:
    """Asyncio quotes that in its first line."""

    def fail(payload: str) -> None:
        raise ValueError(payload)

    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    loop.call_soon(fail, "secret")
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    said = next(each for each in caplog.records if each.levelno == logging.ERROR)
    assert "secret" in said.getMessage().splitlines()[0]
    line = formatter.format(said)
    assert "Exception in callback" in line
    assert "ValueError at " in line
    assert "secret" not in line


@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
def test_of_what_asyncio_says_of_a_lost_exception_one_line_is_kept(
    formatter: logging.Formatter, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.new_event_loop()
    lost = loop.create_future()
    lost.set_exception(ValueError("secret"))
    del lost
    loop.close()
    (said,) = caplog.records
    assert "secret" in said.getMessage()
    line = formatter.format(said)
    assert "Future exception was never retrieved" in line
    assert "secret" not in line
    assert "\n" not in line


def test_a_library_may_say_a_few_lines_a_second() -> None:
    throttle = Throttle()

    def passed(logger: str, at: float, times: int = 1, level: int = logging.WARNING) -> list[int | None]:
        """What is said to be dropped, by the lines that pass."""
        records = [record(logger, at, level) for _ in range(times)]
        return [getattr(each, "dropped", None) for each in records if throttle.filter(each)]

    few = [None] * MAX_LINES_PER_SECOND
    assert passed("uvicorn.error", 10.0, times=100) == few
    assert passed("uvicorn.error", 10.9) == []
    assert passed("uvicorn.error", 10.9, level=logging.ERROR) == [None], "junk hides no error"
    assert passed("asyncio", 10.9) == [None], "and nothing of others"
    assert passed("verity.server", 10.9, times=100) == [None] * 100
    assert passed("verity.server.unauthenticated", 10.9, times=100) == few
    assert passed("uvicorn.error", 11.0, times=100) == [101 - MAX_LINES_PER_SECOND, *few[1:]]
    assert passed("uvicorn.error", 9.0) == [100 - MAX_LINES_PER_SECOND], "a clock that is set back silences nobody"
    assert passed("uvicorn.error", 12.0, times=5) == few


def test_junk_does_not_fill_the_log(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for _ in range(300):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as junk:
                junk.sendall(b"junk\r\n\r\n")
                assert until_closed(junk).startswith(b"HTTP/1.1 400 ")
        assert 0 < server.log.count("Invalid HTTP request received.") < 300


def test_strangers_do_not_fill_the_log_while_the_storage_is_away(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        (tmp_path / "verity.db").unlink()
        with httpx.Client(base_url=server.base_url) as client:
            for _ in range(100):
                assert client.get(server.base_url.replace("/v1", "/readyz")).status_code == 503
                assert client.get("/effects", headers={"Authorization": f"Bearer {mint('live')}"}).status_code == 503
        assert 0 < server.log.count("the store did not answer") < 100
