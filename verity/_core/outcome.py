"""What an exception of `act` says about the effect: nothing happened, it may have happened, or it failed.

The rules know classes by package and name, so that no library is imported. docs/outcomes.md shows them as a table.
An error of the connect phase is definite: nothing was sent. After a request was sent, no answer means "may have
happened", and so does an answer that can't be read, and a status that is no refusal. A library that retries by itself
shows only its last attempt.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from enum import Enum
from typing import Any

from verity._core.interruption import is_from_handler
from verity.errors import NotExecuted, OutcomeUnknown

Classes = tuple[type[BaseException], ...]


class Outcome(str, Enum):
    """What becomes of an effect whose act raised. The values are those of the span's `verity.outcome`."""

    NOT_EXECUTED = "not_executed"
    """Nothing happened: act said so by `NotExecuted`."""
    UNKNOWN = "unknown"
    """The effect may have happened."""
    FAILED = "failed"
    """All else: the exception is recorded as the effect's failure."""


AMBIGUOUS = frozenset(
    {
        "builtins.BrokenPipeError",
        "builtins.ConnectionAbortedError",
        "builtins.ConnectionResetError",
        "builtins.TimeoutError",
        "aiohttp.ClientConnectionError",
        "aiohttp.ClientPayloadError",
        "anyio.BrokenResourceError",
        "anyio.EndOfStream",
        "asyncio.IncompleteReadError",
        "asyncio.TimeoutError",
        "asyncpg.PostgresConnectionError",
        "billiard.SoftTimeLimitExceeded",
        "botocore.ConnectionError",  # of the connect phase, too: botocore retries by default, also after a time-out
        "botocore.HTTPClientError",
        "concurrent.BrokenExecutor",
        "concurrent.CancelledError",
        "concurrent.TimeoutError",
        "google.Cancelled",
        "google.RetryError",
        "google.ServerError",
        "grpc.FutureTimeoutError",
        "http.HTTPException",
        "httpcore.NetworkError",
        "httpcore.ProtocolError",
        "httpcore.TimeoutException",
        "httpx.RequestError",
        "json.JSONDecodeError",
        "multiprocessing.TimeoutError",
        "psycopg.OperationalError",
        "psycopg2.OperationalError",
        "requests.ChunkedEncodingError",
        "requests.ContentDecodingError",
        "requests.RetryError",
        "requests.Timeout",
        "requests.TooManyRedirects",
        "rq.BaseTimeoutException",
        "simplejson.JSONDecodeError",
        "smtplib.SMTPServerDisconnected",
        "ssl.SSLError",
        "stripe.APIConnectionError",
        "stripe.APIError",
        "stripe.IdempotencyError",
        "subprocess.TimeoutExpired",
        "trio.BrokenResourceError",
        "trio.TooSlowError",
        "urllib3.DecodeError",
        "urllib3.IncompleteRead",
        "urllib3.InvalidChunkLength",
        "urllib3.InvalidHeader",
        "urllib3.ProtocolError",
        "urllib3.ResponseError",
        "urllib3.TimeoutError",
        # Of an effect inside act. Its `NotExecuted` says nothing about what else the outer act did.
        "verity.CommitUncertainError",
        "verity.LeaseConflictError",
        "verity.NotExecuted",
        "verity.ObserveFailedError",
        "verity.OutcomeUnknown",
        "verity.OutcomeUnknownError",
        "verity.VerityConnectionError",
    }
)
"""After these the effect may have happened. A name is the top-level package, and the class."""

DEFINITE = frozenset(
    {
        "builtins.ConnectionRefusedError",
        "aiohttp.ClientConnectorError",
        "aiohttp.ConnectionTimeoutError",
        "asyncpg.ClientCannotConnectError",
        "http.InvalidURL",
        "http.NotConnected",
        "httpcore.ConnectError",
        "httpcore.ConnectTimeout",
        "httpcore.PoolTimeout",
        "httpcore.ProxyError",
        "httpx.ConnectError",
        "httpx.ConnectTimeout",
        "httpx.PoolTimeout",
        "httpx.ProxyError",
        "httpx.UnsupportedProtocol",
        "requests.ConnectTimeout",
        "socket.gaierror",
        "ssl.SSLCertVerificationError",
        "urllib3.ConnectTimeoutError",
        "urllib3.EmptyPoolError",
        "urllib3.NewConnectionError",
    }
)
"""Errors of the connect phase: nothing was sent."""

BY_REASON: dict[str, Callable[[Any], object]] = {
    "requests.ConnectionError": lambda error: error.args[0],
    "urllib.URLError": lambda error: error.reason,
    "urllib3.MaxRetryError": lambda error: error.reason,
    "urllib3.ProxyError": lambda error: error.original_error,
    "urllib3.SSLError": lambda error: error.args[0],
}
"""These wrap another error: definite if that one is, ambiguous otherwise."""

BY_STATUS: dict[str, Callable[[Any], object]] = {
    # One with a cause is about an answer that could not be read. aiohttp makes up its status.
    "aiohttp.ClientResponseError": lambda error: None if error.__cause__ else error.status,
    # After a retry, the status is the last answer's, and an earlier attempt may have happened.
    "botocore.ClientError": lambda error: (
        None if (said := error.response["ResponseMetadata"]).get("RetryAttempts") else said["HTTPStatusCode"]
    ),
    "grpc.RpcError": lambda error: error.code().name,
    "httpx.HTTPStatusError": lambda error: error.response.status_code,
    "requests.HTTPError": lambda error: error.response.status_code,
    "urllib.HTTPError": lambda error: error.code,
    "verity.VerityApiError": lambda error: error.status_code,
}
"""These tell of an answer: its status decides."""

