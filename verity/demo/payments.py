"""The payments service of the demo, in a process of its own.

It has no idempotency, like many real services: two POSTs make two refunds. It writes each record to disk first, then
reports it to the supervisor, and answers the caller only after the supervisor allows it. The supervisor can so kill the
worker between a refund and its commit.

    POST /refunds  {charge, amount, currency, order}    GET /refunds?charge=ch_…
    POST /receipts {refund, email, order}               GET /receipts?refund=re_…

Standard output has one JSON object a line: `{"port": …}`, then `{"recorded": …, "order": …}` for each record. Each line
on standard input allows one answer to a caller. The service ends when its standard input ends.
"""

from __future__ import annotations

import json
import os
import queue
import sqlite3
import sys
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import httpx

_TABLES = {
    "refunds": ("re_", ("charge", "amount", "currency", "order")),
    "receipts": ("rc_", ("refund", "email", "order")),
}
"""For each path and table: the prefix of its ids, and its fields. Lookups search by the first field."""


class PaymentsClient:
    """The worker's client of the service. Close it after use."""

    def __init__(self, port: int) -> None:
        # trust_env=False: never use a proxy between two processes of one machine.
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30.0)

    def create(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Make a refund or a receipt. Each call makes a new one."""
        made: dict[str, Any] = self._http.post(f"/{kind}", json=fields).raise_for_status().json()
        return made

    def find(self, kind: str, **field: str) -> dict[str, Any] | None:
        """The first refund of a charge or the first receipt of a refund; None if there is none."""
        found: list[dict[str, Any]] = self._http.get(f"/{kind}", params=field).raise_for_status().json()
        return found[0] if found else None

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


class Records:
    """The service's own database file. A record is on disk when `add` returns."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.row_factory = sqlite3.Row
        for kind, (_, fields) in _TABLES.items():
            columns = ", ".join(f'"{name}"' for name in fields)
            self._database.execute(f'CREATE TABLE IF NOT EXISTS "{kind}" (id TEXT PRIMARY KEY, {columns})')

    def add(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Write one record and return it with its new id."""
        prefix, fields = _TABLES[kind]
        record = {"id": prefix + os.urandom(8).hex(), **{name: body[name] for name in fields}}
        marks = ", ".join("?" * len(record))
        self._database.execute(f'INSERT INTO "{kind}" VALUES ({marks})', tuple(record.values()))  # noqa: S608 - ours
        return record

    def find(self, kind: str, wanted: str) -> list[dict[str, Any]]:
        """The records of a kind with this charge or refund."""
        field = _TABLES[kind][1][0]
        query = f'SELECT * FROM "{kind}" WHERE "{field}" = ? ORDER BY rowid'  # noqa: S608 - names of our own tables
        return [dict(row) for row in self._database.execute(query, (wanted,))]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind, in the order in which they were made."""
        return [dict(row) for row in self._database.execute(f'SELECT * FROM "{kind}" ORDER BY rowid')]  # noqa: S608

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def read_records(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The refunds and the receipts in the file of a service that no longer runs."""
    with closing(Records(path)) as records:
        return records.all("refunds"), records.all("receipts")


class _Service(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._records = Records(path)
        self._lock = threading.Lock()
        self._may_answer: queue.Queue[str] = queue.Queue()

    def follow_supervisor(self) -> None:
        """Allow one answer for each line from the supervisor; end when the supervisor ends."""
        for line in sys.stdin:
            self._may_answer.put(line)
        os._exit(0)

    def record(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        """Write the record, report it to the supervisor, and wait until the supervisor allows the answer."""
        with self._lock:
            record = self._records.add(kind, body)
            send_report(recorded=kind, order=record["order"])
            self._may_answer.get()
            return record

    def find(self, kind: str, wanted: str) -> list[dict[str, Any]]:
        with self._lock:
            return self._records.find(kind, wanted)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore connection errors, since callers are killed; all other errors go to standard error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for an answer, head and body

    @property
    def _service(self) -> _Service:
        return cast(_Service, self.server)

    def do_POST(self) -> None:
        kind = urlsplit(self.path).path[1:]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(201, self._service.record(kind, body))

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        kind = url.path[1:]
        self._answer(200, self._service.find(kind, dict(parse_qsl(url.query))[_TABLES[kind][1][0]]))

    def _answer(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Log nothing: standard error is kept for errors."""


def send_report(**report: Any) -> None:
    """Write one line to the supervisor."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the supervisor ends."""
    service = _Service(Path(sys.argv[1]))
    send_report(port=service.server_address[1])
    threading.Thread(target=service.follow_supervisor, daemon=True).start()
    service.serve_forever()


if __name__ == "__main__":
    main()
