"""What an exception of act says: the tables, the chain of causes, and Verity's own errors."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from verity import (
    CommitUncertainError,
    EffectPreviouslyFailedError,
    LeaseConflictError,
    NotExecuted,
    ObserveFailedError,
    OutcomeUnknown,
    OutcomeUnknownError,
    VerityApiError,
    VerityConnectionError,
)
from verity._core import outcome
from verity._core.outcome import Outcome, classify, mark_left

KEY = "refund:1"
ROOT = Path(__file__).resolve().parents[2]
REQUEST = httpx.Request("POST", "http://127.0.0.1/")


def _class(name: str, base: type[BaseException] = Exception) -> Any:
    """A class as another library has it."""
    package, _, short = name.partition(".")
    return type(short, (base,), {"__module__": f"{package}.errors"})


# --- the tables ---


@pytest.mark.parametrize("name", sorted(outcome.AMBIGUOUS))
def test_after_an_ambiguous_error_the_effect_may_have_happened(name: str) -> None:
    assert classify(_class(name)("lost"), KEY) is Outcome.UNKNOWN
    assert classify(_class("app.Mine", _class(name))("lost"), KEY) is Outcome.UNKNOWN


@pytest.mark.parametrize("name", sorted(outcome.DEFINITE))
def test_an_error_of_the_connect_phase_is_a_failure(name: str) -> None:
    assert classify(_class(name)("refused"), KEY) is Outcome.FAILED
    specific = _class(name, _class("httpx.RequestError"))
    assert classify(specific("refused"), KEY) is Outcome.FAILED, "the closest class decides"


def test_no_class_is_in_two_tables() -> None:
    tables = [outcome.AMBIGUOUS, outcome.DEFINITE, outcome.BY_REASON.keys(), outcome.BY_STATUS.keys()]
    assert sum(len(table) for table in tables) == len(frozenset().union(*tables))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("declined"), Outcome.FAILED),
        (KeyError("x"), Outcome.FAILED),
        (OSError(errno.ENOENT, "no such file"), Outcome.FAILED),
        (OSError(errno.EHOSTUNREACH, "no route"), Outcome.UNKNOWN),
        (TimeoutError(), Outcome.UNKNOWN),
        (OSError(errno.ETIMEDOUT, "timed out"), Outcome.UNKNOWN),
        (ConnectionResetError(), Outcome.UNKNOWN),
        (BrokenPipeError(), Outcome.UNKNOWN),
        (ConnectionRefusedError(), Outcome.FAILED),
        (socket.gaierror(-2, "unknown"), Outcome.FAILED),
        (ssl.SSLEOFError(), Outcome.UNKNOWN),
        (ssl.SSLCertVerificationError(), Outcome.FAILED),
        (httpx.ReadTimeout("", request=REQUEST), Outcome.UNKNOWN),
        (httpx.WriteError("", request=REQUEST), Outcome.UNKNOWN),
        (httpx.RemoteProtocolError("", request=REQUEST), Outcome.UNKNOWN),
        (httpx.ConnectError("", request=REQUEST), Outcome.FAILED),
        (httpx.PoolTimeout("", request=REQUEST), Outcome.FAILED),
    ],
    ids=repr,
)
def test_real_exceptions(error: Exception, expected: Outcome) -> None:
    assert classify(error, KEY) is expected


def test_real_exceptions_of_requests() -> None:
    requests, urllib3 = pytest.importorskip("requests"), pytest.importorskip("urllib3")
    aborted = urllib3.exceptions.ProtocolError("aborted", ConnectionResetError())
    answer = requests.Response()
    answer.status_code = 504
    for error in (
        requests.ReadTimeout(),
        requests.ConnectionError(),
        requests.ConnectionError(aborted),
        requests.HTTPError(response=answer),
        urllib3.exceptions.ReadTimeoutError(None, "/", "slow"),
    ):
        assert classify(error, KEY) is Outcome.UNKNOWN, error
    assert classify(requests.ConnectTimeout(), KEY) is Outcome.FAILED


def _posts() -> list[Callable[[str], object]]:
    """One request by each library that is installed."""
    requests, urllib3 = pytest.importorskip("requests"), pytest.importorskip("urllib3")
    return [requests.post, httpx.post, lambda url: urllib3.request("POST", url, retries=1)]


def _raised_by(post: Callable[[str], object], url: str) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever the library raises
        post(url)
    return caught.value


def test_what_the_libraries_raise_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        for post in _posts():
            error = _raised_by(post, url)
            assert classify(error, KEY) is Outcome.FAILED, error


def test_what_the_libraries_raise_where_the_connection_breaks_after_the_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"

        def hang_up() -> None:
            for _ in range(3):
                connection, _address = server.accept()
                connection.recv(65536)
                connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        for post in _posts():
            error = _raised_by(post, url)
            assert classify(error, KEY) is Outcome.UNKNOWN, error
        thread.join(30)


def _answered(status: Any) -> list[Exception]:
    """The errors that tell of an answer with this status."""
    response = httpx.Response(status, request=REQUEST)
    aiohttp, botocore, urllib = map(_class, ("aiohttp.ClientResponseError", "botocore.ClientError", "urllib.HTTPError"))
    made = [aiohttp(), botocore(), urllib()]
    made[0].status = made[2].code = status
    made[1].response = {"ResponseMetadata": {"HTTPStatusCode": status}}
    return [
        httpx.HTTPStatusError("", request=REQUEST, response=response),
        VerityApiError("", status_code=status),
        *made,
    ]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Outcome.UNKNOWN),
        (303, Outcome.UNKNOWN),
        (402, Outcome.FAILED),
        (408, Outcome.UNKNOWN),
        (429, Outcome.FAILED),
        (500, Outcome.UNKNOWN),
        (504, Outcome.UNKNOWN),
    ],
)
def test_the_status_of_an_answer_decides(status: int, expected: Outcome) -> None:
    for error in _answered(status):
        assert classify(error, KEY) is expected, error


def test_an_answer_that_could_not_be_read_has_no_status() -> None:
    """aiohttp makes one up: 400 for an answer that is no HTTP, from the parser's error."""
    error = _class("aiohttp.ClientResponseError")()
    error.status = 400
    assert classify(error, KEY) is Outcome.FAILED
    error.__cause__ = _class("aiohttp.BadStatusLine")()
    assert classify(error, KEY) is Outcome.UNKNOWN


