"""`verity purge`: deletes payloads and audit trails of effects that were decided long ago, and keeps their keys.

The key of a purged effect stays in the ledger, so that no call ever acts on it again.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from verity._ledger.shown import format_time
from verity.cli.database import Store, database_option, open_store
from verity.cli.options import json_option, read_duration, read_namespace
from verity.cli.output import Row, print_rows

if TYPE_CHECKING:
    from verity._store.purging import Purge

LINE_EVERY = 10_000
MIN_PAUSE_S = 0.01

_COLUMNS = ("environment", "namespace", "before", "effects", "done")


@click.command(short_help="Delete payloads and audit trails of old effects.")
@database_option
@click.option(
    "--older-than",
    "older_than",
    callback=read_duration,
    required=True,
    metavar="DURATION",
    help="Only effects that were decided and last changed at least this long ago, such as 90d.",
)
@click.option("--environment", type=click.Choice(["live", "test"]), help="Only in this one; both without it.")
@click.option("--namespace", callback=read_namespace, metavar="NS", help="Only in this namespace.")
@click.option("--dry-run", is_flag=True, help="Count the effects, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def purge(
    database: str,
    older_than: int,
    environment: Any,
    namespace: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete payloads and audit trails of effects that were committed or failed long ago.

    The effects' keys stay, so that none of them is ever acted on again. Their results can't be read any more. The purge
    works in small batches. Servers may use the database meanwhile. You may interrupt a purge: the next run purges the
    rest.
    """
    from verity._ledger.calls import ENVIRONMENTS
    from verity._store.purging import Purge

    if not (dry_run or yes or sys.stdin.isatty()):
        raise click.UsageError("There is no terminal to ask for confirmation: add --yes, or --dry-run to count.")
    with open_store(database, create=False) as store:
        before = store.now_ms() - older_than
        purges = [
            Purge(each, before, namespace, dry_run=dry_run) for each in ([environment] if environment else ENVIRONMENTS)
        ]
        total = None
        if not (dry_run or yes):
            counts = [replace(each, dry_run=True) for each in purges]
            _carry_out(store, counts, None)
            total = sum(count.purged for count in counts)
            _confirm(total, before, is_whole=all(count.done for count in counts))
        try:
            _carry_out(store, purges, total)
        finally:
            print_rows([_describe(each) for each in purges], _COLUMNS, as_json=as_json)
    if not all(each.done for each in purges):
        raise click.ClickException("Stopped before the end. Nothing is lost: run the command again to purge the rest.")


def _carry_out(store: Store, purges: list[Purge], total: int | None) -> None:
    """Carry the purges out, batch by batch, until they are done or a signal stops them; updates the list in place."""
    verb = "Counted" if purges[0].dry_run else "Purged"
    with _stopping() as is_stopped, _progress(verb, total) as show:
        for number, each in enumerate(purges):
            purge = each
            while not (purge.done or is_stopped()):
                began_at = time.monotonic()
                purge = purges[number] = store.purge(purge)
                show(sum(each.purged for each in purges))
                if not purge.dry_run:  # leave the database to the others for as long as the batch took
                    time.sleep(max(MIN_PAUSE_S, time.monotonic() - began_at))


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Delay Ctrl-C and SIGTERM until the end of a batch; gives a function that says whether one came."""
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    old = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def _progress(verb: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show the progress on standard error: a bar on a terminal, elsewhere a line every 10,000 effects."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        text = "{task.completed:,} effects" if total is None else "{task.completed:,} of {task.total:,} effects"
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn(text), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(verb, total=total)
            yield lambda count: bar.update(task, completed=count)
        return
    shown = 0

    def show(count: int) -> None:
        nonlocal shown
        if count >= shown + LINE_EVERY:
            shown = count
            click.echo(f"{verb} {count} effects so far.", err=True)

    yield show


def _confirm(total: int, before: int, *, is_whole: bool) -> None:
    if not is_whole:
        raise click.Abort
    if not total:
        return
    what = "1 effect was" if total == 1 else f"{total} effects were"
    click.echo(f"{what} decided and last changed before {format_time(before)}.", err=True)
    click.confirm("Delete their payloads and audit trails for ever?", abort=True, err=True)


def _describe(purge: Purge) -> Row:
    return {
        "environment": purge.environment,
        "namespace": purge.namespace,
        "before": format_time(purge.before),
        "effects": purge.purged,
        "done": purge.done,
        "dryRun": purge.dry_run,
    }
