"""`verity keys`: make, list and revoke API keys, in the ledger's database; a server on it may run meanwhile."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from verity.server.cli.database import database_option, open_database

if TYPE_CHECKING:
    from verity._store.api_keys import ApiKey

_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhdw])")


def _read_duration(_context: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """`90d`, a whole number and a unit, in milliseconds."""
    if value is None:
        return None
    match = _DURATION.fullmatch(value)
    if match is None:
        raise click.BadParameter("write a whole number and a unit (s, m, h, d or w), such as 90d.")
    return int(match[1]) * _UNIT_MS[match[2]]


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@database_option
@click.option("--environment", type=click.Choice(["live", "test"]), required=True, help="Whose data it reaches.")
@click.option(
    "--role",
    type=click.Choice(["agent", "org_admin"]),
    default="agent",
    show_default=True,
    help="agent: the effect calls and reads. org_admin: also reset and resolve.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NS",
    help="Bind the key to this namespace; may be given several times. Without it, the key reaches all.",
)
@click.option("--expires-in", callback=_read_duration, metavar="DURATION", help="Such as 90d, 12h. Without it, never.")
@click.option("--name", help="What it is for, shown by `verity keys list`.")
def create(
    database: str, environment: Any, role: Any, namespaces: tuple[str, ...], expires_in: int | None, name: str | None
) -> None:
    """Make a key and print it, alone, on standard output.

    It is shown this once: the ledger keeps only a hash of it.
    """
    from verity.server.api_keys import issue

    bound = [_check_namespace(namespace) for namespace in namespaces]
    key, record = issue(environment, role, now=_now_ms(), namespaces=bound, name=name, lifetime_ms=expires_in)
    with open_database(database) as ledger:
        ledger.store.insert_key(record)
    click.echo(key)
    click.echo(f"Made {record.id}. The key is not shown again; keep it secret.", err=True)


@keys.command("list")
@database_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_(database: str, as_json: bool) -> None:
    """List all keys: never the keys themselves, which nobody has any more."""
    with open_database(database) as ledger:
        records = ledger.store.list_keys()
    now = _now_ms()
    rows = [_describe(record, now) for record in records]
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        click.echo("\t".join(_COLUMNS))
        for row in rows:
            click.echo("\t".join(_format(row[column]) for column in _COLUMNS))


@keys.command()
@database_option
@click.argument("key_id", metavar="ID")
def revoke(database: str, key_id: str) -> None:
    """Revoke a key. Servers on this database refuse it within a second."""
    with open_database(database) as ledger:
        found = ledger.store.revoke_key(key_id, _now_ms())
    if not found:
        raise click.ClickException("There is no key with this id; `verity keys list` shows all.")
    click.echo(f"Revoked {key_id}.", err=True)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_COLUMNS = ("id", "state", "environment", "role", "namespaces", "name", "createdAt", "expiresAt")


def _describe(record: ApiKey, now: int) -> dict[str, Any]:
    state = "active"
    if record.revoked_at is not None:
        state = "revoked"
    elif record.expires_at is not None and now >= record.expires_at:
        state = "expired"
    return {
        "id": record.id,
        "state": state,
        "environment": record.environment,
        "role": record.role,
        "namespaces": None if record.namespaces is None else sorted(record.namespaces),
        "name": record.name,
        "createdAt": _format_time(record.created_at),
        "expiresAt": None if record.expires_at is None else _format_time(record.expires_at),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS)
    for row in rows:
        style = None if row["state"] == "active" else "dim"
        table.add_row(*(Text(_format(row[column])) for column in _COLUMNS), style=style)
    Console().print(table)


def _format(value: Any) -> str:
    if isinstance(value, list):
        value = ",".join(value)
    text = "-" if value is None else str(value)
    return "".join(char if char.isprintable() else "\ufffd" for char in text)  # a name must not drive the terminal


def _format_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="seconds")


def _check_namespace(namespace: str) -> str:
    from verity._core.keys import check_namespace
    from verity.errors import VerityConfigError

    try:
        return check_namespace(namespace)
    except VerityConfigError as error:
        raise click.BadParameter(str(error), param_hint="--namespace") from None
