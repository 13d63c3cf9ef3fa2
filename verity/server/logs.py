"""The server's log, plain or JSON, on standard error. Lines have request ids and never keys, tokens, payloads or paths.

The log lines of libraries follow the same rules. An exception is logged as its type and its source lines, without its
message or a traceback, which may quote anything. Lines that unauthenticated clients can cause are limited in rate, so
that they cannot fill the disk.
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

MAX_LINES_PER_SECOND = 5
"""How many lines a library's logger may write a second, for each level: any client can make uvicorn log junk."""

UNAUTHENTICATED = "verity.server.unauthenticated"
"""The logger for messages that a client can cause before it is authenticated."""

_IN_CALLBACK = "Exception in callback"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; the fields in a record's `extra` become members of it."""

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
    """The first line of the message, and of asyncio's messages about callbacks only the fixed words.

    asyncio quotes tasks and callbacks, mostly in the lines below the first: their exceptions and their arguments.
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
    """Limits a library's logger, and the logger `UNAUTHENTICATED`, to `MAX_LINES_PER_SECOND` for each level.

    The next line after a second with dropped lines has the number of dropped lines in its field `dropped`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record passes. Verity's other loggers are not limited: only the access log logs each request."""
        if record.name.partition(".")[0] == "verity" and record.name != UNAUTHENTICATED:
            return True
        second = int(record.created)
        with self._lock:
            since, count = self._counts.get((record.name, record.levelno), (second, 0))
            if since != second:
                if count > MAX_LINES_PER_SECOND:
                    record.dropped = count - MAX_LINES_PER_SECOND
                since, count = second, 0
            self._counts[record.name, record.levelno] = since, count + 1
        return count < MAX_LINES_PER_SECOND


def configure_logging(log_format: LogFormat) -> None:
    """Send the whole process's log to standard error. For `verity serve`, which owns its process."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(PlainFormatter())
    handler.addFilter(Throttle())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("verity").setLevel(logging.INFO)


def describe(error: BaseException) -> str:
    """An exception's type and source lines, without its message, which may quote a payload or a key."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"
