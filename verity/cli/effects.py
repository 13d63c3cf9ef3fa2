"""`verity effects`: find effects, and put right the ones that are stuck."""

from __future__ import annotations

import heapq
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from verity._core.filters import RESET_MODES, STATUSES
from verity._rfc3339 import parse_time
from verity.cli.options import json_option, parse_duration, read_duration
from verity.cli.output import Row, print_fields, print_rows
from verity.cli.target import ledger_options

if TYPE_CHECKING:
    from verity._sync.effects import SyncEffects
    from verity.records import EffectRecord

PAGE_SIZE = 500
MAX_RESULT_FILE_BYTES = 1_048_576
PAYLOADS = frozenset({"inputJson", "result", "error"})

_STYLES = {"COMMITTED": "green", "FAILED": "red", "EXPIRED": "yellow", "RUNNING": "cyan", "IDLE": "dim"}


@click.group()
def effects() -> None:
    """Find effects, and put right the ones that are stuck.

    EFFECT is an effect's key with --namespace, or the ledger's id of it (eff_…) without.
    """


_effect_argument = click.argument("effect", metavar="EFFECT")
_namespace_option = click.option("--namespace", metavar="NS", help="Where the key is.")
_in_namespace_option = click.option("--namespace", metavar="NS", help="Only in this namespace.")
_reason_option = click.option("--reason", metavar="TEXT", help="Why, for the audit trail.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def _limit_options(command: Any) -> Any:
    limit = click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
    return limit(click.option("--all", "show_all", is_flag=True, help="However many there are.")(command))


def _read_moment(_context: click.Context, _option: click.Parameter, value: str | None) -> str | datetime | None:
    """A time in RFC 3339, which the client checks, or a duration: so long ago."""
    ago_ms = None if value is None else parse_duration(value)
    return value if ago_ms is None else datetime.now(timezone.utc) - timedelta(milliseconds=ago_ms)


@effects.command("list")
@ledger_options
@_in_namespace_option
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False))
@click.option("--search", metavar="TEXT", help="A part of the key.")
@click.option("--workflow", "workflow_name", metavar="NAME")
@click.option("--case", "case_id", metavar="ID")
@click.option("--run", "run_id", metavar="ID")
@click.option("--agent", "agent_id", metavar="ID", help="Whom it was granted to last.")
@click.option("--since", callback=_read_moment, metavar="TIME", help="Created then or later: RFC 3339, or 24h for ago.")
@click.option("--until", callback=_read_moment, metavar="TIME", help="Created before then.")
@_limit_options
@json_option
def list_(effects: SyncEffects, limit: int, show_all: bool, as_json: bool, **filters: Any) -> None:
    """List effects, newest first, without their payloads."""
    found = map(
        _without_payloads, effects.list(page_size=PAGE_SIZE if show_all else min(limit + 1, PAGE_SIZE), **filters)
    )
    columns = ("status", "effectKey", "namespace", "agentId", "updatedAt")
    _print_up_to(None if show_all else limit, found, columns, as_json=as_json)


@effects.command()
@ledger_options
@_effect_argument
@_namespace_option
@json_option
def show(effects: SyncEffects, effect: str, namespace: str | None, as_json: bool) -> None:
    """Show one effect with its payloads."""
    print_fields(dict(_find(effects, effect, namespace)), as_json=as_json)


@effects.command()
@ledger_options
@_effect_argument
@_namespace_option
@json_option
def events(effects: SyncEffects, effect: str, namespace: str | None, as_json: bool) -> None:
    """Show an effect's audit trail, oldest first."""
    if namespace is None:
        record = _find(effects, effect, None)
        effect, namespace = str(record.effect_key), record.namespace
    trail = map(dict, effects.events(effect, namespace=namespace, page_size=PAGE_SIZE))
    print_rows(trail, ("sequence", "at", "type", "fenceToken", "agentId", "runId", "detail"), as_json=as_json)


@effects.command()
@ledger_options
@_in_namespace_option
@click.option("--failed", is_flag=True, help="Also those that failed and were neither reset nor resolved.")
@click.option("--older-than", callback=read_duration, metavar="DURATION", help="Stuck for so long, such as 15m.")
@_limit_options
@json_option
def stuck(
    effects: SyncEffects,
    namespace: str | None,
    failed: bool,
    older_than: int | None,
    limit: int,
    show_all: bool,
    as_json: bool,
) -> None:
    """List what may need a person, the longest stuck first.

    That is: effects whose lease ran out and that nobody took over since. Whether they happened is unknown. The next
    `protect()` with the same key observes and puts it right; where none comes, find out what happened, then `reset` or
    `resolve`.
    """
    now = datetime.now(timezone.utc)
    found: Iterable[Row] = (
        row
        for row in _stuck_rows(effects, namespace, ["EXPIRED", "FAILED"] if failed else ["EXPIRED"], now)
        if row["stuckForS"] * 1000 >= (older_than or 0)
    )
    # However many there are, only as many as are shown are kept.
    by_age = sorted(found, key=_stuck_since) if show_all else heapq.nsmallest(limit + 1, found, key=_stuck_since)
    columns = ("stuckFor", "status", "effectKey", "namespace", "agentId")
    _print_up_to(None if show_all else limit, by_age, columns, as_json=as_json)


