"""Problems: the error answers that the server itself gives, without an answer of the store."""

from __future__ import annotations

from verity._ledger.problems import Problem

Details = list[dict[str, str]]


def invalid_request(details: Details) -> Problem:
    """400: the body or a parameter breaks the contract. `details` has at least one item and quotes nothing sent."""
    first, *others = details
    message = f"The request breaks the API's rules. {first['path']}: {first['message']}"
    if others:
        message += f" (and {len(others)} more)"
    return Problem(400, "invalid_request", message, details=details)


def unauthenticated(message: str = "The API key is missing or not valid.") -> Problem:
    """401, with the challenge that RFC 9110 requires."""
    return Problem(401, "unauthenticated", message, headers={"www-authenticate": 'Bearer realm="verity"'})


def forbidden(message: str) -> Problem:
    """403: the caller is known and may not do this."""
    return Problem(403, "forbidden", message)


def not_found() -> Problem:
    """404 for a path that the API does not have. An unknown effect has another code, `effect_not_found`."""
    return Problem(404, "not_found", "There is no such path in this API.")


def method_not_allowed(allowed: list[str]) -> Problem:
    """405: the path has other methods."""
    methods = ", ".join(allowed)
    return Problem(405, "method_not_allowed", f"This path takes {methods}.", headers={"allow": methods})


def body_too_large(max_bytes: int) -> Problem:
    """413. The connection is closed after it, since the rest of the body is not read."""
    message = f"The request's body is over {max_bytes:,} bytes."
    return Problem(413, "payload_too_large", message, headers={"connection": "close"})


def header_too_large(max_bytes: int) -> Problem:
    """431. The connection is closed after it, since the rest of the header is not read."""
    message = f"The request's header is over {max_bytes:,} bytes."
    return Problem(431, "invalid_request", message, headers={"connection": "close"})


def unavailable() -> Problem:
    """503: the store does not answer."""
    message = "The ledger's storage does not answer. Send the request again."
    return Problem(503, "unavailable", message, headers={"retry-after": "1"})


def too_many_unknown_keys() -> Problem:
    """503: the limit of lookups of unknown API keys is reached."""
    message = "This node of the ledger is looking up too many unknown API keys. Send the request again."
    return Problem(503, "unavailable", message, headers={"retry-after": "1"})


def too_many_connections() -> Problem:
    """503: this node's limit of connections is reached."""
    message = "This node of the ledger has too many connections. Send the request again."
    return Problem(503, "unavailable", message, headers={"retry-after": "1", "connection": "close"})


def too_many_connections_of_key() -> Problem:
    """429: this API key's limit of connections is reached."""
    message = "This API key has too many connections to this node of the ledger. Send the request again later."
    return Problem(429, "rate_limited", message, headers={"retry-after": "1", "connection": "close"})


def too_much_unread() -> Problem:
    """429: this API key's limit of unread bytes is reached."""
    message = "Clients of this API key have left too many answers unread. Read them, and send the request again later."
    return Problem(429, "rate_limited", message, headers={"retry-after": "1"})


def rate_limited(retry_after_s: int) -> Problem:
    """429: this API key sends too many requests."""
    message = "This API key sends more requests than it may. Send the request again later."
    return Problem(429, "rate_limited", message, headers={"retry-after": str(retry_after_s)})


def too_many_reads(retry_after_s: int, who: str) -> Problem:
    """429: the limit of reads under way, of an API key or of the node, is reached."""
    message = f"{who} has as many reads under way as it may. Send the request again when one of them is answered."
    return Problem(429, "rate_limited", message, headers={"retry-after": str(retry_after_s)})


def too_busy_to_read(retry_after_s: int) -> Problem:
    """503: a read waited too long for its permit."""
    message = "This node of the ledger is busy with other reads. Send the request again."
    return Problem(503, "unavailable", message, headers={"retry-after": str(retry_after_s)})


def internal() -> Problem:
    """500. The log has the error, under the request's id."""
    return Problem(500, "internal", "The ledger failed on this request. Its log has the error under this request id.")
