"""`verity serve` over HTTPS, with certificates made here, and what it says of files that can't be used."""

from __future__ import annotations

import signal
import socket
import ssl
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import trustme

from tests.helpers.verity_process import run_verity, serving
from tests.server.test_connections import until_closed
from tests.server.test_serve import client_of, lease, new_key, one_line


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate, its key, another key, an encrypted key, a text."""
    directory = tmp_path_factory.mktemp("tls")
    mine, other = authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("localhost")
    with (directory / "cert.pem").open("wb") as file:
        for part in mine.cert_chain_pems:
            file.write(part.bytes())
    mine.private_key_pem.write_to_path(directory / "key.pem")
    other.private_key_pem.write_to_path(directory / "other.pem")
    (directory / "encrypted.pem").write_bytes(encrypt(mine.private_key_pem.bytes()))
    (directory / "text.pem").write_text("This is a letter.")
    (directory / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    return {file.stem: str(file) for file in directory.iterdir()}


def encrypt(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    )


def test_https(authority: trustme.CA, files: dict[str, str], tmp_path: Path) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serving(tmp_path, "--tls-cert", files["cert"], "--tls-key", files["key"], scheme="https") as server:
        headers = {"Authorization": f"Bearer {new_key(tmp_path)}"}
        with httpx.Client(base_url=server.base_url, headers=headers, verify=context) as client:
            grant = lease(client, "over TLS")
            assert client.post("/effects/payments/commit", json={**grant, "result": 1}).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(server.base_url)
        with pytest.raises(httpx.RemoteProtocolError):
            client_of(server.base_url.replace("https", "http"), "x").get("/effects")


def test_a_handshake_that_stops_is_cut_off(files: dict[str, str], tmp_path: Path) -> None:
    options = ["--tls-cert", files["cert"], "--tls-key", files["key"], "--header-timeout", "0.3"]
    with (
        serving(tmp_path, *options, scheme="https") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        connection.sendall(b"\x16\x03\x01")
        assert until_closed(connection) == b""


@pytest.mark.parametrize("how", ["answered", "fresh", "in its handshake"])
def test_a_server_that_stops_waits_for_no_idle_client(
    how: str, authority: trustme.CA, files: dict[str, str], tmp_path: Path
) -> None:
    """Who says nothing does not say goodbye either, as TLS asks for. (A drain that is used up is logged.)"""
    new_key(tmp_path)  # makes the ledger, of which a new one is told in the log
    options = [
        "--tls-cert",
        files["cert"],
        "--tls-key",
        files["key"],
        "--drain-timeout",
        "20",
        "--header-timeout",
        "60",
    ]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serving(tmp_path, *options, scheme="https") as server, ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        if how == "in its handshake":
            connection.sendall(b"\x16\x03\x01")
            healthz = server.base_url.replace("/v1", "/healthz")
            assert httpx.get(healthz, verify=context).status_code == 200  # accepted after it
        else:
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname="127.0.0.1"))
        if how == "answered":
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
        server.send(signal.SIGTERM)
        assert server.wait() == 0
        assert server.log == ""
        assert until_closed(connection) == b""


def test_a_handshake_makes_room_for_the_next(authority: trustme.CA, files: dict[str, str], tmp_path: Path) -> None:
    """Who only begins them takes no place that a client could have."""
    options = ["--tls-cert", files["cert"], "--tls-key", files["key"], "--max-connections", "2"]
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serving(tmp_path, *options, "--header-timeout", "60", scheme="https") as server, ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30)) for _ in range(5)
        ]
        healthz = server.base_url.replace("/v1", "/healthz")
        assert httpx.get(healthz, verify=context, timeout=30).status_code == 200
        assert [until_closed(each) for each in silent[:3]] == [b""] * 3


def test_an_encrypted_key(
    authority: trustme.CA, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VERITY_TLS_KEY_PASSWORD", "open sesame")
    with serving(tmp_path, "--tls-cert", files["cert"], "--tls-key", files["encrypted"], scheme="https") as server:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        assert httpx.get(server.base_url.replace("/v1", "/healthz"), verify=context).status_code == 200


@pytest.mark.parametrize(
    ("certificate", "key", "says"),
    [
        ("missing", "key", "certificate 'missing' can't be read: No such file"),
        ("cert", "missing", "key 'missing' can't be read: No such file"),
        ("text", "key", "is not a PEM file"),
        ("cert", "text", "is not a PEM file"),
        ("broken", "key", "can't be used"),
        ("cert", "other", "is not the key of the certificate"),
        ("cert", "encrypted", "VERITY_TLS_KEY_PASSWORD is missing"),
        ("cert", "cert", "can't be used"),
    ],
)
def test_files_that_cannot_be_used(
    certificate: str, key: str, says: str, files: dict[str, str], tmp_path: Path
) -> None:
    done = run_verity(
        *("serve", "--database", f"sqlite:///{tmp_path}/v.db", "--port", "0"),
        *("--tls-cert", files.get(certificate, certificate), "--tls-key", files.get(key, key)),
    )
    assert (done.returncode, done.stdout) == (5, "")
    assert says in one_line(done.stderr)


def test_a_wrong_password(files: dict[str, str], tmp_path: Path) -> None:
    done = run_verity(
        *("serve", "--database", f"sqlite:///{tmp_path}/v.db", "--port", "0"),
        *("--tls-cert", files["cert"], "--tls-key", files["encrypted"]),
        VERITY_TLS_KEY_PASSWORD="close barley",
    )
    assert done.returncode == 5
    assert "VERITY_TLS_KEY_PASSWORD is wrong" in one_line(done.stderr)
    assert "barley" not in done.stderr


def test_one_file_alone(files: dict[str, str], tmp_path: Path) -> None:
    done = run_verity("serve", "--database", f"sqlite:///{tmp_path}/v.db", "--tls-cert", files["cert"])
    assert done.returncode == 2
    assert "--tls-cert and --tls-key go together" in done.stderr
