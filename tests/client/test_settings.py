"""The constructors: defaults, fall-backs, and wrong values, named before anything is sent."""

from __future__ import annotations

import logging
import socket
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import httpx
import pytest

import verity
from verity import (
    CommitUncertainError,
    ConflictRetryConfig,
    SyncVerityClient,
    VerityClient,
    VerityConfigError,
    config,
)

CLIENTS = [VerityClient, SyncVerityClient]
URL = "https://ledger.example.com/v1"


@pytest.fixture(params=CLIENTS, ids=["async", "sync"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize(
    ("arguments", "parameter", "said"),
    [
        ({"base_url": ""}, "base_url", "VERITY_BASE_URL"),
        ({"base_url": "ledger.example.com/v1"}, "base_url", "absolute URL"),
        ({"base_url": "ftp://x/v1"}, "base_url", "absolute URL"),
        ({"base_url": "https:///v1"}, "base_url", "absolute URL"),
        ({"base_url": "https://user:secret@x/v1"}, "base_url", "without credentials"),
        ({"base_url": "https://x/v1?a=1"}, "base_url", "without"),
        ({"base_url": "https://x:port/v1"}, "base_url", "Invalid port"),
        ({"base_url": "https://x:65536/v1"}, "base_url", "65535"),
        ({"base_url": "https://[::1/v1"}, "base_url", "not a URL"),
        ({"base_url": "https://\u200b/v1"}, "base_url", "U+200B (zero width space) at position 9 of 12"),
        ({"base_url": "sqlite:///ledger.db\r"}, "base_url", "ends with U+000D (carriage return)"),
        ({"base_url": "sqlite:///ledger.db\n"}, "base_url", "ends with U+000A (line feed)"),
        ({"base_url": "sqlite:///ledger.db "}, "base_url", "ends with U+0020 (space)"),
        ({"base_url": "\ufeffsqlite:///ledger.db"}, "base_url", "begins with U+FEFF (zero width no-break space)"),
        ({"base_url": "sqlite:///led\u00a0ger.db"}, "base_url", "U+00A0 (no-break space) at position 14 of 20"),
        ({"base_url": '"sqlite:///ledger.db"'}, "base_url", "quotation mark"),
        ({"base_url": 'sqlite:///ledger.db"'}, "base_url", "quotation mark"),
        ({"base_url": f"{URL}\t"}, "base_url", "ends with U+0009 (tab)"),
        ({"base_url": f"'{URL}'"}, "base_url", "quotation mark"),
        ({"api_key": "'vt_test_a'"}, "api_key", "quotation mark"),
        ({"api_key": "vt_test_a\u200b"}, "api_key", "U+200B (zero width space) at position 10"),
        ({"namespace": "payments\r"}, "namespace", "control characters"),
        ({"namespace": "payments "}, "namespace", "ends with U+0020 (space)"),
        ({"namespace": "\u200bpayments"}, "namespace", "begins with U+200B (zero width space)"),
        ({"namespace": "'payments'"}, "namespace", "quotation mark"),
        ({"base_url": 7}, "base_url", "a string"),
        ({"base_url": "sqlite:/x.db"}, "base_url", "sqlite:///"),
        ({"base_url": "sqlite:////no/such/dir/x.db"}, "base_url", "does not exist"),
        ({"api_key": ""}, "api_key", "non-empty"),
        ({"api_key": "vt_test_a b"}, "api_key", "visible ASCII"),
        ({"api_key": "vt_test_a\n"}, "api_key", "visible ASCII"),
        ({"api_key": 7}, "api_key", "visible ASCII"),
        ({"namespace": ""}, "namespace", "empty"),
        ({"namespace": ".."}, "namespace", "path"),
        ({"namespace": "a/b"}, "namespace", "path"),
        ({"agent_id": ""}, "agent_id", "empty"),
        ({"auto_renew": "yes"}, "auto_renew", "True or False"),
        ({"renew_at_fraction": 0.29}, "renew_at_fraction", "0.3 to 0.9"),
        ({"renew_at_fraction": 0.91}, "renew_at_fraction", "0.3 to 0.9"),
        ({"renew_at_fraction": float("nan")}, "renew_at_fraction", "0.3 to 0.9"),
        ({"renew_at_fraction": "0.5"}, "renew_at_fraction", "0.3 to 0.9"),
        ({"request_timeout_s": 0}, "request_timeout_s", "above 0"),
        ({"request_timeout_s": True}, "request_timeout_s", "above 0"),
        ({"request_timeout_s": sys.maxsize}, "request_timeout_s", "at most 1,000,000,000"),
        ({"conflict_retry": {"max_attempts": 3}}, "conflict_retry", "ConflictRetryConfig"),
        ({"logger": "verity"}, "logger", "logging.Logger"),
        ({"on_observe_error": "ignore"}, "on_observe_error", '"raise" or "act"'),
        ({"spool": ""}, "spool", "the path of a file, or False"),
        ({"spool": True}, "spool", "the path of a file, or False"),
        ({"spool": 7}, "spool", "the path of a file, or False"),
        ({"spool": b"x"}, "spool", "the path of a file, or False"),
        ({"spool": "x.spool\n"}, "spool", "ends with U+000A (line feed)"),
        ({"spool": "/no/such/directory/x.spool"}, "spool", "No such file or directory"),
        ({"spool_when": "never"}, "spool_when", '"trouble" or "always"'),
        ({"transport": "x"}, "transport", "httpx."),
        ({"http_client": "x"}, "http_client", "httpx."),
    ],
)
def test_a_wrong_setting_is_named(kind: Any, arguments: dict[str, Any], parameter: str, said: str) -> None:
    with pytest.raises(VerityConfigError) as caught:
        kind(**{"base_url": URL, "api_key": "vt_test_x", **arguments})
    assert caught.value.parameter == parameter
    assert parameter in str(caught.value) or str(arguments[parameter]).startswith("sqlite")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "vt_test_a" not in str(caught.value)


def test_the_wrong_colour_of_httpx_is_refused() -> None:
    with pytest.raises(VerityConfigError, match=r"must be an httpx\.AsyncClient, not Client"):
        VerityClient(URL, "vt_test_x", http_client=httpx.Client())  # type: ignore[arg-type]  # that is the point
    with pytest.raises(VerityConfigError, match=r"must be an httpx\.BaseTransport, not AsyncHTTPTransport"):
        SyncVerityClient(URL, "vt_test_x", transport=httpx.AsyncHTTPTransport())  # type: ignore[arg-type]


def test_parts_that_exclude_each_other() -> None:
    with httpx.Client() as http, pytest.raises(VerityConfigError, match="not both"):
        SyncVerityClient(URL, "vt_test_x", http_client=http, transport=httpx.HTTPTransport())
    with httpx.Client() as http, pytest.raises(VerityConfigError, match="sends no HTTP"):
        SyncVerityClient("sqlite://", http_client=http)


def test_a_missing_address_or_key_says_where_it_can_be_set(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERITY_BASE_URL", raising=False)
    monkeypatch.delenv("VERITY_API_KEY", raising=False)
    with pytest.raises(VerityConfigError, match="VERITY_BASE_URL"):
        kind(api_key="vt_test_x")
    with pytest.raises(VerityConfigError, match="VERITY_API_KEY"):
        kind(base_url=URL)


def test_the_environment_is_the_fall_back(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERITY_BASE_URL", URL)
    monkeypatch.setenv("VERITY_API_KEY", "vt_live_env")
    client = kind()
    assert client._settings.base_url == URL
    assert client._settings.api_key == "vt_live_env"
    assert kind(base_url="https://other/v1/")._settings.base_url == "https://other/v1"
    assert kind(api_key="vt_live_own")._settings.api_key == "vt_live_own"


def test_a_wrong_variable_is_named(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERITY_BASE_URL", f"{URL}\r")
    with pytest.raises(VerityConfigError, match=r"^VERITY_BASE_URL .* ends with U\+000D \(carriage return\)") as caught:
        kind(api_key="vt_test_x")
    assert caught.value.parameter == "base_url"
    monkeypatch.setenv("VERITY_API_KEY", "vt_test_secret\n")
    with pytest.raises(VerityConfigError, match=r"^VERITY_API_KEY .* U\+000A \(line feed\) at position 15") as caught:
        kind(URL)
    assert "secret" not in str(caught.value)


def test_the_spool_of_the_environment_is_used_unless_it_is_switched_off(
    kind: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VERITY_SPOOL", str(tmp_path / "one"))
    assert kind(URL, "vt_test_x")._settings.spool == str(tmp_path / "one")
    assert (tmp_path / "one").exists()
    assert kind(URL, "vt_test_x", spool=tmp_path / "two")._settings.spool == str(tmp_path / "two")
    assert kind(URL, "vt_test_x", spool=False)._settings.spool is None
    monkeypatch.setenv("VERITY_SPOOL", "")
    assert kind(URL, "vt_test_x")._settings.spool is None
    monkeypatch.setenv("VERITY_SPOOL", f"{tmp_path}/three\r")
    with pytest.raises(VerityConfigError, match=r"^VERITY_SPOOL \(spool\) ends with U\+000D"):
        kind(URL, "vt_test_x")


def test_names_that_only_look_strange_are_names(kind: Any, tmp_path: Path) -> None:
    """A blank inside of a path, a name in any script, an apostrophe at its end."""
    odd = tmp_path / "Meine Daten \U0001f4b6"
    odd.mkdir()
    for namespace in ("payments eu", "\u0645\u06cc\u200c\u0634\u0648\u062f", "drivers'", "\u65e5\u672c"):
        assert kind(f"sqlite:///{odd}/v.db", namespace=namespace)._settings.namespace == namespace


class Setting(str, Enum):
    URL = "https://ledger.example.com/v1"
    KEY = "vt_test_x"
    NAME = "payments"
    ACT = "act"


def test_settings_of_the_users_own_types_are_made_plain(kind: Any) -> None:
    settings = kind(Setting.URL, Setting.KEY, Setting.NAME, Setting.NAME, on_observe_error=Setting.ACT)._settings
    texts = (
        settings.base_url,
        settings.api_key,
        settings.namespace,
        settings.agent_id,
        settings.policy.on_observe_error,
    )
    assert texts == (URL, "vt_test_x", "payments", "payments", "act")
    assert {type(text) for text in texts} == {str}
    assert type(ConflictRetryConfig(max_attempts=socket.AF_INET).max_attempts) is int


def test_an_embedded_ledger_takes_its_environment_from_no_variable(
    kind: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The variable is there for another program, or for another ledger of this one."""
    monkeypatch.setattr(config, "_warned", set())  # as in a new process: what it has warned of is its own state
    monkeypatch.setenv("VERITY_API_KEY", "vt_test_secret")
    clients = [
        kind("sqlite://"),
        kind("sqlite://"),
        kind("sqlite://", "vt_test_secret"),
        kind("sqlite://", "vt_live_x"),
    ]
    assert [client._settings.environment for client in clients] == ["live", "live", "test", "live"]
    assert ["VERITY_API_KEY" in record.getMessage() for record in caplog.records] == [True], "once, where it is unused"
    assert "secret" not in caplog.text
    monkeypatch.setenv("VERITY_API_KEY", "no key at all\n")
    assert kind("sqlite://")._settings.environment == "live"


def test_an_embedded_ledger_needs_no_key_and_takes_its_environment_from_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERITY_API_KEY", raising=False)
    with SyncVerityClient("sqlite://") as client:
        assert client._settings.environment == "live"
    with SyncVerityClient("sqlite://", "vt_test_x") as client:
        assert client._settings.environment == "test"


def test_environments_of_one_file_are_apart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/v.db"
    with SyncVerityClient(url, "vt_live_x", "n") as live, SyncVerityClient(url, "vt_test_x", "n") as test:
        assert live.protect("k", act=lambda: "live") == "live"
        assert test.protect("k", act=lambda: "test") == "test"


def test_the_given_parts_are_used(kind: Any) -> None:
    logger = logging.getLogger("mine")
    retry = ConflictRetryConfig(max_attempts=1)
    client = kind(URL, "vt_test_x", logger=logger, conflict_retry=retry, renew_at_fraction=0.9)
    assert client._settings.logger is logger
    assert client._settings.conflict_retry is retry
    default = kind(URL, "vt_test_x")
    assert default._settings.logger.name == "verity"
    assert default._settings.conflict_retry == ConflictRetryConfig()


def test_no_repr_shows_the_key(kind: Any) -> None:
    client = kind(URL, "vt_test_secret", "payments")
    for shown in (repr(client), repr(client._settings), repr(client._ledger._sender), repr(client._ledger.api)):
        assert "vt_test_secret" not in shown


def test_the_exports_are_sorted_and_real() -> None:
    assert verity.__all__ == sorted(verity.__all__)
    for name in verity.__all__:
        assert getattr(verity, name) is not None
    assert dir(verity) == verity.__all__
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        verity.Nothing  # noqa: B018 - that is the point


def _answer(request: httpx.Request) -> httpx.Response:
    if request.url.path.endswith("/lease"):
        return httpx.Response(200, json={"status": "granted", "fenceToken": 1, "leaseToken": "t", "priorState": "none"})
    return httpx.Response(200, json={"status": "accepted"})


def test_a_callers_own_parts_are_used_and_stay_open() -> None:
    with httpx.Client(transport=httpx.MockTransport(_answer), headers={"X-Mine": "1"}) as http:
        with SyncVerityClient(URL, "vt_test_x", "n", http_client=http) as client:
            assert client.protect("k", act=lambda: 1) == 1
        assert not http.is_closed
    with SyncVerityClient(URL, "vt_test_x", "n", transport=httpx.MockTransport(_answer)) as client:
        assert client.protect("k", act=lambda: 1) == 1


class ReadsContent(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Looks at what is sent without `request.read()`, which below httpx's own client is not needed."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.content)
        return _answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_callers_own_transport_may_look_at_the_content() -> None:
    transport = ReadsContent()
    with SyncVerityClient(URL, "vt_test_x", "n", transport=transport) as client:
        assert client.protect("k", act=lambda: 1) == 1
    async with VerityClient(URL, "vt_test_x", "n", transport=transport) as async_client:
        assert await async_client.protect("k", act=lambda: 1) == 1
    assert transport.seen[0] == transport.seen[2] == b'{"effectKey":"k"}'


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_async_callers_own_client_is_used_and_stays_open() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(_answer)) as http:
        client = VerityClient(URL, "vt_test_x", "n", http_client=http)
        assert await client.protect("k", act=lambda: 1) == 1
        await client.aclose()
        await client.close()
        assert not http.is_closed


def _redirect(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/status":
        return httpx.Response(200, json={"status": "all is well"})
    if request.url.path.endswith("/commit"):
        return httpx.Response(301, headers={"location": "/status"})
    return _answer(request)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_page_that_a_callers_own_client_was_redirected_to_confirms_nothing() -> None:
    """After a 301, 302 or 303 it is asked for with GET: nobody has read the commit."""
    settings: Any = {"transport": httpx.MockTransport(_redirect), "follow_redirects": True}
    with (
        httpx.Client(**settings) as http,
        SyncVerityClient(URL, "vt_test_x", "n", http_client=http) as client,
        pytest.raises(CommitUncertainError, match="HTTP 301"),
    ):
        client.protect("k", act=lambda: 1)
    async with (
        httpx.AsyncClient(**settings) as async_http,
        VerityClient(URL, "vt_test_x", "n", http_client=async_http) as async_client,
    ):
        with pytest.raises(CommitUncertainError, match="HTTP 301"):
            await async_client.protect("k", act=lambda: 1)


def test_every_request_has_its_headers_and_its_timeout() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return _answer(request)

    with SyncVerityClient(
        "https://ledger.example.com:8443/v1/",
        "vt_test_x",
        "n",
        request_timeout_s=3,
        transport=httpx.MockTransport(answer),
    ) as client:
        client.protect("k", act=lambda: 1)
    for request in seen:
        assert request.url.host == "ledger.example.com"
        assert request.url.path.startswith("/v1/effects/n/")
        assert request.headers["host"] == "ledger.example.com:8443"
        assert request.headers["authorization"] == "Bearer vt_test_x"
        assert request.headers["content-type"] == "application/json"
        assert int(request.headers["content-length"]) == len(request.content)
        assert request.headers["user-agent"] == f"verity-python/{verity.__version__}"
        assert request.extensions["timeout"] == {"connect": 3, "read": 3, "write": 3, "pool": 3}


def test_a_proxy_of_the_environment_is_used_unless_bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    from verity._sync.sender import _proxy_for

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert _proxy_for(httpx.URL(URL)) is None
    monkeypatch.setenv("https_proxy", "proxy.example.com:3128")
    assert _proxy_for(httpx.URL(URL)) == "http://proxy.example.com:3128"
    assert _proxy_for(httpx.URL("http://ledger.example.com")) is None
    monkeypatch.setenv("all_proxy", "socks5://proxy:1080")
    assert _proxy_for(httpx.URL("http://ledger.example.com")) == "socks5://proxy:1080"
    monkeypatch.setenv("no_proxy", "ledger.example.com")
    assert _proxy_for(httpx.URL(URL)) is None
    SyncVerityClient("http://127.0.0.1:9/v1", "vt_test_x")
