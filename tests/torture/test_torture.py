"""The torture's short form, with a blow of each kind; `nox -s torture` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

from tests.helpers.noisy_neighbour import LOADS
from tests.helpers.postgres import PostgresServer
from tests.torture.blows import LEASE_MS, WEIGHTS, draw_blows
from tests.torture.plan import BLOCKING, OBSERVED
from tests.torture.torture import Torture


def test_every_effect_is_acted_once_and_no_answer_is_lost_on_sqlite(tmp_path: Path) -> None:
    rng = random.Random(20_001)
    blows = ["nodes away", "node killed", "clients killed", "node frozen"]
    torture = Torture(
        tmp_path, None, effects=150, blows=blows, clients=24, rng=rng, away_s=(5.0, 6.0), time_limit_s=300
    )
    verdict = torture.run()
    assert verdict.problems == []
    assert torture.struck == dict.fromkeys(blows, 1)
    assert verdict.sources["observed"] > 0, "somebody acted, and could not say so"
    assert torture.decided["resolved: it had happened"] > 0, "somebody was in doubt, and left it to a person"


def test_every_effect_is_acted_once_and_no_answer_is_lost(tmp_path: Path) -> None:
    rng = random.Random(20_000)
    with PostgresServer() as postgres:
        torture = Torture(
            tmp_path,
            postgres,
            effects=300,
            blows=draw_blows(len(WEIGHTS), rng),
            clients=24,
            rng=rng,
            away_s=(2.0, LEASE_MS / 1000 + 1.0),
            time_limit_s=300,
        )
        verdict = torture.run()
    assert verdict.problems == []
    assert verdict.acts_again[OBSERVED] == verdict.acts_again[BLOCKING] == 0
    assert torture.decided["resolved: it had happened"] > 0, "somebody was in doubt, and left it to a person"
    assert set(verdict.released) == {"no", "unknown"}
    assert torture.struck == dict.fromkeys(WEIGHTS, 1)
    assert verdict.sources["observed"] > 0, "somebody acted, and could not say so"
    assert set(torture.neighbour) == set(LOADS), "a noisy neighbour ran all the time"
    met = {blow for blow, _ in verdict.cells}
    assert met == set(WEIGHTS), "each blow met calls; the long form tells which phases of them it did not"
