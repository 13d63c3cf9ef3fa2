"""The settings of a served ledger.

Each is an option of `verity serve` and a VERITY_… variable, except three: `key_cache_s` and `keep_alive_s`, on whose
values the API's guarantees and the clients rely, and `metrics_kept_s`.
"""

from __future__ import annotations

from dataclasses import dataclass

from verity._store.interface import MAX_BATCH
from verity._store.reads import READ_WITHIN_S
from verity.server.json_body import MAX_DEPTH

MAX_BODY_BYTES = 262_144
"""Three payloads of 64 KB with room for escapes and names."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings of a served ledger.

    Attributes:
        max_body_bytes: a request whose body is larger is answered with 413.
        max_body_depth: a request whose body is nested deeper is answered with 400.
        rate_limit: requests a second of one API key on this node; more are answered with 429; 0 is no limit.
        header_timeout_s: how long a request's header may take, from its first byte or from the start of the connection,
            in seconds.
        body_timeout_s: how long its body may take after the header, in seconds.
        read_timeout_s: how long a client may leave an answer unread, once the buffers on the way are full, in seconds.
        max_connections: how many connections may be open; one API key may have half of them.
        max_unread_bytes: how many bytes the server may keep for clients that do not read; one API key may have a
            quarter. Over it, the key's reads are refused, and its connections with the most unread bytes are cut off.
        max_waits: how many lease requests may wait until another holder's effect is decided; further ones are answered
            at once. Set it below `max_connections`: a holder that wants to commit may need a new connection.
        max_searches: how many lists and counts of one API key may be under way on this node; one runs and the others
            wait; one more is answered with 429.
        search_timeout_s: how long a list or a count may take, in seconds; then it is answered with 503.
        max_batch: how many calls go to the store together at the most; 1 switches group commit off.
        database_timeout_s: how long PostgreSQL may take for a statement, in seconds.
        key_cache_s: how long the lookup of an API key is cached, in seconds. A revoked key is accepted for so long at
            the most.
        metrics_kept_s: how long the text of `/metrics` is cached, in seconds.
        access_log: whether to log one line for each request.
        drain_timeout_s: how long a stopping server waits for requests that it has begun, in seconds.
        keep_alive_s: how long an idle connection stays open, in seconds. Clients close idle connections earlier, so
            that no client sends a request into a connection that the server is closing.
    """

    max_body_bytes: int = MAX_BODY_BYTES
    max_body_depth: int = MAX_DEPTH
    rate_limit: int = 0
    header_timeout_s: float = 5.0
    body_timeout_s: float = 9.0
    read_timeout_s: float = 30.0
    max_connections: int = 10_000
    max_unread_bytes: int = 67_108_864
    max_waits: int = 5_000
    max_searches: int = 16
    search_timeout_s: float = READ_WITHIN_S
    max_batch: int = MAX_BATCH
    database_timeout_s: float = 10.0
    key_cache_s: float = 0.5
    metrics_kept_s: float = 1.0
    access_log: bool = False
    drain_timeout_s: int = 30
    keep_alive_s: int = 75
