"""What can be set on a served ledger. Every setting is an option of `verity serve` and a VERITY_… variable."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BODY_BYTES = 262_144
"""Three payloads of 64 KB with room for escapes and names."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings of a served ledger.

    Attributes:
        max_body_bytes: a request body over it is answered with 413.
        key_cache_s: how long a looked-up API key is trusted, in seconds; the longest that a revoked one lives on.
        access_log: whether to log one line for each request.
        drain_timeout_s: how long a stopping server waits for requests that it has begun, in seconds.
        keep_alive_s: how long an idle connection stays open, in seconds; longer than clients keep theirs, so that
            a client does not send into a connection that is being closed.
    """

    max_body_bytes: int = MAX_BODY_BYTES
    key_cache_s: float = 0.5
    access_log: bool = False
    drain_timeout_s: int = 30
    keep_alive_s: int = 75