def test_botocore_retries_by_default_and_shows_the_last_attempt() -> None:
    for name in ("botocore.EndpointConnectionError", "botocore.ConnectTimeoutError"):
        assert classify(_class(name, _class("botocore.ConnectionError"))(), KEY) is Outcome.UNKNOWN
    error = _class("botocore.ClientError")()
    for retries, expected in ((0, Outcome.FAILED), (1, Outcome.UNKNOWN)):
        error.response = {"ResponseMetadata": {"HTTPStatusCode": 400, "RetryAttempts": retries}}
        assert classify(error, KEY) is expected


def test_an_answer_that_is_no_json() -> None:
    for read in (json.loads, lambda text: httpx.Response(200, text=text).json()):
        with pytest.raises(ValueError, match="Expecting value") as caught:
            read("<html>")
        assert classify(caught.value, KEY) is Outcome.UNKNOWN


class Code:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize(
    ("code", "expected"),
    [("UNAVAILABLE", Outcome.UNKNOWN), ("DEADLINE_EXCEEDED", Outcome.UNKNOWN), ("INVALID_ARGUMENT", Outcome.FAILED)],
)
def test_the_code_of_grpc_decides(code: str, expected: Outcome) -> None:
    error = _class("grpc.RpcError")()
    error.code = lambda: Code(code)
    assert classify(error, KEY) is expected


def test_an_error_without_its_status_is_ambiguous() -> None:
    for name in outcome.BY_STATUS:
        assert classify(_class(name)(), KEY) is Outcome.UNKNOWN, name


@pytest.mark.parametrize("name", sorted(outcome.BY_REASON))
def test_an_error_that_wraps_another_is_what_that_one_is(name: str) -> None:
    def wrap(reason: object) -> Any:
        error = _class(name)(reason)
        error.reason = error.original_error = reason
        return error

    assert classify(wrap(ConnectionRefusedError()), KEY) is Outcome.FAILED
    assert classify(wrap(ConnectionResetError()), KEY) is Outcome.UNKNOWN
    assert classify(wrap(OSError("a tunnel's")), KEY) is Outcome.UNKNOWN, "not known"
    assert classify(wrap("a text"), KEY) is Outcome.UNKNOWN
    assert classify(_class(name)(), KEY) is Outcome.UNKNOWN, "there is none"


def test_a_handlers_exception_comes_out_of_a_question() -> None:
    """The property of another library's error may run code."""

    class Interrupt(Exception):
        pass

    class Asked(_class("grpc.RpcError")):  # type: ignore[misc]  # a class made by a function
        def code(self) -> None:
            signal.raise_signal(signal.SIGUSR1)

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interrupt):
            classify(Asked(), KEY)
    finally:
        signal.signal(signal.SIGUSR1, before)


