# Made from tests/helpers/_async/faulty_transport.py by scripts/mirror.py. Do not edit.
"""A transport that loses requests or answers, or invents answers, as a test plans it; all else goes to a real one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.helpers.concurrency import sync_until

LOSE_REQUEST = "lose the request"
LOSE_ANSWER = "lose the answer"


@dataclass
class Sent:
    """One request as it left the client. A read has no body: its query stands here."""

    operation: str
    namespace: str
    body: dict[str, Any]
    headers: httpx.Headers
    timeout_s: float | None = None
    """How long the client waits for the answer."""


@dataclass
class Says:
    """An answer that the ledger never gave."""

    status: int
    content: bytes = b""
    headers: dict[str, str] | None = None
    once: Callable[[], bool] | None = None
    """When it is given: at once, or as soon as this holds."""


Fault = str | Says | Callable[[], None]


class SyncFaultyTransport(httpx.BaseTransport):
    """Sends through a real transport, but for the faults that are planned for an operation, in their order."""

    def __init__(self) -> None:
        self._real = httpx.HTTPTransport()
        self.sent: list[Sent] = []
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.rewrite: Callable[[httpx.Response], httpx.Response] | None = None
        """Changes each real answer."""

    def operations(self) -> list[str]:
        """The operations that were sent, in order."""
        return [each.operation for each in self.sent]

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        content = request.read()
        *_, namespace, operation = request.url.path.split("/")
        body = json.loads(content) if content else dict(request.url.params)
        timeout_s = request.extensions.get("timeout", {}).get("read")
        self.sent.append(Sent(operation, namespace, body, request.headers, timeout_s))
        planned = self.faults[operation]
        fault = planned.pop(0) if planned else None
        if fault == LOSE_REQUEST:
            raise httpx.ConnectError("refused", request=request)
        if isinstance(fault, Says):
            if fault.once:
                sync_until(fault.once)
            return httpx.Response(fault.status, content=fault.content, headers=fault.headers, request=request)
        if callable(fault):
            fault()
        response = self._real.handle_request(request)
        response.read()
        if self.rewrite is not None:
            response = self.rewrite(response)
        if fault == LOSE_ANSWER:
            raise httpx.ReadTimeout("lost", request=request)
        return response

    def close(self) -> None:
        self._real.close()
