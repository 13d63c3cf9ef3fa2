"""Measures the served ledger under load: throughput, latency and CPU, beside a lower bound in the same run.

    python -m benchmarks.ledger [clients] [group] [nodes] [held] [--quick] [--seconds 3] [--rounds 5] [--json FILE]

One effect is a lease and a commit, each answered when it is on disk. A lean generator in a process of its own makes the
load. The ledgers are `verity serve` processes on SQLite and on a private PostgreSQL. Sides are measured in turn
(A B A B …), so that a drift of the machine's speed affects all of them. Each row shows the medians, and the ratio to
the first side. On a machine that runs other programs, the CPU for each effect is more reliable than the throughput.

clients: 1, 16, 64 and 256 clients on each store.       group: group commit on and off.
nodes: one and two nodes on one PostgreSQL.             held: a ledger that holds 1 thousand to 10 million effects.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import floors
from benchmarks.fill import fill_postgres, fill_sqlite
from benchmarks.sampling import Sample, read_cpu_s, to_sample
from tests.helpers.postgres import PostgresServer

VERITY = [sys.executable, "-c", "from verity.cli import main; main()"]
FEW = 1_000
# A quarter of a small machine's memory, and checkpoints seldom: what docs/scaling.md advises.
POSTGRES = {"shared_buffers": "2GB", "max_wal_size": "16GB", "checkpoint_timeout": "30min"}
LEDGER_BATCH = 256
NO_GROUP = 1
Measure = Callable[[int, float], Sample]
"""Takes the number of clients and of seconds."""


@contextmanager
def serve(url: str, max_batch: int) -> Iterator[tuple[int, int]]:
    """A node: its process id and port."""
    command = [*VERITY, "serve", "--database", url, "--port", "0", "--max-batch", str(max_batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            listening = re.search(r":(\d+)/v1$", process.stdout.readline())
            assert listening
            yield process.pid, int(listening[1])
        finally:
            process.terminate()


@contextmanager
def load_generator() -> Iterator[Callable[..., dict[str, Any]]]:
    """Start the load generator's process; yields a function that runs load in it."""
    command = [sys.executable, "-m", "benchmarks.load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def run(**about: Any) -> dict[str, Any]:
            stdin.write(json.dumps(about) + "\n")
            stdin.flush()
            answer: dict[str, Any] = json.loads(stdout.readline())
            return answer

        yield run
        stdin.close()


class Ledger:
    """A database with a ledger in it, and the nodes that serve it."""

    def __init__(self, bench: Bench, url: str, database_pids: Callable[[], list[int]]) -> None:
        self.url = url
        self._bench = bench
        self._database_pids = database_pids
        self._nodes = {(LEDGER_BATCH, 0): bench.stack.enter_context(serve(url, LEDGER_BATCH))}  # makes the schema
        create = [*VERITY, "keys", "create", "--database", url, "--environment", "test"]
        self._key = subprocess.run(create, capture_output=True, text=True, check=True).stdout.strip()

    def side(self, *, nodes: int = 1, max_batch: int = LEDGER_BATCH) -> Measure:
        """A side that measures so many nodes. Nodes are started on first use."""
        for number in range(nodes):
            if (max_batch, number) not in self._nodes:
                self._nodes[max_batch, number] = self._bench.stack.enter_context(serve(self.url, max_batch))
        chosen = [self._nodes[max_batch, number] for number in range(nodes)]
        pids, ports = [pid for pid, _ in chosen], [port for _, port in chosen]

        def measure(clients: int, seconds: float) -> Sample:
            node_s, database = read_cpu_s(pids), self._database_pids()
            database_s = read_cpu_s(database)
            run = self._bench.load(ports=ports, key=self._key, clients=clients, seconds=seconds)
            return to_sample(run, read_cpu_s(pids) - node_s, read_cpu_s(database) - database_s)

        return measure


class Bench:
    """The processes of one run of the benchmark, and the comparisons between them."""

    def __init__(self, stack: ExitStack, seconds: float, rounds: int) -> None:
        self.stack = stack
        self.load = stack.enter_context(load_generator())
        self.results: list[dict[str, Any]] = []
        self._seconds = seconds
        self._rounds = rounds
        self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="verity-benchmark-")))
        self.postgres = stack.enter_context(PostgresServer(**POSTGRES))
        self._ledgers: dict[tuple[str, int], Ledger] = {}

    def ledger(self, store: str, held: int = FEW) -> Ledger:
        """The ledger on this store that is filled with so many effects; made on first use."""
        if (store, held) not in self._ledgers:
            started_at = time.monotonic()
            self._ledgers[store, held] = self._make_sqlite(held) if store == "SQLite" else self._make_postgres(held)
            if held > FEW:
                print(f"filled {store} with {held:,} effects in {time.monotonic() - started_at:.0f} s", flush=True)
        return self._ledgers[store, held]

    def _make_sqlite(self, held: int) -> Ledger:
        path = self._directory / f"{held}.db"
        fill_sqlite(path, held)
        return Ledger(self, f"sqlite:///{path}", list)

    def _make_postgres(self, held: int) -> Ledger:
        url = self.postgres.create_database()
        ledger = Ledger(self, url, self.postgres.processes)
        fill_postgres(self.postgres, url, held)
        return ledger

    def compare(self, title: str, clients: int, sides: dict[str, Measure]) -> None:
        """Measure the sides in turn, and print the medians."""
        samples: dict[str, list[Sample]] = {name: [] for name in sides}
        for measure in sides.values():
            measure(clients, self._seconds / 3)  # warm: connections, plans, pages
        for _ in range(self._rounds):
            for name, measure in sides.items():
                samples[name].append(measure(clients, self._seconds))
        medians = {
            name: Sample(*(statistics.median(column) for column in zip(*map(_values, found), strict=True)))
            for name, found in samples.items()
        }
        first = next(iter(medians.values()))
        for name, row in medians.items():
            print(
                f"{name:34}{clients:8}{row.per_s:11,.0f}{row.per_s / first.per_s:7.2f}x{row.p50_ms:9.2f}"
                f"{row.p99_ms:9.2f}{row.node_cpu:9.0f}{row.database_cpu:10.0f}{row.load_cpu:7.0f}",
                flush=True,
            )
            self.results.append({"section": title, "side": name, "clients": clients, **asdict(row)})

    def head(self, title: str) -> None:
        print(f"\n{title:34}{'clients':>8}{'effects/s':>11}{'ratio':>8}{'p50 ms':>9}{'p99 ms':>9}", end="")
        print(f"{'node us':>9}{'database':>10}{'load':>7}", flush=True)