# --- what the caller says ---


class Mine(Exception):
    pass


class MyTimeout(Mine):
    pass


@pytest.mark.parametrize(
    ("error", "ambiguous", "definite", "expected"),
    [
        (Mine(), (Mine,), (), Outcome.UNKNOWN),
        (MyTimeout(), (Mine,), (), Outcome.UNKNOWN),
        (TimeoutError(), (), (TimeoutError,), Outcome.FAILED),
        (TimeoutError(), (), (Exception,), Outcome.FAILED),
        (MyTimeout(), (MyTimeout,), (Mine,), Outcome.UNKNOWN),
        (MyTimeout(), (Mine,), (MyTimeout,), Outcome.FAILED),
        (MyTimeout(), (Mine,), (Mine,), Outcome.UNKNOWN),
        (VerityConnectionError(), (), (VerityConnectionError,), Outcome.FAILED),
    ],
)
def test_the_callers_classes_win_and_the_closest_decides(
    error: Exception, ambiguous: Any, definite: Any, expected: Outcome
) -> None:
    assert classify(error, KEY, ambiguous, definite) is expected


# --- the chain of causes ---


def _raised(*chain: BaseException, by_cause: bool = True) -> Any:
    """The last one, each raised while the one before it was being handled."""
    before: BaseException | None = None
    for error in chain:
        if by_cause:
            error.__cause__ = before
        else:
            error.__context__ = before
        before = error
    return chain[-1]


@pytest.mark.parametrize("by_cause", [True, False])
def test_an_unknown_error_is_what_its_cause_is(by_cause: bool) -> None:
    assert classify(_raised(httpx.ReadTimeout(""), Mine(), by_cause=by_cause), KEY) is Outcome.UNKNOWN
    assert classify(_raised(TimeoutError(), KeyError(), Mine(), by_cause=by_cause), KEY) is Outcome.UNKNOWN
    assert classify(_raised(TimeoutError(), httpx.ConnectTimeout(""), by_cause=by_cause), KEY) is Outcome.FAILED
    assert classify(_raised(KeyError(), Mine(), by_cause=by_cause), KEY) is Outcome.FAILED
    wrapped = _raised(TimeoutError(), Mine(), by_cause=by_cause)
    assert classify(wrapped, KEY, definite=(Mine,)) is Outcome.FAILED
    assert classify(_raised(*(Mine() for _ in range(100)), by_cause=by_cause), KEY) is Outcome.FAILED


@pytest.mark.parametrize("by_cause", [True, False])
def test_an_earlier_attempt_may_have_happened(by_cause: bool) -> None:
    """The last one was made in the `except` block of the first one."""
    refused = (ConnectionRefusedError(), _class("httpcore.ConnectError")(), httpx.ConnectError(""))
    assert classify(_raised(httpx.ReadTimeout(""), *refused, by_cause=by_cause), KEY) is Outcome.UNKNOWN
    declined = _answered(409)[0]
    assert classify(_raised(httpx.ReadTimeout(""), declined, by_cause=by_cause), KEY) is Outcome.UNKNOWN
    assert classify(_raised(httpx.ReadTimeout(""), Mine(), by_cause=by_cause), KEY, (), (Mine,)) is Outcome.FAILED
    assert classify(_raised(*refused, httpx.ConnectTimeout(""), by_cause=by_cause), KEY) is Outcome.FAILED
    timed_out = (asyncio.CancelledError(), TimeoutError(), httpx.ConnectTimeout(""))
    assert classify(_raised(*timed_out, by_cause=by_cause), KEY) is Outcome.FAILED, "the connection's own time-out"


def test_an_earlier_attempt_may_have_timed_out_in_the_system() -> None:
    assert classify(_raised(TimeoutError(), socket.gaierror(), by_cause=False), KEY) is Outcome.UNKNOWN
    refused = _raised(socket.gaierror(), _class("aiohttp.ClientConnectorError")())
    assert classify(refused, KEY) is Outcome.FAILED
    refused.__context__ = TimeoutError()
    assert classify(refused, KEY) is Outcome.UNKNOWN


