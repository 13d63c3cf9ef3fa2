"""`verity recover`: commits the results that wait in a spool, and shows those that can never be committed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

import click

from verity.cli.options import json_option
from verity.cli.output import Row, print_rows, printable
from verity.cli.target import Conflict, NoAnswer, translating_errors
from verity.cli.texts import read_setting

if TYPE_CHECKING:
    from verity._spool import Entry, LedgerName, Spool
    from verity._sync.spooling import SyncSpooler
    from verity.errors import VerityError

_COLUMNS = ("outcome", "effectKey", "namespace", "kind", "spooledAt", "detail", "id")
_STYLES = {"rejected": "red", "kept": "yellow", "other ledger": "yellow"}


@click.command(short_help="Commit the results in a spool.")
@click.argument("path", type=click.Path(dir_okay=False))
@click.option(
    "--url",
    callback=read_setting,
    envvar="VERITY_BASE_URL",
    show_envvar=True,
    metavar="URL",
    help="The ledger, as the clients have it: https://…/v1, or sqlite:///… VERITY_API_KEY has its API key.",
)
@click.option("--from", "earlier_url", metavar="URL", help="Also the results that were spooled for this URL of it.")
@click.option("--list", "only_list", is_flag=True, help="Show what the spool has, and send nothing.")
@click.option("--drop", type=int, multiple=True, metavar="ID", help="Delete a rejected result, by its id in --list.")
@json_option
def recover(
    path: str, url: str | None, earlier_url: str | None, only_list: bool, drop: tuple[int, ...], as_json: bool
) -> None:
    """Commit the results that wait in the spool PATH, and print what became of each.

    Running clients may use the spool meanwhile. Exit codes: 0, if each result for the ledger is committed; 7, if the
    ledger refused one for good, which is then kept as rejected, or its effect has a live lease; 9 or 8, if one is kept
    because the ledger does not answer or does not allow it.
    """
    with translating_errors(NoAnswer), _opened(path) as spool:
        if drop:
            _drop(spool, drop)
        elif only_list:
            print_rows(_listed(spool), _COLUMNS, as_json=as_json, style_of=_style_of)
        else:
            _replay(spool, url, earlier_url, as_json=as_json)


def _replay(spool: Spool, url: str | None, earlier_url: str | None, *, as_json: bool) -> None:
    from verity import SyncVerityClient
    from verity._spool import name_ledger

    if url is None:
        ledgers = sorted({printable(each.base_url) for each in spool.read(limit=1_000)})
        waiting = f" The spool has results for {', '.join(ledgers)}." if ledgers else ""
        raise click.UsageError(f"Which ledger? Give --url or VERITY_BASE_URL.{waiting}")
    failures: list[VerityError] = []
    codes: list[str] = []
    with closing(SyncVerityClient(url, spool=spool.path)) as client:
        spooler = cast("SyncSpooler", client._protector.spooler)  # noqa: SLF001 - the command is a part of the library
        names = [spooler.name]
        if earlier_url is not None:
            names.append(name_ledger(earlier_url.rstrip("/"), spooler.name.environment))
        rows = _settled(spool, spooler, names, failures, codes)
        print_rows(rows, _COLUMNS, as_json=as_json, style_of=_style_of)
    others = sum(each.ledger not in names for each in _all(spool))
    if others:
        click.echo(
            f"Results that wait for another ledger: {others}. --from URL takes those of an earlier URL.", err=True
        )
    rejected = len(spool.rejected())
    if rejected:
        click.echo(f"Results that can never be committed: {rejected}. `verity recover --list` shows them.", err=True)
    if codes:
        raise Conflict(f"The ledger refused {len(codes)} for good: {', '.join(sorted(set(codes)))}.")
    if failures:
        raise failures[0]


def _settled(
    spool: Spool, spooler: SyncSpooler, names: list[LedgerName], failures: list[VerityError], codes: list[str]
) -> Iterator[Row]:
    from verity._core.replies import is_transient
    from verity.errors import VerityError

    for entry in _all(spool):
        if entry.ledger not in names:
            yield _row(entry, "other ledger", f"{entry.base_url} ({entry.environment})")
            continue
        if failures and is_transient(failures[-1]):
            yield _row(entry, "kept", "not tried: the ledger is away")
            continue
        try:
            code = spooler.settle(entry)
        except VerityError as error:
            failures.append(error)
            yield _row(entry, "kept", str(error))
        else:
            codes.extend([] if code is None else [code])
            yield _row(entry, "committed" if code is None else "rejected", code)


def _all(spool: Spool) -> Iterator[Entry]:
    after = 0
    while entries := spool.read(after=after):
        yield from entries
        after = entries[-1].id


def _listed(spool: Spool) -> Iterator[Row]:
    for entry in _all(spool):
        yield {**_row(entry, "waits", f"{entry.base_url} ({entry.environment})"), "result": _result_of(entry)}
    for entry in spool.rejected():
        yield {**_row(entry, "rejected", entry.code), "result": _result_of(entry)}


def _row(entry: Entry, outcome: str, detail: str | None) -> dict[str, Any]:
    """A row without the lease token, which nobody needs to see."""
    spooled_at = datetime.fromtimestamp(entry.created_at / 1000, timezone.utc)
    return {
        "outcome": outcome,
        "effectKey": entry.effect_key,
        "namespace": entry.namespace,
        "kind": entry.kind,
        "spooledAt": f"{spooled_at:%Y-%m-%dT%H:%M:%SZ}",
        "detail": detail,
        "id": entry.id,
    }


def _result_of(entry: Entry) -> Any:
    try:
        return entry.value
    except ValueError:  # something else wrote the file
        return entry.result


def _drop(spool: Spool, ids: tuple[int, ...]) -> None:
    missing = [each for each in ids if not spool.drop_rejected(each)]
    click.echo(f"Dropped {len(ids) - len(missing)}.", err=True)
    if missing:
        raise click.ClickException(f"There is no rejected result with id {', '.join(map(str, missing))}.")


def _style_of(row: Row) -> str | None:
    return _STYLES.get(row["outcome"])


@contextmanager
def _opened(path: str) -> Iterator[Spool]:
    from verity._spool import Spool, SpoolError

    try:
        yield Spool(path, must_exist=True)
    except SpoolError as error:
        raise click.ClickException(printable(str(error))) from None
