"""Several nodes on one PostgreSQL."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import httpx

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.verity_process import run_verity, serving


def is_refused(client: httpx.Client) -> bool:
    return client.get("/namespaces").status_code != 200


def test_a_key_is_revoked_on_every_node(postgres_url: str, tmp_path: Path) -> None:
    """Within a second: test_auth.py holds a node to that on a clock of its own."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        serving(tmp_path / "one", "--database", postgres_url) as one,
        serving(tmp_path / "two", "--database", postgres_url) as two,
    ):
        made = run_verity("keys", "create", "--database", postgres_url, "--environment", "test")
        assert made.returncode == 0, made.stderr
        headers = {"Authorization": f"Bearer {made.stdout.strip()}"}
        (listed,) = run_verity("keys", "list", "--database", postgres_url, "--json").stdout.splitlines()
        with (
            httpx.Client(base_url=one.base_url, headers=headers) as at_one,
            httpx.Client(base_url=two.base_url, headers=headers) as at_two,
        ):
            lease = at_one.post("/effects/payments/lease", json={"effectKey": "k"})
            assert lease.json()["status"] == "granted"
            assert at_two.post("/effects/payments/lease", json={"effectKey": "k"}).status_code == 409
            run_verity("keys", "revoke", "--database", postgres_url, json.loads(listed)["id"])
            for client in (at_one, at_two):
                sync_until(partial(is_refused, client), OF_PROCESSES_S)
                assert client.get("/namespaces").status_code == 401
