"""Calls of tenants that try to read each other's data: `python -m scripts.isolation [--store S] [--requests N]`."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack

from tests.helpers.isolation import Intruders
from tests.helpers.noisy_neighbour import NoisyNeighbour, in_background
from tests.helpers.postgres import PostgresServer
from tests.helpers.served_ledger import ServedLedger, make_clock


def main() -> None:
    """Run on the stores. Raises if an answer shows another tenant's data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["sqlite", "postgres"], help="without it, both, one after the other")
    parser.add_argument("--requests", type=int, default=100_000, help="on each store; 100,000 by default")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same calls")
    arguments = parser.parse_args()
    for store in [arguments.store] if arguments.store else ["sqlite", "postgres"]:
        _run(store, arguments.requests, arguments.seed)


def _run(store: str, requests: int, seed: int) -> None:
    started_at = time.monotonic()

    def tell(done: int) -> None:
        if done % 10_000 == 0 or done == requests:
            print(f"{store}: {done:,} requests, 0 leaks, {time.monotonic() - started_at:.0f} s", flush=True)

    with ExitStack() as stack:
        url = "sqlite://"
        if store == "postgres":
            url = stack.enter_context(PostgresServer()).create_database()
        served = stack.enter_context(ServedLedger(url, clock=make_clock(url)))
        intruders = Intruders(served, seed)
        stack.callback(intruders.close)
        neighbour = NoisyNeighbour([served.base_url], served.create_key(), leaves_traces=False)
        with in_background(neighbour):
            intruders.run(requests, tell)
        print(f"{store}: a noisy neighbour was answered {dict(sorted(neighbour.answered.items()))}")
        print(f"{store}: by status {dict(sorted(intruders.statuses.items()))}")


if __name__ == "__main__":
    main()
