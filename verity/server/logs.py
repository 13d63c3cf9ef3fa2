"""The server's log lines: plain or JSON, to stderr. They hold request ids and never keys, tokens, payloads or paths.

The libraries below log, too. Their lines keep to the same rules: an exception is told by its type and its places, not
by a traceback, which may quote anything; and nobody who sends junk can fill the disk with them.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from datetime import datetime, timezone
from typing import Literal

LogFormat = Literal["plain", "json"]

LINES_A_SECOND = 5
"""Of a library's logger, for each level: what uvicorn says of junk, it says to anybody who sends it."""

UNAUTHENTICATED = "verity.server.unauthenticated"
"""The logger for what a caller causes before it is known who it is."""

_IN_CALLBACK = "Exception in callback"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what a record was given as `extra` becomes members of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _first_line(record),
            **_extra(record),
        }
        return json.dumps(fields, ensure_ascii=False, default=str)


class PlainFormatter(logging.Formatter):
    """Time, level, logger, message, and the extra fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {_first_line(record)}"
        return " ".join([line, *(f"{name}={value}" for name, value in _extra(record).items())])


def _first_line(record: logging.LogRecord) -> str:
    """The message; of asyncio's only what it says itself. It quotes tasks and callbacks, most in the lines below: their
    exceptions, and what they were called with.
    """
    line = (record.getMessage().splitlines() or [""])[0]
    if record.name == "asyncio" and line.startswith(_IN_CALLBACK):
        return _IN_CALLBACK
    return line


def _extra(record: logging.LogRecord) -> dict[str, object]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info and record.exc_info[1]:
        fields["exception"] = describe(record.exc_info[1])
    return fields


class Throttle(logging.Filter):
    """Lets `LINES_A_SECOND` of a library's logger pass, and of the strangers', and has the next one say how many were
    dropped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes. Verity's own do: what else a caller without a key can cause is the access log."""
        if record.name.partition(".")[0] == "verity" and record.name != UNAUTHENTICATED:
            return True
        second = int(record.created)
        with self._lock:
            since, count = self._counts.get((record.name, record.levelno), (second, 0))
            if since != second:
                if count > LINES_A_SECOND:
                    record.dropped = count - LINES_A_SECOND
                since, count = second, 0
            self._counts[record.name, record.levelno] = since, count + 1
        return count < LINES_A_SECOND


def configure_logging(log_format: LogFormat) -> None:
    """Send the process's log to stderr. For `verity serve`, which owns its process."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(PlainFormatter())
    handler.addFilter(Throttle())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("verity").setLevel(logging.INFO)


def describe(error: BaseException) -> str:
    """An exception's type and where it was raised. Not its message, which may quote a payload or a key."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"
