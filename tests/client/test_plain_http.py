"""A client whose key would travel in the clear says so, once for each host."""

from __future__ import annotations

import logging

import pytest

from verity import SyncVerityClient, VerityClient

KEY = "vt_test_x"


@pytest.mark.parametrize("client", [VerityClient, SyncVerityClient])
def test_once_for_each_host(client: type, caplog: pytest.LogCaptureFixture) -> None:
    host = f"ledger.{client.__name__.lower()}.example"
    for url in (f"http://{host}/v1", f"http://{host}:8420/v1", f"http://other.{host}/v1", f"http://{host}/v1"):
        client(url, KEY)
    messages = [record.getMessage() for record in caplog.records]
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert host in messages[0]
    assert "https://" in messages[0]
    assert f"other.{host}" in messages[1]
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "https://ledger.example/v1",
        "http://127.0.0.1:8420/v1",
        "http://127.9.9.9/v1",
        "http://localhost/v1",
        "http://ledger.localhost/v1",
        "http://[::1]:8420/v1",
        "sqlite://",
    ],
)
def test_not_where_nobody_listens(url: str, caplog: pytest.LogCaptureFixture) -> None:
    SyncVerityClient(url, KEY).close()
    assert not caplog.records


@pytest.mark.parametrize("url", ["http://10.0.0.7/v1", "http://[fd00::1]/v1", "http://localhost.example/v1"])
def test_a_private_network_is_not_loopback(url: str, caplog: pytest.LogCaptureFixture) -> None:
    SyncVerityClient(url, KEY)
    assert len(caplog.records) == 1


def test_the_clients_own_logger_is_told(caplog: pytest.LogCaptureFixture) -> None:
    SyncVerityClient("http://own-logger.example/v1", KEY, logger=logging.getLogger("mine"))
    assert [record.name for record in caplog.records] == ["mine"]
