"""The log line about a new ledger. Most tests begin with an empty one, so they expect this line and no other."""

from __future__ import annotations

NEW_LEDGER_NOTICE = "a new, empty one was made"


def without_new_ledger_notice(text: str) -> str:
    """The lines of a log or of standard error, less those that report a new ledger."""
    return "".join(line for line in text.splitlines(keepends=True) if NEW_LEDGER_NOTICE not in line)
