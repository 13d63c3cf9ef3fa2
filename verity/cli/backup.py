"""`verity backup`: copies a SQLite ledger while it is in use."""

from __future__ import annotations

import click

from verity.cli.database import back_up as back_up_database
from verity.cli.database import database_option
from verity.cli.options import json_option
from verity.cli.output import print_rows


@click.command(short_help="Copy a SQLite ledger safely.")
@database_option
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False))
@json_option
def backup(database: str, target: str, as_json: bool) -> None:
    """Copy a SQLite ledger, as it is at this moment, to a new FILE.

    Programs may go on using the ledger meanwhile. The copy is checked; FILE appears as a whole or not at all. Never
    copy the database file by other means while it is in use. For PostgreSQL, use pg_dump or pg_basebackup.
    """
    done = back_up_database(database, target)
    if as_json:
        row = {"path": done.path, "sizeBytes": done.size_bytes, "effects": done.effects}
        print_rows([row], tuple(row), as_json=True)
        return
    what = "1 effect" if done.effects == 1 else f"{done.effects:,} effects"
    click.echo(f"Copied {what} to {done.path} ({done.size_bytes:,} bytes).")
