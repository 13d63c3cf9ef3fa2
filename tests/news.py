"""What is told of a new ledger, which most tests begin with: it is news, and no fault."""

from __future__ import annotations

NEW_LEDGER = "a new, empty one was made"


def without_news(said: str) -> str:
    """The lines of a log or of standard error without those that tell of a new ledger."""
    return "".join(line for line in said.splitlines(keepends=True) if NEW_LEDGER not in line)