@effects.command()
@ledger_options
@_effect_argument
@_namespace_option
@click.option(
    "--mode",
    type=click.Choice(RESET_MODES),
    default="verify",
    show_default=True,
    help="verify: the next holder observes first. retry: nothing has happened, for certain.",
)
@click.option(
    "--force", is_flag=True, help="Take it away from a holder whose lease is live and who may act: asks first."
)
@_reason_option
@_yes_option
@json_option
def reset(
    effects: SyncEffects,
    effect: str,
    namespace: str | None,
    mode: Any,
    force: bool,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Let a failed or expired effect be tried again."""
    record = _find(effects, effect, namespace)
    if force:
        _confirm(record, "Take it away from its holder, who may be acting on it at this moment?", yes=yes)
    key = str(record.effect_key)
    done = effects.reset(key, namespace=record.namespace, mode=mode, force=force, reason=reason)
    _tell(done, record, as_json=as_json)


@effects.command()
@ledger_options
@_effect_argument
@_namespace_option
@click.option("--result", "text", metavar="JSON", help="What act would have returned.")
@click.option("--result-file", "file", type=click.File("rb"), help="The same, in a file; - is standard input.")
@_reason_option
@_yes_option
@json_option
def resolve(
    effects: SyncEffects,
    effect: str,
    namespace: str | None,
    text: str | None,
    file: BinaryIO | None,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Commit the result of an expired or failed effect that did happen. This is final: asks first."""
    result = _read_result(text, file)
    record = _find(effects, effect, namespace)
    _confirm(record, "Commit this result for ever?", yes=yes)
    done = effects.resolve(str(record.effect_key), result, namespace=record.namespace, reason=reason)
    _tell(done, record, as_json=as_json)


def _find(effects: SyncEffects, effect: str, namespace: str | None) -> EffectRecord:
    if namespace is not None:
        return effects.get(effect, namespace=namespace)
    if not effect.startswith("eff_"):
        raise click.UsageError("Say with --namespace where this key is, or give the effect's id (eff_…).")
    return effects.get_by_id(effect)


def _without_payloads(record: EffectRecord) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in PAYLOADS}


def _stuck_rows(effects: SyncEffects, namespace: str | None, statuses: list[Any], now: datetime) -> Iterator[Row]:
    for status in statuses:
        for record in effects.list(status=status, namespace=namespace, page_size=PAGE_SIZE):
            if record.purged_at is not None:  # what is purged can neither be reset nor resolved
                continue
            since = record.lease_expires_at or record.updated_at or ""
            age_s = max(0, int((now - (parse_time(since) or now)).total_seconds()))
            yield {
                **_without_payloads(record),
                "stuckSince": since,
                "stuckForS": age_s,
                "stuckFor": _format_age(age_s),
            }


def _stuck_since(row: Row) -> tuple[str, str]:
    return row["stuckSince"], row["effectId"]


def _format_age(seconds: int) -> str:
    """The two largest units, such as `3d 4h`."""
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count or parts or size == 1:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])


def _print_up_to(limit: int | None, rows: Iterable[Row], columns: tuple[str, ...], *, as_json: bool) -> None:
    """Print the first rows, and say so where there are more."""
    rest = iter(rows)
    print_rows(islice(rest, limit), columns, as_json=as_json, style_of=lambda row: _STYLES.get(row["status"]))
    if limit is not None and next(rest, None) is not None:
        click.echo(f"There are more than these {limit}: see --limit and --all.", err=True)


def _confirm(record: EffectRecord, question: str, *, yes: bool) -> None:
    if yes:
        return
    agent = f", granted last to {record.agent_id!r}" if record.agent_id else ""
    about = f"Effect {record.effect_key!r} in namespace {record.namespace!r} is {record.status}{agent}."
    if not sys.stdin.isatty():
        raise click.UsageError(f"{about} There is no terminal to ask on: give --yes.")
    click.echo(about, err=True)
    click.confirm(question, abort=True, err=True)


def _tell(done: Row, record: EffectRecord, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dict(done)))
    else:
        click.echo(f"{done['status']}: effect {record.effect_key!r} in namespace {record.namespace!r}.", err=True)


def _read_result(text: str | None, file: BinaryIO | None) -> Any:
    if (text is None) == (file is None):
        raise click.UsageError("Give the result with --result JSON or with --result-file FILE, one of the two.")
    if file is not None:
        content = file.read(MAX_RESULT_FILE_BYTES + 1)
        if len(content) > MAX_RESULT_FILE_BYTES:
            raise click.UsageError("The result's file is too large: a result is at most 64 KB of compact JSON.")
    else:
        content = (text or "").encode("utf-8", "surrogateescape")
    try:
        return json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else "it is no UTF-8 or has what JSON does not"
        raise click.UsageError(
            f"The result is no JSON value: {why}. Mind the quotes: a string is '\"text\"'."
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; what it says twice it does not say."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
