"""The results of one measurement, and the CPU time of processes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Sample:
    """The measurements of one round. CPU is in us for each effect."""

    per_s: float
    p50_ms: float
    p99_ms: float
    node_cpu: float
    database_cpu: float
    load_cpu: float


def to_sample(run: dict[str, Any], node_s: float = 0.0, database_s: float = 0.0) -> Sample:
    latencies = sorted(run["latencies_us"])
    count = len(latencies)
    return Sample(
        per_s=count / run["wall_s"],
        p50_ms=latencies[count // 2] / 1e3,
        p99_ms=latencies[min(count - 1, count * 99 // 100)] / 1e3,
        node_cpu=node_s / count * 1e6,
        database_cpu=database_s / count * 1e6,
        load_cpu=run["cpu_s"] / count * 1e6,
    )


def read_cpu_s(pids: list[int]) -> float:
    """The user and system time of these processes so far, in seconds; processes that have ended count nothing."""
    ticks = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
