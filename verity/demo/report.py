"""The progress bar while it runs, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from verity.demo.audit import Outcome
from verity.demo.supervisor import Tally


@contextmanager
def progress_bar(console: Console, title: str, order_count: int, kill_count: int) -> Generator[Callable[[Tally], None]]:
    """A progress bar that shows a tally; without a terminal, one line of text."""
    columns = (
        TextColumn("{task.description:<15}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("orders · {task.fields[kills]:>2} kills · {task.fields[refunds]:>2} refunds"),
        TimeElapsedColumn(),
    )
    if not console.is_terminal:
        console.print(f"{title}: {order_count} orders, {kill_count} kills …")
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task(title, total=order_count, kills=0, refunds=0)

        def follow(tally: Tally) -> None:
            progress.update(bar, completed=len(tally.notified), kills=len(tally.killed_at), refunds=tally.refunds)

        yield follow


def print_report(console: Console, plain: Outcome, verity: Outcome, wall_s: float) -> None:
    """Print the table, and one sentence that says what it shows."""
    table = Table()
    table.add_column()
    table.add_column("Plain retry", justify="right")
    table.add_column("With Verity", justify="right")
    for name, get in _ROWS:
        table.add_row(name, get(plain), get(verity))
    table.add_section()
    table.add_row("Double refunds", _double(plain), _double(verity), style="bold")
    console.print(table)
    for problem in verity.problems:
        console.print(f"[red]✗[/red] {problem}", highlight=False)
    console.print(_sentence(plain, verity), highlight=False)
    console.print(f"Counted in the payments service's records and the ledger, in {wall_s:.1f} s.", highlight=False)


def is_shown(plain: Outcome, verity: Outcome) -> bool:
    """Whether the run shows the difference: each refund exactly once with Verity, and double refunds without it."""
    return not verity.problems and verity.double_refunds == 0 and plain.double_refunds > 0


def _double(outcome: Outcome) -> str:
    colour = "red" if outcome.double_refunds else "green"
    return f"[{colour}]{outcome.double_refunds}[/{colour}]"


def _sentence(plain: Outcome, verity: Outcome) -> str:
    if is_shown(plain, verity):
        return (
            f"[green]✓[/green] After {verity.kills} kills, plain retry had refunded {plain.double_refunds} orders "
            "twice, Verity none."
        )
    if verity.problems or verity.double_refunds:
        return (
            f"[red]✗ Not shown:[/red] with Verity, {verity.double_refunds} refunds were made twice, and "
            f"{len(verity.problems)} problems were found (above)."
        )
    return "[red]✗ Not shown:[/red] plain retry made no double refund either, so that there is nothing to compare."


_ROWS: tuple[tuple[str, Callable[[Outcome], str]], ...] = (
    ("Orders", lambda outcome: f"{outcome.orders}"),
    ("Attempts (worker starts)", lambda outcome: f"{outcome.worker_starts}"),
    ("Kills between refund and commit", lambda outcome: f"{outcome.kills}"),
    ("Refunds made", lambda outcome: f"{outcome.refunds}"),
    ("Notifications sent", lambda outcome: f"{outcome.notifications}"),
    ("Wall time", lambda outcome: f"{outcome.wall_s:.1f} s"),
)
