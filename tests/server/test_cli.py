from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from tests.helpers.concurrency import OF_PROCESSES_S, sync_until
from tests.helpers.verity_process import on_terminal, run_verity, serving
from verity import __version__
from verity.cli import _EXTRA
from verity.cli.group import cli
from verity.cli.texts import read_setting
from verity.server.api_keys import is_well_formed

ROOT = Path(__file__).parents[2]


def test_version_and_help() -> None:
    assert run_verity("--version").stdout == f"verity {__version__}\n"
    text = run_verity("--help").stdout
    for word in ("demo", "keys", "serve", "Exit codes"):
        assert word in text
    for command in ("demo", "keys", "serve"):
        assert run_verity(command, "--help").returncode == 0


SETTINGS = {
    "VERITY_DATABASE": ["keys", "list"],
    "VERITY_BASE_URL": ["effects", "list"],
    "VERITY_HOST": ["serve", "--database", "sqlite:///x.db"],
    "VERITY_TLS_CERT": ["serve", "--database", "sqlite:///x.db"],
    "VERITY_TLS_KEY": ["serve", "--database", "sqlite:///x.db"],
}


@pytest.mark.parametrize("char", ["\r", "\n", " ", "\u200b", "\u00a0", '"'])
@pytest.mark.parametrize("variable", SETTINGS)
def test_a_variable_with_what_nobody_can_see_is_refused(
    variable: str, char: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value = f"postgresql://u:hunter2@127.0.0.1/x{char}" if variable == "VERITY_DATABASE" else f"sqlite:///x.db{char}"
    done = CliRunner().invoke(cli, SETTINGS[variable], env={variable: value})
    assert done.exit_code == 2, done.output
    assert f"{variable} begins or ends" in done.stderr if char == '"' else f"{variable} ends with U+" in done.stderr
    assert "hunter2" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_option_with_what_nobody_can_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["keys", "list"], ["effects", "list"], ["migrate"], ["purge", "--older-than", "1d"], ["serve"]):
        done = CliRunner().invoke(cli, [*command, "--database", "sqlite:///ledger.db\r"], env={"VERITY_BASE_URL": ""})
        assert done.exit_code == 2, done.output
        assert "--database ends with U+000D (carriage return)" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_password_with_a_line_end_is_named_and_not_shown() -> None:
    command = ["serve", "--database", "sqlite:///x.db", "--tls-cert", "c", "--tls-key", "k"]
    done = CliRunner().invoke(cli, command, env={"VERITY_TLS_KEY_PASSWORD": "hunter2\n"})
    assert done.exit_code == 2
    assert "VERITY_TLS_KEY_PASSWORD" in done.stderr
    assert "hunter2" not in done.stderr


def test_every_variable_that_is_read_as_it_stands_is_checked() -> None:
    """A number or one of several words is checked as such; any other text of a new option is to pass here, too."""
    unchecked = [
        option.envvar
        for option in _options_of(cli, click.Context(cli))
        if option.envvar
        and isinstance(option.type, click.types.StringParamType)
        and option.callback is not read_setting
    ]
    assert not unchecked


def _options_of(command: click.Command, context: click.Context) -> Iterator[click.Option]:
    yield from (each for each in command.params if isinstance(each, click.Option))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand is not None
            yield from _options_of(subcommand, context)


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
            # Within a second; test_auth.py measures it on a clock of its own.
            sync_until(lambda: client.get("/namespaces").status_code != 200, OF_PROCESSES_S)
            assert client.get("/namespaces").status_code == 401
    assert json.loads(run_verity("keys", "list", "--database", database, "--json").stdout)["state"] == "revoked"


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/v.db"
    assert run_verity("keys", "create", "--database", database, "--environment", "test").returncode == 0
    done = run_verity("keys", "revoke", "--database", database, "key_0")
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
    program = f"import sys; sys.modules[{missing!r}] = None; from verity.cli import main; main()"
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
    program = "import sys, verity.cli; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert not _EXTRA & set(done.stdout.split())