def test_a_retry_in_the_except_block() -> None:
    """With real chains: httpx and httpcore raise `from None` in between."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        slow, refusing = (f"http://127.0.0.1:{each.getsockname()[1]}/" for each in (server, taken))

        def post_twice() -> None:
            try:
                httpx.post(slow, timeout=0.05)
            except httpx.ReadTimeout:
                httpx.post(refusing)

        with pytest.raises(httpx.ConnectError) as caught:
            post_twice()
        assert classify(caught.value, KEY) is Outcome.UNKNOWN


@pytest.mark.parametrize("by_cause", [True, False])
def test_a_cancellation_that_act_turned_into_an_exception(by_cause: bool) -> None:
    for interrupt in (asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()):
        assert classify(_raised(interrupt, KeyError(), Mine(), by_cause=by_cause), KEY) is Outcome.UNKNOWN


def test_from_none_hides_the_context() -> None:
    error = _raised(TimeoutError(), Mine(), by_cause=False)
    error.__suppress_context__ = True
    assert classify(error, KEY) is Outcome.FAILED


def test_what_was_handled_before_the_call_says_nothing() -> None:
    outer = TimeoutError()
    assert classify(_raised(outer, Mine(), by_cause=False), KEY, outer=outer) is Outcome.FAILED


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no groups")
def test_a_group_is_ambiguous_if_one_of_it_is() -> None:
    group = getattr(sys.modules["builtins"], "ExceptionGroup", None)
    assert group is not None
    assert classify(group("", [KeyError(), httpx.ReadTimeout("")]), KEY) is Outcome.UNKNOWN
    assert classify(group("", [group("", [_raised(TimeoutError(), Mine())])]), KEY) is Outcome.UNKNOWN
    assert classify(group("", [KeyError(), ConnectionRefusedError()]), KEY) is Outcome.FAILED
    assert classify(group("", [NotExecuted()]), KEY) is Outcome.UNKNOWN, "the tasks beside it may have done things"


# --- Verity's own errors ---


def test_not_executed_of_the_act_itself() -> None:
    assert classify(NotExecuted("sold out"), KEY, ambiguous=(Exception,)) is Outcome.NOT_EXECUTED
    assert classify(NotExecuted(effect_key=KEY), KEY) is Outcome.NOT_EXECUTED


def test_not_executed_with_an_init_of_its_own() -> None:
    class SoldOut(NotExecuted):
        def __init__(self, item: str) -> None:
            self.item = item

    error = SoldOut("book")
    assert classify(error, KEY) is Outcome.NOT_EXECUTED
    mark_left(error, KEY)
    assert (error.effect_key, error.request_id) == (KEY, None)


def test_not_executed_of_another_effect_says_nothing_about_this_one() -> None:
    assert classify(NotExecuted(effect_key="another"), KEY) is Outcome.UNKNOWN
    error = NotExecuted()
    mark_left(error, KEY)
    assert error.effect_key == KEY
    assert classify(error, KEY) is Outcome.UNKNOWN, "of an effect with the same key in another namespace"


def test_an_error_keeps_the_key_of_the_effect_that_it_is_about() -> None:
    error = OutcomeUnknown()
    mark_left(error, KEY)
    mark_left(error, "of an outer effect")
    assert error.effect_key == KEY


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OutcomeUnknown(), Outcome.UNKNOWN),
        (OutcomeUnknownError(), Outcome.UNKNOWN),
        (CommitUncertainError(), Outcome.UNKNOWN),
        (ObserveFailedError(), Outcome.UNKNOWN),
        (LeaseConflictError(status_code=409), Outcome.UNKNOWN),
        (VerityConnectionError(), Outcome.UNKNOWN),
        (VerityApiError(status_code=503), Outcome.UNKNOWN),
        (VerityApiError(status_code=403), Outcome.FAILED),
        (EffectPreviouslyFailedError(), Outcome.FAILED),
    ],
    ids=repr,
)
def test_an_inner_effects_error_is_as_certain_as_that_effect(error: Exception, expected: Outcome) -> None:
    assert classify(error, KEY) is expected


# --- the page ---


def test_the_page_shows_the_tables() -> None:
    page = (ROOT / "docs" / "outcomes.md").read_text(encoding="utf-8")
    tables = {
        "may have happened": outcome.AMBIGUOUS,
        "has not happened": outcome.DEFINITE,
        "the error inside": outcome.BY_REASON,
        "the status": outcome.BY_STATUS,
    }
    for title, names in tables.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {title}"))
        shown = {name for name in row.split("`") if (name[:1].isalpha() and "." in name) or name.endswith("Error")}
        assert shown == {name.removeprefix("builtins.") for name in names}, title
