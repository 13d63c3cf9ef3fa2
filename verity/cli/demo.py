"""`verity demo`: shows what Verity does, in under a minute, without a server or a network."""

from __future__ import annotations

import random  # noqa: TID251 - a repeatable choice from a seed, not an id or a secret
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

_NEW_DIRECTORY = "(a new directory)"


@click.command(short_help="Refund orders while the worker is killed.")
@click.option("--orders", "order_count", type=click.IntRange(min=1), help="How many orders to refund; all by default.")
@click.option("--kills", "kill_count", type=click.IntRange(min=1), help="How often to kill the worker; 12 by default.")
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Selects the orders at which the worker is killed."
)
@click.option(
    "--keep",
    is_flag=False,
    flag_value=_NEW_DIRECTORY,
    metavar="[DIR]",
    help="Keep the ledger and the payments service's records in DIR, or in a new temporary directory.",
)
@click.option("--broken-observe", is_flag=True, hidden=True, help="Use Verity wrongly, to see the demo fail.")
def demo(order_count: int | None, kill_count: int | None, seed: int, keep: str | None, broken_observe: bool) -> None:
    """Refund a file of orders while the worker is killed again and again.

    A worker refunds orders through a payments service in another process. It is killed with SIGKILL between refund and
    commit. A table compares Verity with a plain retry that is killed at the same moments. The exit code is 1 if Verity
    made a refund twice or did not finish an order.
    """
    from rich.console import Console

    from verity.demo.audit import Outcome, audit
    from verity.demo.orders import read_orders
    from verity.demo.report import is_shown, print_report, progress_bar
    from verity.demo.supervisor import DemoError, Job, Supervisor
    from verity.demo.worker import Mode

    orders = read_orders(order_count)
    if order_count is not None and order_count > len(orders):
        raise click.BadParameter(f"the file has {len(orders)} orders.", param_hint="--orders")
    if kill_count is not None and kill_count > len(orders):
        raise click.BadParameter(f"at most one for each of the {len(orders)} orders.", param_hint="--kills")
    kills = min(12, len(orders)) if kill_count is None else kill_count
    kill_at = frozenset(random.Random(seed).sample([order.order_id for order in orders], kills))  # noqa: S311 - a choice
    console = Console()

    def carry_out(title: str, mode: Mode, directory: Path) -> Outcome:
        directory.mkdir()
        job = Job(mode, directory, len(orders), kill_at)
        with progress_bar(console, title, len(orders), kills) as follow:
            tally = Supervisor(job, follow).run()
        return audit(job, orders, tally)

    started_at = time.monotonic()
    with _terminating_cleanly(), _working_directory(keep) as directory:
        try:
            plain = carry_out("Plain retry", "plain", directory / "plain")
            verity = carry_out("With Verity", "verity-blind" if broken_observe else "verity", directory / "verity")
        except DemoError as error:
            raise click.ClickException(str(error)) from None
        print_report(console, plain, verity, time.monotonic() - started_at)
        if keep is not None:
            _print_paths(directory / "verity", orders[0].order_id)
    sys.exit(0 if is_shown(plain, verity) else 1)


@contextmanager
def _working_directory(keep: str | None) -> Generator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="verity-demo-") as name:
            yield Path(name)
        return
    if keep == _NEW_DIRECTORY:
        yield Path(tempfile.mkdtemp(prefix="verity-demo-"))
        return
    directory = Path(keep)
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        # In the ledger of an earlier run all orders are committed: nothing would be left to kill.
        raise click.BadParameter(f"{keep} is not empty.", param_hint="--keep")
    yield directory


@contextmanager
def _terminating_cleanly() -> Generator[None]:
    """Turn SIGTERM and SIGHUP into `SystemExit`, so that the children are ended and the files removed."""

    def exit_cleanly(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), exit_cleanly) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _print_paths(directory: Path, order_id: str) -> None:
    """Print where the files are, as plain text without markup or line breaks, so that paths can be copied."""
    from verity.demo.worker import WORKFLOW, ledger_url

    click.echo(f"\nLedger:   {directory / 'ledger.db'}")
    click.echo(f"Payments: {directory / 'payments.db'}")
    click.echo("Query the ledger's file:")
    query = "SELECT effect_key, status, source, fence FROM effects ORDER BY id"
    click.echo(f"  sqlite3 {shlex.quote(str(directory / 'ledger.db'))} '{query}'")
    click.echo("Run the effect again: the ledger answers with its recorded result, and act is not called:")
    click.echo(
        f"""  {shlex.quote(sys.executable)} -c 'from verity import SyncVerityClient
with SyncVerityClient("{ledger_url(directory)}", namespace="{WORKFLOW}") as verity:
    print(verity.protect("{order_id}:process_refund", act=lambda: "acted again"))'"""
    )
