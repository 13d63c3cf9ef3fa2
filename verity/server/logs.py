"""The server's log lines: plain or JSON, to stderr. They hold request ids and never keys, tokens, payloads or paths."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import datetime, timezone
from typing import Literal

LogFormat = Literal["plain", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line; what a record was given as `extra` becomes members of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


class PlainFormatter(logging.Formatter):
    """Time, level, message, and the extra fields as name=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = super().format(record)
        extra = [f"{name}={value}" for name, value in vars(record).items() if name not in _STANDARD]
        return " ".join([line, *extra])


def configure_logging(log_format: LogFormat) -> None:
    """Send the process's log to stderr. For `verity serve`, which owns its process."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("verity").setLevel(logging.INFO)


def describe(error: BaseException) -> str:
    """An exception's type and where it was raised. Not its message, which may quote a payload or a key."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}"
