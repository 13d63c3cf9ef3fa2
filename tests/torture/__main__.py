"""Torture, at length: `python -m tests.torture [--effects N] [--blows N] [--clients N] [--seed N] [--only BLOW]`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.helpers.postgres import PostgresServer
from tests.torture.history import ALL_PHASES
from tests.torture.torture import Torture, draw_blows
from tests.torture.verdict import Verdict

_SHOWN_PROBLEMS = 50
_console = Console()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Torture three nodes on one PostgreSQL.")
    parser.add_argument("--effects", type=int, default=20_000)
    parser.add_argument("--blows", type=int, default=150)
    parser.add_argument("--only", help="only blows of this kind, such as 'node frozen'")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--time-limit", type=float, default=7200)
    options = parser.parse_args()
    _console.print(f"seed {options.seed}")
    rng = random.Random(options.seed)
    started_at = time.monotonic()
    with PostgresServer() as postgres, tempfile.TemporaryDirectory() as directory:
        torture = Torture(
            Path(directory),
            postgres,
            effects=options.effects,
            blows=[options.only] * options.blows if options.only else draw_blows(options.blows, rng),
            clients=options.clients,
            rng=rng,
            time_limit_s=options.time_limit,
            say=lambda line: _console.print(f"{time.monotonic() - started_at:7.1f} s  {line}"),
        )
        verdict = torture.run()
    print_report(torture, verdict, time.monotonic() - started_at)
    return 1 if verdict.problems else 0


def print_report(torture: Torture, verdict: Verdict, wall_s: float) -> None:
    """A table, and the problems."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("effects", f"{verdict.effects:,}")
    table.add_row("acts in the world's own record", f"{verdict.acts:,}")
    table.add_row("answers to clients, each compared with the ledger", f"{verdict.told:,}")
    for source, count in sorted(verdict.sources.items()):
        table.add_row(f"committed: {source}", f"{count:,}")
    table.add_row("taken over from a holder whose lease ran out", f"{verdict.take_overs:,}")
    table.add_row("acted again, for want of an observe", f"{verdict.acted_again:,}")
    table.add_section()
    for blow, count in sorted(torture.struck.items()):
        table.add_row(blow, f"{count:,}")
    table.add_section()
    for error, count in sorted(torture.errors.items()):
        table.add_row(f"{error}, and asked again", f"{count:,}")
    table.add_section()
    for load, count in sorted(torture.neighbour.items()):
        table.add_row(f"answered to the noisy neighbour: {load}", f"{count:,}")
    table.add_section()
    table.add_row("seconds", f"{wall_s:,.0f}")
    table.add_row("problems", f"{len(verdict.problems):,}")
    _console.print(table)
    met = Table("calls that it met", *ALL_PHASES)
    for blow in sorted(torture.struck):
        met.add_row(blow, *(f"{verdict.cells[blow, phase]:,}" for phase in ALL_PHASES))
    _console.print(met)
    for line in verdict.unmet:
        _console.print(line)
    for problem in verdict.problems[:_SHOWN_PROBLEMS]:
        _console.print(problem, markup=False)


if __name__ == "__main__":
    sys.exit(main())
