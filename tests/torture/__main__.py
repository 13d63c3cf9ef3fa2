"""Torture, at length: `python -m tests.torture [--effects N] [--blows N] [--clients N] [--mode MODE] …`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.helpers.postgres import PostgresServer
from tests.torture.blows import ON_SQLITE, WEIGHTS, draw_blows
from tests.torture.history import ALL_PHASES
from tests.torture.plan import KINDS, MODES
from tests.torture.torture import Torture
from tests.torture.verdict import Verdict

_SHOWN_PROBLEMS = 50
_console = Console()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description="Torture three nodes on one PostgreSQL, or on one SQLite file.")
    parser.add_argument("--effects", type=int, default=20_000)
    parser.add_argument("--blows", type=int, default=150)
    parser.add_argument("--mode", choices=MODES, default="mixed", help="which kinds of effects")
    parser.add_argument("--only", help="only blows of this kind, such as 'node frozen'")
    parser.add_argument("--slow", type=float, default=1 / 40, help="part of effects whose act outlasts a lease")
    parser.add_argument("--renew-all", action="store_true", help="no client lets its leases expire")
    parser.add_argument("--trouble", type=float, default=1 / 5, help="part of acts that raise or are cancelled")
    parser.add_argument("--sqlite", action="store_true", help="three nodes on one SQLite file, without PostgreSQL")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--time-limit", type=float, default=7200)
    options = parser.parse_args()
    _console.print(f"seed {options.seed}")
    rng = random.Random(options.seed)
    started_at = time.monotonic()
    weights = ON_SQLITE if options.sqlite else WEIGHTS
    server = nullcontext() if options.sqlite else PostgresServer()
    with server as postgres, tempfile.TemporaryDirectory() as directory:
        torture = Torture(
            Path(directory),
            postgres,
            effects=options.effects,
            mode=options.mode,
            slow=options.slow,
            trouble=options.trouble,
            lapses=not options.renew_all,
            blows=[options.only] * options.blows if options.only else draw_blows(options.blows, rng, weights),
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
    table.add_row("taken over from a holder whose lease ran out", f"{len(verdict.take_overs):,}")
    table.add_row("of these, from a live call that had it renewed", f"{verdict.overtaken:,}")
    for acted, count in sorted(verdict.released.items()):
        table.add_row(f"released: acted={acted}", f"{count:,}")
    table.add_section()
    for kind in KINDS:
        table.add_row(f"effects {kind}", f"{verdict.kinds[kind]:,}")
        table.add_row("    acts beyond the first of each", f"{verdict.acts_again[kind]:,}")
    table.add_row("effects that a client left to a person", f"{len(verdict.blocked):,}")
    for what, count in sorted(torture.decided.items()):
        table.add_row(f"a person settled: {what}", f"{count:,}")
    for code, count in sorted(verdict.rejected.items()):
        table.add_row(f"results in spools that the ledger refused for good: {code}", f"{count:,}")
    table.add_row("acts that landed later than assumed", f"{verdict.too_late:,}")
    table.add_row("acts of processes that were frozen right before", f"{verdict.frozen:,}")
    table.add_section()
    for blow, count in sorted(torture.struck.items()):
        table.add_row(blow, f"{count:,}")
    table.add_section()
    for error, count in sorted(torture.errors.items()):
        table.add_row(error, f"{count:,}")
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
