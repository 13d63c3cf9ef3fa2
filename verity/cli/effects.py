"""`verity effects`: finds effects, and resets or resolves the ones that are stuck."""

from __future__ import annotations

import heapq
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click

from verity._core.filters import RESET_MODES, STATUSES
from verity._rfc3339 import parse_time
from verity.cli.options import json_option, parse_duration, read_duration
from verity.cli.output import Row, print_fields, print_rows
from verity.cli.target import ledger_options
from verity.errors import VerityApiError

if TYPE_CHECKING:
    from verity._sync.effects import SyncEffects
    from verity.records import EffectRecord

PAGE_SIZE = 500
MAX_TRIES = 20
MAX_RESULT_FILE_BYTES = 1_048_576
PAYLOADS = frozenset({"inputJson", "result", "error"})
_NOT_STRICT = "it is not UTF-8, has a name twice in an object, NaN or Infinity, or is nested too deeply"

_STYLES = {"COMMITTED": "green", "FAILED": "red", "EXPIRED": "yellow", "RUNNING": "cyan", "IDLE": "dim"}


@click.group()
def effects() -> None:
    """Find effects, and reset or resolve the ones that are stuck.

    EFFECT is an effect's key together with --namespace, or the effect's id (eff_…) without it.
    """


_effect_argument = click.argument("effect", metavar="EFFECT")
_namespace_option = click.option("--namespace", metavar="NS", help="The namespace of the key.")
_in_namespace_option = click.option("--namespace", metavar="NS", help="Only in this namespace.")
_reason_option = click.option("--reason", metavar="TEXT", help="The reason, for the audit trail.")
_yes_option = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def _limit_options(command: Any) -> Any:
    limit = click.option(
        "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="Show at most so many."
    )
    return limit(click.option("--all", "show_all", is_flag=True, help="Show all, without a limit.")(command))


def _read_moment(_context: click.Context, _option: click.Parameter, value: str | None) -> str | datetime | None:
    """A time in RFC 3339, which the client checks, or a duration before now."""
    ago_ms = None if value is None else parse_duration(value)
    return value if ago_ms is None else datetime.now(timezone.utc) - timedelta(milliseconds=ago_ms)


@effects.command("list")
@ledger_options
@_in_namespace_option
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False))
@click.option("--search", metavar="TEXT", help="Only keys that contain this text.")
@click.option("--workflow", "workflow_name", metavar="NAME")
@click.option("--case", "case_id", metavar="ID")
@click.option("--run", "run_id", metavar="ID")
@click.option("--agent", "agent_id", metavar="ID", help="The agent of the latest grant.")
@click.option(
    "--since",
    callback=_read_moment,
    metavar="TIME",
    help="Created at this time or later: RFC 3339, or 24h for 24 h ago.",
)
@click.option("--until", callback=_read_moment, metavar="TIME", help="Created before this time.")
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
@click.option("--failed", is_flag=True, help="Also failed effects that were neither reset nor resolved.")
@click.option(
    "--older-than", callback=read_duration, metavar="DURATION", help="Stuck for at least this time, e.g. 15m."
)
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
    """List effects that may need a person, the longest stuck first.

    These are effects whose lease expired, or was released by a holder that may have acted, and that no other holder has
    taken over. Whether they happened is unknown. The next `protect()` with the same key and an `observe` finds out, and
    finishes the effect. If no such call comes, find out what happened, then `reset` or `resolve` the effect.
    """
    now = datetime.now(timezone.utc)
    found: Iterable[Row] = (
        row
        for row in _stuck_rows(effects, namespace, ["EXPIRED", "FAILED"] if failed else ["EXPIRED"], now)
        if row["stuckForS"] * 1000 >= (older_than or 0)
    )
    # With a limit, only the rows to show are kept in memory.
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
    help="verify: the next holder must observe. retry: the effect has certainly not happened.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Reset it even while a holder has a live lease and may be acting. Asks for confirmation.",
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
    """Allow a failed or expired effect to be tried again.

    It shows the effect first. If another holder was granted the effect since, nothing is changed.
    """
    record = _show_before(effects, effect, namespace)
    if force:
        _confirm("Reset it, although its holder may be acting at this moment?", yes=yes)
    key, where = str(record.effect_key), record.namespace
    done = _change(
        effects,
        record,
        lambda fence: effects.reset(key, namespace=where, mode=mode, force=force, reason=reason, expected_fence=fence),
    )
    _print_done(done, record, as_json=as_json)
    if mode == "verify":
        click.echo(
            "The next call observes first; one without observe raises OutcomeUnknownError. If the effect has certainly "
            "not happened, reset it with --mode retry: then the next call acts.",
            err=True,
        )


