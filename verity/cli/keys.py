"""`verity keys`: makes, lists and revokes API keys in the ledger's database. Servers may use the database meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from verity._ledger.shown import format_time
from verity.cli.database import database_option, open_store
from verity.cli.options import json_option, read_duration, read_namespaces
from verity.cli.output import print_rows

if TYPE_CHECKING:
    from verity._store.api_keys import ApiKey


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@database_option
@click.option("--environment", type=click.Choice(["live", "test"]), required=True, help="The data it reaches.")
@click.option(
    "--role",
    type=click.Choice(["agent", "org_admin"]),
    default="agent",
    show_default=True,
    help="agent: may use effects and read. org_admin: may also reset and resolve.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    callback=read_namespaces,
    metavar="NS",
    help="Bind the key to this namespace; repeat it for several. Without it, the key reaches all namespaces.",
)
@click.option("--expires-in", callback=read_duration, metavar="DURATION", help="Such as 90d or 12h. Without it, never.")
@click.option("--name", help="What the key is for; `verity keys list` shows it.")
def create(
    database: str, environment: Any, role: Any, namespaces: tuple[str, ...], expires_in: int | None, name: str | None
) -> None:
    """Make a key, and print it alone on standard output.

    The key is shown only this once: the ledger keeps only its hash.
    """
    from verity.server.api_keys import issue

    key, record = issue(environment, role, now=_now_ms(), namespaces=namespaces, name=name, lifetime_ms=expires_in)
    with open_store(database) as store:
        store.insert_key(record)
    click.echo(key)
    click.echo(f"Made {record.id}. The key is not shown again; keep it secret.", err=True)


@keys.command("list")
@database_option
@json_option
def list_(database: str, as_json: bool) -> None:
    """List all keys, by their ids and names.

    The keys themselves can't be shown: the ledger has only their hashes.
    """
    with open_store(database, create=False) as store:
        records = store.list_keys()
    now = _now_ms()
    rows = [_describe(record, now) for record in records]
    print_rows(rows, _COLUMNS, as_json=as_json, style_of=lambda row: None if row["state"] == "active" else "dim")


@keys.command()
@database_option
@click.argument("key_id", metavar="ID")
def revoke(database: str, key_id: str) -> None:
    """Revoke a key. Servers on this database refuse it within a second."""
    with open_store(database, create=False) as store:
        found = store.revoke_key(key_id, _now_ms())
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
        "createdAt": format_time(record.created_at),
        "expiresAt": None if record.expires_at is None else format_time(record.expires_at),
    }
