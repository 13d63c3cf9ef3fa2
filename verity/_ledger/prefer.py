"""The `Prefer` header (RFC 7240): how long a lease request may wait at the ledger."""

from __future__ import annotations

import re

from verity._limits import MAX_WAIT_S

_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;[^,]*)?(?=,|$)', re.ASCII | re.IGNORECASE)


def read_wait_s(header: str | None) -> int:
    """How many seconds the header asks to wait, at most 25; 0: there is no header, or it is not valid."""
    found = _WAIT.search(header) if header else None
    return min(int(found[1]), MAX_WAIT_S) if found else 0
