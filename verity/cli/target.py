"""The ledger that a command uses: a served ledger (`--url`) or a database (`--database`); errors become exit codes."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.core import ParameterSource

from verity.cli.database import DatabaseError, Store, open_store
from verity.cli.output import printable
from verity.cli.texts import read_setting

if TYPE_CHECKING:
    import httpx

    from verity._ledger.calls import Environment
    from verity._sync.effects import SyncEffects
    from verity.errors import VerityApiError

_Command = TypeVar("_Command", bound=Callable[..., Any])


class NotFound(click.ClickException):
    """There is no such effect."""

    exit_code = 6


class Conflict(click.ClickException):
    """The effect's state does not allow it."""

    exit_code = 7


class NotAllowed(click.ClickException):
    """The API key is not valid, or may not do this."""

    exit_code = 8


class NoAnswer(click.ClickException):
    """The ledger did not answer."""

    exit_code = 9


def ledger_options(command: _Command) -> _Command:
    """Add the options that name a ledger; the command gets its `SyncEffects` first."""

    @click.option(
        "--url",
        callback=read_setting,
        envvar="VERITY_BASE_URL",
        show_envvar=True,
        metavar="URL",
        help="A served ledger, https://…/v1. VERITY_API_KEY has its API key.",
    )
    @click.option(
        "--database",
        callback=read_setting,
        envvar="VERITY_DATABASE",
        show_envvar=True,
        metavar="URL",
        help="Or the ledger's database: sqlite:///relative.db, sqlite:////absolute.db or "
        "postgresql://user@host/database.",
    )
    @click.option(
        "--environment",
        type=click.Choice(["live", "test"]),
        help="With --database: live or test data; live by default. With --url, the API key decides.",
    )
    @wraps(command)
    def run(
        *arguments: Any, url: str | None, database: str | None, environment: Environment | None, **options: Any
    ) -> Any:
        with _open(url, database, environment) as effects:
            return command(effects, *arguments, **options)

    return cast(_Command, run)


@contextmanager
def _open(url: str | None, database: str | None, environment: Environment | None) -> Iterator[SyncEffects]:
    url, database = _choose(url, database)
    if url is None:
        with open_store(database or "", create=False) as store, translating_errors(DatabaseError):
            if environment is None and os.environ.get("VERITY_API_KEY", "").startswith("vt_test_"):
                click.echo(
                    "Using the live data: --database ignores VERITY_API_KEY. For test data: --environment test.",
                    err=True,
                )
            yield _effects_of(store, environment or "live")
        return
    if environment is not None:
        raise click.UsageError("--environment goes with --database. On a served ledger, the API key decides.")
    from verity import SyncVerityClient

    with translating_errors(NoAnswer), SyncVerityClient(url, spool=False) as client:
        yield client.effects


def _choose(url: str | None, database: str | None) -> tuple[str | None, str | None]:
    """Choose the URL or the database. The command line takes precedence over environment variables."""
    source = click.get_current_context().get_parameter_source
    said = [name for name in ("url", "database") if source(name) is ParameterSource.COMMANDLINE]
    if said == ["url"]:
        database = None
    elif said == ["database"]:
        url = None
    if url and database:
        where = "--url and --database are both given" if said else "VERITY_BASE_URL and VERITY_DATABASE are both set"
        raise click.UsageError(f"{where}; choose the ledger with one of the two options.")
    if url and url.startswith("sqlite:"):  # a client's base_url may be one, too
        return None, url
    if not url and not database:
        raise click.UsageError(
            "Which ledger? Give --url https://…/v1 or VERITY_BASE_URL (with its API key in VERITY_API_KEY), "
            "or --database sqlite:///ledger.db or VERITY_DATABASE."
        )
    return url or None, database or None


def _effects_of(store: Store, environment: Environment) -> SyncEffects:
    from verity._concurrency import SyncRuntime
    from verity._sync.effects import SyncEffects
    from verity._sync.ledger import SyncLedger

    ledger = SyncLedger(
        _StoreSender(store, environment), SyncRuntime(), base_url="the database", max_delay_s=1.0, timeout_s=20.0
    )
    return SyncEffects(ledger, None, lambda: None)


class _StoreSender:
    """A `Sender` that calls a store directly. It does not close the store."""

    has_own_connections = True
    """True: no user's HTTP client is involved."""
    is_remote = False
    own_errors: tuple[type[Exception], ...] = (Exception,)
    """A command has one thread: every exception of a call comes from the store."""

    def __init__(self, store: Store, environment: Environment) -> None:
        from verity._ledger.calls import Scope

        self._store = store
        self._scope = Scope(environment, actor=f"shell:{_user()}")
        self.caller = object()

    def with_timeout(self, timeout_s: float) -> _StoreSender:  # noqa: ARG002 - the store has its own limits
        """The same sender: the store has timeouts of its own."""
        return self

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        params: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        """Carry out the call."""
        import httpx

        from verity._embedded import read_request

        answer = self._store.answer(read_request(self._scope, method, url, headers=headers, json=json, params=params))
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    def close(self) -> None:
        """Do nothing: `open_store` closes the store."""


def _user() -> str:
    """The name of the user at the shell, for the audit trail."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # the user has no name, as in some containers
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


@contextmanager
def translating_errors(no_answer: type[click.ClickException]) -> Iterator[None]:
    """Turn the client's errors into errors of commands; `no_answer` is the type for a ledger that did not answer."""
    from verity.errors import VerityApiError, VerityConfigError, VerityConnectionError, VerityValidationError

    try:
        yield
    except (VerityConfigError, VerityValidationError) as error:
        raise click.UsageError(printable(str(error))) from None
    except VerityConnectionError as error:
        raise no_answer(printable(str(error))) from None
    except VerityApiError as error:
        raise _kind_of(error, no_answer)(printable(str(error))) from None


def _kind_of(error: VerityApiError, no_answer: type[click.ClickException]) -> type[click.ClickException]:
    from verity._core.replies import is_transient

    if is_transient(error):
        return no_answer
    if error.code == "effect_not_found":
        return NotFound
    return {401: NotAllowed, 403: NotAllowed, 409: Conflict, 410: Conflict}.get(error.status_code, click.ClickException)
