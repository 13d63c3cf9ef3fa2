"""Fuzz a served ledger on each store: `python -m scripts.fuzz [--store S] [--cases N] [--raw N]`.

First it sends requests that schemathesis makes from openapi.yaml, then bytes that no honest client sends. Both are sent
in numbered chunks: continue a stopped run with `--first-case-chunk` and `--first-raw-chunk`, or send one chunk again
alone.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.fuzz import cases, raw
from tests.fuzz.ledger import serve

_TELL_EVERY = 10
_is_stopping = threading.Event()


def main() -> int:
    """Fuzz; 1 if anything broke the contract."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=["sqlite", "postgres"], help="without it, both, one after the other")
    parser.add_argument("--cases", type=int, default=50_000, help="cases of the contract on each store")
    parser.add_argument("--raw", type=int, default=200_000, help="raw requests on each store")
    parser.add_argument("--first-case-chunk", type=int, default=0)
    parser.add_argument("--first-raw-chunk", type=int, default=0)
    arguments = parser.parse_args()
    # An exception from this handler could get lost in the interrupted code. So the current chunk is finished first.
    signal.signal(signal.SIGTERM, lambda *_: _is_stopping.set())
    failed = False
    for store in [arguments.store] if arguments.store else ["sqlite", "postgres"]:
        with tempfile.TemporaryDirectory() as scratch, serve(store, Path(scratch)) as target:
            chunks = range(arguments.first_case_chunk, -(-arguments.cases // cases.CHUNK))
            failed |= not _run(f"{store}, cases", cases.Cases(target), chunks, cases.CHUNK)
            chunks = range(arguments.first_raw_chunk, -(-arguments.raw // raw.CHUNK))
            failed |= not _run(f"{store}, raw", raw.RawRequests(target), chunks, raw.CHUNK)
    return int(failed)


def _run(name: str, fuzz: cases.Cases | raw.RawRequests, chunks: range, size: int) -> bool:
    """Run the chunks. True: nothing broke the contract."""
    started_at = time.monotonic()
    try:
        for done, number in enumerate(chunks, 1):
            if _is_stopping.is_set():
                print(f"{name}: stopped before chunk {number}", flush=True)
                break
            fuzz.run_chunk(number)
            if done % _TELL_EVERY == 0 or number == chunks[-1]:
                print(
                    f"{name}: chunk {number}, {done * size:,} sent, {len(fuzz.failures)} failures, "
                    f"{time.monotonic() - started_at:.0f} s, by status {dict(sorted(fuzz.statuses.items()))}",
                    flush=True,
                )
    finally:
        for what, how in fuzz.failures.items():
            print(f"FAILED {what}\n{how}\n", flush=True)
    return not fuzz.failures


if __name__ == "__main__":
    sys.exit(main())