@effects.command()
@ledger_options
@_effect_argument
@_namespace_option
@click.option("--result", "text", metavar="JSON", help="The result: what act would have returned.")
@click.option("--result-file", "file", type=click.File("rb"), help="A file with the result; - is standard input.")
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
    """Commit the result of an expired or failed effect that did happen. Final; asks for confirmation.

    It shows the effect first. If another holder was granted the effect since, nothing is changed.
    """
    result = _read_result(text, file)
    record = _show_before(effects, effect, namespace)
    _confirm("Commit this result? It can't be changed afterwards.", yes=yes)
    key, where = str(record.effect_key), record.namespace
    done = _change(
        effects,
        record,
        lambda fence: effects.resolve(key, result, namespace=where, reason=reason, expected_fence=fence),
    )
    _print_done(done, record, as_json=as_json)


def _find(effects: SyncEffects, effect: str, namespace: str | None) -> EffectRecord:
    if namespace is not None:
        return effects.get(effect, namespace=namespace)
    if not effect.startswith("eff_"):
        raise click.UsageError(
            "Give the key's namespace with --namespace, or the effect's id (eff_…) instead of the key."
        )
    return effects.get_by_id(effect)


def _without_payloads(record: EffectRecord) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in PAYLOADS}


def _stuck_rows(effects: SyncEffects, namespace: str | None, statuses: list[Any], now: datetime) -> Iterator[Row]:
    for status in statuses:
        for record in effects.list(status=status, namespace=namespace, page_size=PAGE_SIZE):
            if record.purged_at is not None:  # a purged effect can neither be reset nor resolved
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
    """Print the first rows, and say so if there are more."""
    rest = iter(rows)
    print_rows(islice(rest, limit), columns, as_json=as_json, style_of=lambda row: _STYLES.get(row["status"]))
    if limit is not None and next(rest, None) is not None:
        click.echo(f"There are more than these {limit}: see --limit and --all.", err=True)


def _show_before(effects: SyncEffects, effect: str, namespace: str | None) -> EffectRecord:
    """Show the effect that is to be changed. The change then names the shown fence."""
    record = _find(effects, effect, namespace)
    agent = f", granted last to {record.agent_id!r}" if record.agent_id else ""
    shown = f"is {record.status} (fence {record.fence_token}{agent})"
    click.echo(f"Effect {record.effect_key!r} in namespace {record.namespace!r} {shown}.", err=True)
    return record


def _change(effects: SyncEffects, record: EffectRecord, change: Callable[[int | None], Row]) -> Row:
    """Make a change that names the shown fence.

    Callers without `observe` that try again and again are granted the effect, and give the lease back at once. This
    raises the fence and changes nothing else that was shown. The change is then tried with the new fence.
    """
    seen = record
    for is_last in (*[False] * (MAX_TRIES - 1), True):
        try:
            return change(seen.fence_token)
        except VerityApiError as error:
            if is_last or error.code != "stale_fence" or record.status != "EXPIRED":
                raise
            seen = effects.get_by_id(str(record.effect_id))
            if (seen.status, seen.lease_expires_at) != (record.status, record.lease_expires_at):
                raise
    raise AssertionError("unreachable: the last try returns or raises")


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to ask for confirmation: add --yes.")
    click.confirm(question, abort=True, err=True)


def _print_done(done: Row, record: EffectRecord, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dict(done)))
    else:
        click.echo(f"{done['status']}: effect {record.effect_key!r} in namespace {record.namespace!r}.", err=True)


def _read_result(text: str | None, file: BinaryIO | None) -> Any:
    if (text is None) == (file is None):
        raise click.UsageError("Give the result with either --result JSON or --result-file FILE.")
    if file is not None:
        content = file.read(MAX_RESULT_FILE_BYTES + 1)
        if len(content) > MAX_RESULT_FILE_BYTES:
            raise click.UsageError("The result file is too large: a result is at most 64 KB of compact JSON.")
    else:
        content = (text or "").encode("utf-8", "surrogateescape")
    try:
        return json.loads(content.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else _NOT_STRICT
        raise click.UsageError(
            f"The result is not a JSON value: {why}. In a shell, write a string as '\"text\"'."
        ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's members.

    Raises:
        ValueError: a name occurs twice: JSON parsers differ in which of the two values they take.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
