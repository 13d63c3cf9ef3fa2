"""`verity migrate`: the schema of a ledger's database, up to date."""

from __future__ import annotations

import click

from verity.cli.database import database_option
from verity.cli.database import migrate as migrate_database


@click.command()
@database_option
def migrate(database: str) -> None:
    """Bring the database's schema up to date.

    There is no way back: keep a copy, and stop what works on it first. It is done as a whole or not at all, and several
    may try at once.
    """
    before, after = migrate_database(database)
    click.echo(
        f"Migrated from schema {before} to {after}." if before < after else f"It has schema {after}, up to date."
    )
