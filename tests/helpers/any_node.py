"""Transports that send each request to another node of a ledger, as a load balancer does that checks nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

import httpx


class _OtherNode:
    """Where the next request goes."""

    def __init__(self, nodes: Sequence[str]) -> None:
        self._nodes = [httpx.URL(node) for node in nodes]

    def send_elsewhere(self, request: httpx.Request) -> httpx.Request:
        node = random.choice(self._nodes)
        request.url = request.url.copy_with(port=node.port)
        return request


class AsyncAnyNode(httpx.AsyncHTTPTransport):
    """For an async client."""

    def __init__(self, nodes: Sequence[str]) -> None:
        super().__init__()
        self._other = _OtherNode(nodes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await super().handle_async_request(self._other.send_elsewhere(request))


class AnyNode(httpx.HTTPTransport):
    """For a sync client."""

    def __init__(self, nodes: Sequence[str]) -> None:
        super().__init__()
        self._other = _OtherNode(nodes)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return super().handle_request(self._other.send_elsewhere(request))
