"""The torture's short form, with a blow of each kind; `nox -s torture` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

from tests.helpers.noisy_neighbour import LOADS
from tests.helpers.postgres import PostgresServer
from tests.torture.torture import WEIGHTS, Torture, draw_blows


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
            time_limit_s=300,
        )
        verdict = torture.run()
    assert verdict.problems == []
    assert torture.struck == dict.fromkeys(WEIGHTS, 1)
    assert verdict.sources["observed"] > 0, "somebody acted, and could not say so"
    assert set(torture.neighbour) == set(LOADS), "a noisy neighbour ran all the time"
    met = {blow for blow, _ in verdict.cells}
    assert met == set(WEIGHTS), "each blow met calls; the long form tells which phases of them it did not"
