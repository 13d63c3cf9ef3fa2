"""`verity migrate`: brings the schema of a ledger's database up to date."""

from __future__ import annotations

import click

from verity.cli.database import database_option
from verity.cli.database import migrate as migrate_database


@click.command()
@database_option
def migrate(database: str) -> None:
    """Bring the database's schema up to date.

    A migration can't be undone: make a copy first, and stop all programs that use the ledger. It is carried out as a
    whole or not at all. Several processes may run it at the same time.
    """
    before, after = migrate_database(database)
    click.echo(
        f"Migrated from schema {before} to {after}." if before < after else f"The schema is up to date: {after}."
    )
