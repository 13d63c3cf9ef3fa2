"""Parses times in RFC 3339, which clients send and ledgers read."""

from __future__ import annotations

import re
from datetime import datetime

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def parse_time(text: str) -> datetime | None:
    """The time as an aware datetime, to the microsecond; None if the text is not RFC 3339."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    day, time, fraction, offset = match.groups()
    try:
        return datetime.fromisoformat(
            f"{day}T{time}.{(fraction or '0')[:6].ljust(6, '0')}{'+00:00' if offset in 'Zz' else offset}"
        )
    except ValueError:
        return None
