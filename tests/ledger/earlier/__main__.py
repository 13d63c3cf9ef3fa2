"""Record the present version's data, of both kinds of store: `python -m tests.ledger.earlier`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.helpers.postgres import PostgresServer
from tests.helpers.stores import Bench
from tests.ledger.earlier import fill, path_of, write
from verity._store.postgres import migrations
from verity._store.sqlite.migrations import SCHEMA_VERSION

with tempfile.TemporaryDirectory() as directory, PostgresServer() as server:
    for kind, name, version in (
        ("file", "sqlite", SCHEMA_VERSION),
        ("postgres", "postgres", migrations.SCHEMA_VERSION),
    ):
        if path_of(name, version).exists():
            continue
        bench = Bench(kind, Path(directory), server.create_database)
        fill(bench.store, bench.clock)

        def execute(sql: str, bench: Bench = bench) -> list[dict[str, Any]]:
            _, table = sql.rsplit(maxsplit=1)
            return [dict(zip(bench.columns_of(table), row, strict=True)) for row in bench.execute(sql)]

        write(name, version, execute)
        bench.store.close()
