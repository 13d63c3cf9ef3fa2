"""`verity serve`: serves a ledger over HTTP."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import click

from verity.cli.database import DatabaseError, database_option
from verity.cli.limits import limit_options, to_settings
from verity.cli.options import parse_address
from verity.cli.texts import read_setting


class AddressError(click.ClickException):
    """The server can't listen on the address."""

    exit_code = 4


class TlsFilesError(click.ClickException):
    """The TLS certificate or its key can't be used."""

    exit_code = 5


@click.command()
@database_option
@click.option(
    "--host", callback=read_setting, default="127.0.0.1", show_default=True, envvar="VERITY_HOST", show_envvar=True
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8420,
    show_default=True,
    envvar="VERITY_PORT",
    show_envvar=True,
    help="0 takes any free port; the first line of output names it.",
)
@click.option(
    "--existing",
    is_flag=True,
    envvar="VERITY_EXISTING",
    show_envvar=True,
    help="Refuse a database that has no ledger yet, instead of creating one.",
)
@click.option(
    "--access-log/--no-access-log",
    envvar="VERITY_ACCESS_LOG",
    show_envvar=True,
    show_default=True,
    help="Log a line for each request.",
)
@click.option(
    "--log-format",
    type=click.Choice(["plain", "json"]),
    default="plain",
    show_default=True,
    envvar="VERITY_LOG_FORMAT",
    show_envvar=True,
)
@click.option(
    "--drain-timeout",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    envvar="VERITY_DRAIN_TIMEOUT",
    show_envvar=True,
    help="Seconds that a stopping server waits for requests that it has begun.",
)
@click.option(
    "--tls-cert",
    callback=read_setting,
    metavar="FILE",
    envvar="VERITY_TLS_CERT",
    show_envvar=True,
    help="Serve HTTPS with this certificate (PEM, with its chain).",
)
@click.option(
    "--tls-key",
    callback=read_setting,
    metavar="FILE",
    envvar="VERITY_TLS_KEY",
    show_envvar=True,
    help="The certificate's private key (PEM). If it is encrypted, VERITY_TLS_KEY_PASSWORD has its password.",
)
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    callback=read_setting,
    envvar="VERITY_METRICS_LISTEN",
    show_envvar=True,
    help="Serve /metrics on this address instead of the API's port, and /healthz and /readyz on both.",
)
@limit_options
def serve(
    database: str,
    host: str,
    port: int,
    existing: bool,
    access_log: bool,
    log_format: Any,
    drain_timeout: int,
    tls_cert: str | None,
    tls_key: str | None,
    metrics_listen: str | None,
    **limits: Any,
) -> None:
    """Serve a ledger over HTTP until SIGTERM or SIGINT.

    The server prints a line on standard output when it listens. Its log goes to standard error. When it stops, it
    accepts no more connections, finishes the requests that it has begun, and exits with 0. Make API keys with `verity
    keys create`.
    """
    from verity.errors import VerityConfigError
    from verity.server.logs import configure_logging
    from verity.server.serving import raise_file_limit, run
    from verity.server.settings import ServerSettings

    configure_logging(log_format)
    settings = ServerSettings(access_log=access_log, drain_timeout_s=drain_timeout, **to_settings(limits))
    tls = _load_tls(tls_cert, tls_key)
    metrics_address = None if metrics_listen is None else parse_address(metrics_listen)
    if metrics_listen is not None and metrics_address is None:
        raise click.BadParameter("give a host and a port, such as 127.0.0.1:9420.", param_hint="--metrics-listen")
    raise_file_limit()
    try:
        run(_serve(database, existing, (host, port), metrics_address, settings, tls))
    except VerityConfigError as error:
        raise DatabaseError(str(error)) from None


def _load_tls(certificate: str | None, key: str | None) -> Any:
    from verity.server.tls import TlsError, load_tls

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key go together: give both or neither.")
    password = os.environ.get("VERITY_TLS_KEY_PASSWORD")
    if password is not None and any(ord(char) < 0x20 for char in password):
        raise click.UsageError("VERITY_TLS_KEY_PASSWORD has a control character, such as a line end: remove it.")
    try:
        return load_tls(certificate, key, password)
    except TlsError as error:
        raise TlsFilesError(str(error)) from None


async def _serve(
    database: str,
    existing: bool,
    address: tuple[str, int],
    metrics_address: tuple[str, int] | None,
    settings: Any,
    tls: Any,
) -> None:
    from verity._store.opening import open_store

    async with open_store(
        database,
        max_batch=settings.max_batch,
        database_timeout_s=settings.database_timeout_s,
        search_timeout_s=settings.search_timeout_s,
        must_exist=existing,
    ) as store:
        await _serve_store(store, address, metrics_address, settings, tls)


async def _serve_store(
    store: Any, address: tuple[str, int], metrics_address: tuple[str, int] | None, settings: Any, tls: Any
) -> None:
    from verity.server.app import create_app
    from verity.server.serving import LedgerServer, base_url

    listener = _listen(*address)
    metrics_listener = None if metrics_address is None else _listen(*metrics_address)

    def announce() -> None:
        click.echo(f"Verity listens on {base_url(listener, 'http' if tls is None else 'https')}")
        if metrics_listener is not None:
            click.echo(f"Its metrics are at {base_url(metrics_listener).removesuffix('/v1')}/metrics")
        sys.stdout.flush()

    server = LedgerServer(create_app(store, settings), settings, announce, tls=tls, metrics_listener=metrics_listener)
    server.stop_on_signals()
    # The objects that exist now live as long as the process. Garbage collections that scan them cost tail latency.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    await server.serve(sockets=[listener])


def _listen(host: str, port: int) -> Any:
    from verity.server.serving import listen

    try:
        return listen(host, port)
    except OSError as error:
        # error codes of getaddrinfo are below zero
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise AddressError(f"Can't listen on {host} port {port}: {why}.") from None