AMBIGUOUS_CODES = frozenset({"CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "UNKNOWN"})
"""Of gRPC."""

_UNREACHABLE = frozenset({errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH})
_GROUPS = frozenset({"builtins.BaseExceptionGroup", "exceptiongroup.BaseExceptionGroup"})
_LEFT = "_has_left"
_SYSTEM = frozenset({"anyio", "asyncio", "builtins", "concurrent", "socket", "ssl", "trio"})
_MAX_CAUSES = 64


def classify(
    error: Exception,
    effect_key: str,
    ambiguous: Classes = (),
    definite: Classes = (),
    outer: BaseException | None = None,
) -> Outcome:
    """Return what the exception of an act says about its effect.

    The first rule that knows the exception decides: `NotExecuted`, then `ambiguous` and `definite`, then the tables. If
    no rule knows it, its cause decides, or the exception that was being handled when it was raised: the client
    libraries of providers wrap the time-outs of the HTTP library that they use.

    Args:
        error: the exception that act raised.
        effect_key: the effect's key.
        ambiguous: classes after which the effect may have happened.
        definite: classes after which it has not. The closest class decides; a class in both is ambiguous.
        outer: the exception that was being handled before the call began. It is in the error's context, too.
    """
    if isinstance(error, NotExecuted) and not _has_left(error) and error.effect_key in (None, effect_key):
        return Outcome.NOT_EXECUTED
    return Outcome.UNKNOWN if _may_have_happened(error, ambiguous, definite, outer) else Outcome.FAILED


def mark_left(error: NotExecuted | OutcomeUnknown, effect_key: str) -> None:
    """Note that an error which act raised for Verity leaves the `protect()` of its effect, with the effect's key.

    For an outer act that lets a `NotExecuted` through, it is no longer an error of its own.
    """
    error.effect_key = error.effect_key or effect_key
    vars(error)[_LEFT] = True


def _has_left(error: BaseException) -> bool:
    return _LEFT in vars(error)


def _may_have_happened(
    error: BaseException, ambiguous: Classes, definite: Classes, outer: BaseException | None
) -> bool | None:
    """Return what the first exception in the chain of causes says that a rule knows; None if no rule knows one."""
    known: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if known is None or known is outer:
            break
        verdict = _by_caller(known, ambiguous, definite)
        if verdict is not None:
            return verdict
        verdict = _by_tables(known, ambiguous, definite, outer)
        if verdict is not None:
            return verdict or _is_second_attempt(known, ambiguous, definite, outer)
        known = known.__context__ if known.__cause__ is None and not known.__suppress_context__ else known.__cause__
    return None


def _is_second_attempt(
    error: BaseException, ambiguous: Classes, definite: Classes, outer: BaseException | None
) -> bool:
    """Whether an error that is definite by the tables came while an ambiguous one was handled, as in a retry.

    An error of the system that a library's error wraps, such as the time-out of the connection, is none of an earlier
    attempt. Libraries raise `from None`, and from another cause: so both links are followed.
    """
    hidden = error.__cause__ is None and error.__suppress_context__  # by the caller
    below: list[tuple[BaseException | None, bool]] = [(None if hidden else error, True)]
    seen: set[int] = set()
    while below and len(seen) < _MAX_CAUSES:
        link, is_wrapped = below.pop()
        if link is None or link is outer or id(link) in seen:
            continue
        seen.add(id(link))
        is_system = _package_of(type(link)) in _SYSTEM
        is_part = link is error or (is_system and (is_wrapped or not isinstance(link, Exception)))
        if not is_part and (_by_caller(link, ambiguous, definite) or _by_tables(link, ambiguous, definite, outer)):
            return True
        cause, context = link.__cause__, link.__context__
        below.append((context, cause is context or (cause is None and not is_system)))
        below.append((cause, True))
    return False


def _by_caller(error: BaseException, ambiguous: Classes, definite: Classes) -> bool | None:
    for kind in type(error).__mro__:
        if kind in ambiguous:
            return True
        if kind in definite:
            return False
    return None


def _by_tables(
    error: BaseException, ambiguous: Classes = (), definite: Classes = (), outer: BaseException | None = None
) -> bool | None:
    """Return whether the effect may have happened, as the exception itself says; None if no rule knows it."""
    for kind in type(error).__mro__:
        name = f"{_package_of(kind)}.{kind.__name__}"
        if name in _GROUPS:
            members = getattr(error, "exceptions", ())
            return any(_may_have_happened(each, ambiguous, definite, outer) for each in members) or None
        verdict = _by_name(name, error)
        if verdict is not None:
            return verdict
    return None if isinstance(error, Exception) else True  # a cancellation or Ctrl-C that act turned into another error


def _package_of(kind: type) -> str:
    return str(kind.__module__).partition(".")[0]


def _by_name(name: str, error: BaseException) -> bool | None:
    if name in AMBIGUOUS:
        return True
    if name in DEFINITE:
        return False
    if name in BY_STATUS:
        return _is_ambiguous_status(_ask(BY_STATUS[name], error))
    if name in BY_REASON:
        reason = _ask(BY_REASON[name], error)
        return not isinstance(reason, BaseException) or _by_tables(reason) is not False
    is_unreachable = name == "builtins.OSError" and getattr(error, "errno", None) in _UNREACHABLE
    return True if is_unreachable else None


def _is_ambiguous_status(status: object) -> bool:
    if isinstance(status, int):
        return status == 408 or not 400 <= status < 500
    return not isinstance(status, str) or status in AMBIGUOUS_CODES


def _ask(read: Callable[[Any], object], error: BaseException) -> object:
    """Read from another library's exception; None if it does not have the place that is read."""
    try:
        return read(error)
    except Exception as broken:  # another version of the library may have anything there
        if is_from_handler(broken):
            raise
        return None
