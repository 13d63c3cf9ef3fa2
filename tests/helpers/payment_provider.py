"""A payment provider on loopback, in a thread of the test: the outside world. It counts the refunds that reach it."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

_WAIT_AT_MOST_S = 60.0


class _Server(ThreadingHTTPServer):
    request_queue_size = 128


class PaymentProvider:
    """Takes `POST /refunded/<order>` and `POST /arrived/<order>`, the app's word that a request for it came in.

    Attributes:
        url: where it listens.
        refunds: how often each order was refunded.
    """

    def __init__(self) -> None:
        self.refunds: Counter[str] = Counter()
        self._to_arrive = 0
        self._changed = threading.Condition()
        self._ids = itertools.count(1)
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                what, order = self.path[1:].split("/")
                status, answer = provider.answer(what, order)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def hold_until_arrived(self, requests: int) -> None:
        """Answer a refund only after so many more requests have arrived at the app, so that they overlap there."""
        with self._changed:
            self._to_arrive = requests

    def answer(self, what: str, order: str) -> tuple[int, str]:
        """(HTTP status, body)."""
        with self._changed:
            if what == "arrived":
                self._to_arrive -= 1
                self._changed.notify_all()
                return 200, "noted"
            self.refunds[order] += 1
            refund = f"re_{next(self._ids)}"
            met = self._changed.wait_for(lambda: self._to_arrive <= 0, _WAIT_AT_MOST_S)
            return (200, refund) if met else (504, "nobody else came")

    def __enter__(self) -> PaymentProvider:
        self._thread = threading.Thread(target=self._server.serve_forever, name="payment-provider", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
