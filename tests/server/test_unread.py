"""What is kept for clients that do not read: counted for each API key, and never much. Loopback sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.helpers.concurrency import sync_until
from tests.helpers.served_ledger import ServedLedger
from tests.server.test_connections import until_closed
from tests.server.test_protocol import Raw
from verity.server.key_usage import UsageByKey
from verity.server.settings import ServerSettings

BUDGET = 16_000_000
SHARE = BUDGET // 4
PAGE = "/v1/effects?limit=500"


@pytest.fixture(scope="module")
def served() -> Iterator[ServedLedger]:
    settings = ServerSettings(max_unread_bytes=BUDGET, max_connections=200, read_timeout_s=60, key_cache_s=60)
    with ServedLedger(settings=settings) as ledger, Raw(ledger, ledger.create_key()) as raw:
        for number in range(12):
            body = json.dumps({"effectKey": str(number), "inputJson": "x" * 60_000}).encode()
            assert raw.ask(raw.request("POST", "/v1/effects/n/lease", body))[0] == 200
        yield ledger


def cuts(served: ServedLedger) -> float:
    text = httpx.get(served.base_url.replace("/v1", "/metrics")).text
    return float(text.partition('verity_connections_cut_total{reason="unread"} ')[2].split("\n")[0])


class IdleReader(Raw):
    """Asks for pages, and reads none of them."""

    def __init__(self, served: ServedLedger, key: str) -> None:
        super().__init__(served, key)
        self.socket.close()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        url = httpx.URL(served.base_url)
        self.socket.connect((url.host, url.port))
        self.socket.settimeout(30)

    def ask_for_pages(self, count: int) -> None:
        self.socket.sendall(self.request("GET", PAGE) * count)

    def __enter__(self) -> IdleReader:
        return self

    @property
    def unread_bytes(self) -> int:
        """What is kept for it; 0 where it is not, or not yet, connected."""
        here = self.socket.getsockname()
        return sum(each.unread_bytes for each in self._served.connections if each.client == here)


class Connected:
    """Stands for a connection where nothing else of one is looked at."""

    def __init__(self, usage_by_key: UsageByKey) -> None:
        self.usage = usage_by_key.unauthenticated
        self.unread_bytes = 0


def total(served: ServedLedger) -> int:
    return sum(each.unread_bytes for each in served.connections)


def test_idle_readers_are_cut_off_and_nobody_else(served: ServedLedger) -> None:
    greedy, other = served.create_key(), served.create_key()
    with ExitStack() as stack:
        holder = stack.enter_context(Raw(served, other))
        patient = stack.enter_context(IdleReader(served, other))
        patient.ask_for_pages(40)
        sync_until(lambda: patient.unread_bytes > 0)
        before = cuts(served)
        for _ in range(12):
            stack.enter_context(IdleReader(served, greedy)).ask_for_pages(40)
        sync_until(lambda: cuts(served) > before)
        sync_until(lambda: total(served) <= 2 * SHARE)
        assert patient.unread_bytes > 0, "it is still there"
        assert holder.ask(holder.lease("while others do not read"))[0] == 200
    sync_until(lambda: total(served) == 0)


def test_whose_clients_do_not_read_is_refused_more_and_may_finish(served: ServedLedger) -> None:
    key = served.create_key()
    with Raw(served, key) as holder, Raw(served, served.create_key()) as other:
        granted = json.loads(holder.ask(holder.lease("finished"))[2])
        holder.of_server().add_unread(SHARE)
        for path in (PAGE, "/v1/namespaces"):
            status, head, body = holder.ask(holder.request("GET", path))
            assert (status, head["retry-after"], json.loads(body)["error"]["code"]) == (429, "1", "rate_limited")
        assert other.ask(other.request("GET", PAGE))[0] == 200
        tokens = {name: granted[name] for name in ("effectKey", "fenceToken", "leaseToken")}
        commit = json.dumps({**tokens, "result": 1}).encode()
        assert holder.ask(holder.request("POST", "/v1/effects/n/commit", commit))[0] == 200
        holder.of_server().add_unread(-SHARE)
        assert holder.ask(holder.request("GET", PAGE))[0] == 200


def test_the_worst_are_cut_off_until_there_is_room() -> None:
    usage_by_key = UsageByKey(100, 1_000)
    made: dict[str, list[Any]] = {}
    for key, unread in {"a": (100, 150), "b": (0, 90, 300), "c": (250,), "d": (240,), "e": (200,)}.items():
        made[key] = [Connected(usage_by_key) for _ in unread]
        for connection, size in zip(made[key], unread, strict=True):
            assert usage_by_key.assign(connection, key)
            usage_by_key.add_unread(connection, size)
    assert usage_by_key.find_worst_readers() == [made["b"][2], made["a"][1]]


def test_what_is_read_after_all_is_whole(served: ServedLedger) -> None:
    with IdleReader(served, served.create_key()) as reader:
        reader.ask_for_pages(40)
        sync_until(lambda: reader.unread_bytes > 0)
        for _ in range(40):
            status, _, body = reader.answer()
            assert (status, len(json.loads(body)["items"]) > 1) == (200, True)
        sync_until(lambda: total(served) == 0)
        reader.ask_for_pages(40)
        reader.socket.sendall(reader.request("GET", PAGE, headers="Connection: close\r\n"))
        sync_until(lambda: reader.unread_bytes > 0)
        assert [reader.answer()[0] for _ in range(41)] == [200] * 41
        assert reader.is_closed()


def test_requests_in_one_go_take_little_room(served: ServedLedger) -> None:
    """Parsed, each would take some KB."""
    with Raw(served, served.create_key()) as raw:
        most = 0
        raw.socket.sendall(b"GET /healthz HTTP/1.1\r\n\r\n" * 5_000)
        for _ in range(5_000):
            assert raw.answer()[0] == 200
            most = max(most, len(raw.of_server().pipeline))
        assert 0 < most < 100
        sync_until(lambda: total(served) == 0)


def test_one_key_can_have_half_of_the_connections() -> None:
    with ServedLedger(settings=ServerSettings(max_connections=8)) as served, ExitStack() as stack:
        greedy, other = served.create_key(), served.create_key()
        several = [stack.enter_context(Raw(served, greedy)) for _ in range(4)]
        for raw in several:
            assert raw.ask(raw.lease("k"))[0] in (200, 409)
        one_more = stack.enter_context(Raw(served, greedy))
        status, head, body = one_more.ask(one_more.lease("k"))
        assert (status, head["connection"], json.loads(body)["error"]["code"]) == (429, "close", "rate_limited")
        assert one_more.is_closed()
        same = stack.enter_context(Raw(served, other))
        assert same.ask(same.lease("k"))[0] == 409
        same.key = greedy
        assert same.ask(same.request("GET", "/v1/namespaces", headers="X-A: 1\r\nX-A: 2\r\n"))[0] == 429
        several[0].socket.close()
        sync_until(lambda: len(served.connections) < 6)
        again = stack.enter_context(Raw(served, greedy))
        assert again.ask(again.lease("k"))[0] == 409


def test_who_leaves_while_its_key_is_looked_up_takes_no_place_for_good() -> None:
    with ServedLedger(settings=ServerSettings(max_connections=4, key_cache_s=0.0)) as served:
        key = served.create_key()
        for _ in range(3):
            served.store.before_fork()  # nothing is answered, as where a database is slow
            try:
                with Raw(served, key) as raw:
                    raw.socket.sendall(raw.request("GET", "/v1/namespaces"))
                    sync_until(lambda: len(served.connections) == 1)
                sync_until(lambda: not served.connections)
            finally:
                served.store.after_fork_in_parent()
            with Raw(served, key) as raw:
                assert raw.ask(raw.request("GET", "/v1/namespaces"))[0] == 200


def test_those_who_show_no_key_make_room_for_those_who_do() -> None:
    with ServedLedger(settings=ServerSettings(max_connections=4, header_timeout_s=60)) as served, ExitStack() as stack:
        key = served.create_key()
        unauthenticated = [stack.enter_context(Raw(served)) for _ in range(4)]
        sync_until(lambda: len(served.connections) == 4)
        with Raw(served, key) as raw:
            assert raw.ask(raw.lease("k"))[0] == 200
            assert until_closed(unauthenticated[0].socket) == b""
