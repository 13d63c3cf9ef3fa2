from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.process import on_terminal, run_verity, serving
from verity import __version__
from verity.server.api_keys import is_well_formed
from verity.server.cli import _EXTRA

ROOT = Path(__file__).parents[2]


def test_version_and_help() -> None:
    assert run_verity("--version").stdout == f"verity {__version__}\n"
    text = run_verity("--help").stdout
    for word in ("demo", "keys", "serve", "Exit codes"):
        assert word in text
    for command in ("demo", "keys", "serve"):
        assert run_verity(command, "--help").returncode == 0


def test_keys_are_made_listed_and_revoked_while_a_server_runs(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/verity.db"
    with serving(tmp_path) as server:
        made = run_verity(
            "keys", "create", "--database", database, "--environment", "test", "--role", "org_admin",
            "--namespace", "payments", "--namespace", "mail", "--expires-in", "90d", "--name", "ops\tkey",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        key = made.stdout.removesuffix("\n")
        assert is_well_formed(key)
        assert key.startswith("vt_test_")
        assert key not in made.stderr
        key_id = re.search(r"key_[0-9a-f]{16}", made.stderr)
        assert key_id is not None

        listed = run_verity("keys", "list", "--database", database, "--json").stdout
        assert key not in listed
        row = json.loads(listed)
        assert (row["id"], row["state"], row["role"]) == (key_id[0], "active", "org_admin")
        assert row["namespaces"] == ["mail", "payments"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["createdAt"]), "as all times are written"
        assert key_id[0] in on_terminal("keys", "list", "--database", database, COLUMNS="80")[1], "in one piece"
        header, line = run_verity("keys", "list", "--database", database).stdout.splitlines()
        assert len(header.split("\t")) == len(line.split("\t"))

        with httpx.Client(base_url=server.base_url, headers={"Authorization": f"Bearer {key}"}) as client:
            assert client.get("/namespaces").status_code == 200
            revoked = run_verity("keys", "revoke", "--database", database, key_id[0])
            assert (revoked.returncode, revoked.stdout) == (0, "")
            while client.get("/namespaces").status_code == 200:
                pass  # within a second; test_auth.py measures it on a clock of its own
            assert client.get("/namespaces").status_code == 401
    assert json.loads(run_verity("keys", "list", "--database", database, "--json").stdout)["state"] == "revoked"


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    done = run_verity("keys", "revoke", "--database", f"sqlite:///{tmp_path}/v.db", "key_0")
    assert done.returncode == 1
    assert "no key with this id" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--environment", "staging"],
        ["--environment", "test", "--role", "king"],
        ["--environment", "test", "--expires-in", "soon"],
        ["--environment", "test", "--expires-in", "0d"],
        ["--environment", "test", "--expires-in", "999999w"],  # no date that `verity keys list` could show
        ["--environment", "test", "--namespace", "a/b"],
    ],
)
def test_wrong_keys_are_not_made(arguments: list[str], tmp_path: Path) -> None:
    done = run_verity("keys", "create", "--database", f"sqlite:///{tmp_path}/v.db", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert not (tmp_path / "v.db").exists()


@pytest.mark.parametrize("missing", ["click", "uvicorn", "jsonschema_rs", "httptools"])
def test_without_the_extra_it_says_what_to_install(missing: str, tmp_path: Path) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from verity.server.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--database", f"sqlite:///{tmp_path}/v.db"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install 'verityinc-sdk[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_extra_is_the_one_that_is_declared() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    extra = text.partition("\nserver = [")[2].partition("]")[0]
    assert {name.replace("-", "_") for name in re.findall(r'"([\w-]+)', extra)} >= _EXTRA


def test_the_entry_point_imports_nothing_of_the_extra() -> None:
    program = "import sys, verity.server.cli; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not _EXTRA & set(done.stdout.split())