def _values(sample: Sample) -> list[float]:
    return list(asdict(sample).values())


def compare_clients(bench: Bench) -> None:
    bench.head("clients")
    bench.postgres.execute(floors.TABLES)

    def synced_pairs(_clients: int, seconds: float) -> Sample:
        return to_sample(floors.write_synced_pairs(seconds))

    def statements(clients: int, seconds: float) -> Sample:
        pids = bench.postgres.processes()
        run = uvloop.run(floors.run_statements(bench.postgres.url(), clients, seconds))
        return to_sample(run, database_s=read_cpu_s([pids[0]]))

    for clients in (1, 16, 64, 256):
        sides: dict[str, Measure] = {}
        if clients == 1:
            sides["floor: two synced writes"] = synced_pairs
        sides["SQLite"] = bench.ledger("SQLite").side()
        bench.compare("clients", clients, sides)
        sides = {}
        if clients == 64:
            sides["floor: asyncpg, no HTTP"] = statements
        sides["PostgreSQL"] = bench.ledger("PostgreSQL").side()
        bench.compare("clients", clients, sides)


def compare_group_commit(bench: Bench) -> None:
    bench.head("group commit")
    for store in ("SQLite", "PostgreSQL"):
        for clients in (1, 64):
            sides = {
                f"{store}, group commit": bench.ledger(store).side(),
                f"{store}, one by one": bench.ledger(store).side(max_batch=NO_GROUP),
            }
            bench.compare("group", clients, sides)


def compare_nodes(bench: Bench) -> None:
    bench.head("nodes")
    for clients in (64, 256):
        sides = {
            "PostgreSQL, 1 node": bench.ledger("PostgreSQL").side(),
            "PostgreSQL, 2 nodes": bench.ledger("PostgreSQL").side(nodes=2),
        }
        bench.compare("nodes", clients, sides)


def compare_held(bench: Bench, sizes: list[int]) -> None:
    bench.head("held")
    for store in ("SQLite", "PostgreSQL"):
        bench.compare("held", 64, {f"{store}, {held:,} held": bench.ledger(store, held).side() for held in sizes})


def main() -> None:
    sections = {"clients": compare_clients, "group": compare_group_commit, "nodes": compare_nodes}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", help="all by default", default=[*sections, "held"])
    parser.add_argument("--quick", action="store_true", help="short, and at the most 100 thousand effects held")
    parser.add_argument("--seconds", type=float, help="length of one measurement (default 3)")
    parser.add_argument("--rounds", type=int, help="measurements of each side, in turn (default 5)")
    parser.add_argument("--held", type=int, nargs="+", help="(default 1000 1000000 10000000)")
    parser.add_argument("--json", type=Path, help="write the medians to this file, too")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (1.0 if arguments.quick else 3.0)
    with ExitStack() as stack:
        bench = Bench(stack, seconds, arguments.rounds or (3 if arguments.quick else 5))
        print(
            f"Python {sys.version.split()[0]}, PostgreSQL {bench.postgres.query('SHOW server_version')[0][0]}, ", end=""
        )
        print(f"{os.cpu_count()} cores; one effect = lease + commit; CPU in us for each effect")
        for name in arguments.sections:
            if name == "held":
                compare_held(
                    bench, arguments.held or ([FEW, 100_000] if arguments.quick else [FEW, 1_000_000, 10_000_000])
                )
            else:
                sections[name](bench)
        if arguments.json:
            arguments.json.write_text(json.dumps(bench.results, indent=2))


if __name__ == "__main__":
    main()
