from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from verity.server.settings import MAX_BODY_BYTES

KIB = b"x" * 1024


def padded(size: int, key: str) -> bytes:
    """A lease request of exactly `size` bytes."""
    head, tail = f'{{"effectKey":"{key}"'.encode(), b"}"
    return head + b" " * (size - len(head) - len(tail)) + tail


def test_a_body_at_the_limit_is_taken(agent: httpx.Client) -> None:
    body = padded(MAX_BODY_BYTES, "at the limit")
    assert agent.post("/effects/payments/lease", content=body).status_code == 200


def test_a_body_over_the_limit_is_refused_by_its_length(agent: httpx.Client) -> None:
    response = agent.post("/effects/payments/lease", content=padded(MAX_BODY_BYTES + 1, "over the limit"))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "payload_too_large")


@pytest.mark.parametrize("chunks", [257, 5_000])
def test_a_body_over_the_limit_is_refused_while_it_comes(chunks: int, agent: httpx.Client) -> None:
    """5 MB that nobody asked for, and the client still gets its answer."""

    def body() -> Iterator[bytes]:
        for _ in range(chunks):
            yield KIB

    response = agent.post("/effects/payments/lease", content=body())
    assert (response.status_code, response.json()["error"]["code"]) == (413, "payload_too_large")
    assert agent.get("/namespaces").status_code == 200


def test_a_client_that_sends_all_before_it_reads_gets_its_answer(agent: httpx.Client) -> None:
    """Not a reset connection, which is what closing it on unread bytes would give."""
    host, port, size = agent.base_url.host, agent.base_url.port, 4_000_000
    head = f"POST /v1/effects/payments/lease HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
    head += f"Authorization: {agent.headers['authorization']}\r\n\r\n"
    with socket.create_connection((host, port or 0), timeout=30) as connection:
        connection.sendall(head.encode())
        for _ in range(size // 1000):
            connection.sendall(b"x" * 1000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_within_the_limit_is_put_together(agent: httpx.Client) -> None:
    body = padded(100_000, "in chunks")
    response = agent.post("/effects/payments/lease", content=iter([body[:1], body[1:70_000], b"", body[70_000:]]))
    assert response.status_code == 200


@pytest.mark.parametrize(("size", "status"), [(65_536, 200), (65_537, 413)])
def test_a_payload_is_at_most_64_kib(size: int, status: int, agent: httpx.Client) -> None:
    payload = "é" * ((size - 2) // 2) + "x" * (size % 2)
    response = agent.post("/effects/payments/lease", json={"effectKey": f"payload {size}", "inputJson": payload})
    assert response.status_code == status


def test_the_depth_of_a_payload(agent: httpx.Client) -> None:
    for depth, status in ((200, 200), (201, 400)):
        body = f'{{"effectKey":"depth {depth}","inputJson":{"[" * depth}{"]" * depth}}}'
        assert agent.post("/effects/payments/lease", content=body.encode()).status_code == status
