"""Private names of other packages: a copy of the package is renamed, and then nothing starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.renamed_packages import rename, run, run_and_log

CLIENTS = """
import os
os.environ["http_proxy"] = {proxy!r}
from verity import SyncVerityClient, VerityClient
from verity.errors import VerityConfigError
for client in (VerityClient, SyncVerityClient):
    try:
        client("http://ledger.example/v1", api_key="vt_test_1")
    except VerityConfigError as error:
        print(error.parameter, error)
"""

# package, file, name, through which proxy
HTTP = [
    ("httpx", "_transports/default.py", "_pool", ""),
    ("httpcore", "_{colour}/connection.py", "_connection", ""),
    ("httpcore", "_{colour}/http11.py", "_h11_state", ""),
    ("httpcore", "_{colour}/connection_pool.py", "_network_backend", "http://127.0.0.1:1"),
    ("httpcore", "_{colour}/http_proxy.py", "_connection", "http://127.0.0.1:1"),
]

TWICE = """
import anyio, httpx
from tests.client.test_slow_answers import _answer_twice, _request, _server
from verity._async.connection import AsyncOneConnectionTransport

async def main():
    with _server(_answer_twice) as address:
        transport = AsyncOneConnectionTransport(ssl_context=False)
        print(await (await transport.handle_async_request(_request(address, 30.0))).aread())
        try:
            print(await (await transport.handle_async_request(_request(address, 0.2))).aread())
        except httpx.ReadTimeout:
            print("the next request has a new connection")
        await transport.aclose()

anyio.run(main)
"""

THREAD = """
import asyncio, logging, threading
logging.basicConfig(format="%(levelname)s %(message)s")
{rename}
from verity import VerityClient

async def main():
    async with VerityClient("sqlite://", namespace="n") as client:
        for key in "ab":
            print(await client.protect(key, act=lambda: 1))

asyncio.run(main())
"""


@pytest.mark.parametrize(("package", "file", "name", "proxy"), HTTP, ids=[f"{each[1]}-{each[2]}" for each in HTTP])
def test_no_client_is_made_with_a_library_that_has_renamed_what_it_uses(
    package: str, file: str, name: str, proxy: str, tmp_path: Path
) -> None:
    rename(package, file, name, tmp_path)
    lines = run(CLIENTS.format(proxy=proxy), tmp_path).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"{package} {package} ")
        assert f".{name}," in line
        assert f"Install '{package}>=" in line


@pytest.mark.parametrize(("file", "name"), [("connection.py", "_connection"), ("http11.py", "_h11_state")])
def test_a_connection_that_does_not_show_what_came_is_not_used_again(file: str, name: str, tmp_path: Path) -> None:
    """Also where nobody has checked the names, as below the client."""
    rename("httpcore", "_{colour}/" + file, name, tmp_path)
    assert run(TWICE, tmp_path) == "b'{}'\nthe next request has a new connection\n"


@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
def test_with_the_installed_ones_they_are(proxy: str) -> None:
    assert run(CLIENTS.format(proxy=proxy)) == ""


@pytest.mark.parametrize(
    ("name", "renaming"),
    [("WorkerThread.stop", ""), ("threading._register_atexit", "del threading._register_atexit")],
)
def test_that_idle_threads_may_keep_a_process_from_ending_is_told(name: str, renaming: str, tmp_path: Path) -> None:
    """No effect is at risk, so that nothing is refused."""
    if not renaming:
        rename("anyio", "_backends/_asyncio.py", "stop", tmp_path)
    out, told = run_and_log(THREAD.format(rename=renaming), tmp_path)
    assert out == "1\n1\n"
    assert told.count("WARNING") == 1
    assert name in told
