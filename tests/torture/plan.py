"""What is planned before a torture begins: which client protects which effects, and which of them get into trouble.

Effects are of three kinds, told by their number: with `observe`; without it, where `on_unknown="block"` must leave each
doubt to a person; and without it, where `on_unknown="act"` gives up exactly-once.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

OBSERVED, BLOCKING, ACTING = "with observe", 'without observe, on_unknown="block"', 'without observe, on_unknown="act"'
KINDS = (OBSERVED, BLOCKING, ACTING)
MODES = {
    "mixed": (OBSERVED, BLOCKING, OBSERVED, OBSERVED, BLOCKING, OBSERVED, OBSERVED, ACTING),
    "observe": (OBSERVED,),
    "block": (BLOCKING,),
    "act": (ACTING,),
}

REFUSED = "act: NotExecuted"
TIMED_OUT = "act: TimeoutError after it acted"
LATE = "act: OutcomeUnknown, and it lands later"
CANCELLED = "act: cancelled or interrupted while it ran"
HASTY = "call: cancelled at any time"
_TROUBLES = (REFUSED, TIMED_OUT, LATE, CANCELLED)

LANDS_WITHIN_S = 0.5
"""How much later what timed out may land in the world."""
VISIBLE_AFTER_S = 0.3
"""How long the world's search does not show yet what has landed."""
ASSUMED_DELAY_S = 1.5
"""What the effects assume of the world: what an act began has landed, and is visible, after this time at the latest.

More than the two above need, since the machine is busy. Less than what is left of a lease when an act begins."""
SETTLE_S = 2.0

BLOCKED = "blocked"
"""What a client notes in place of a result if it leaves an effect to a person."""


def number_of(key: str) -> int:
    """The effect's number."""
    return int(key.partition(":")[2])


def kind_of(key: str, mode: str) -> str:
    """One of `KINDS`."""
    kinds = MODES[mode]
    return kinds[number_of(key) % len(kinds)]


def renews(client: int, *, lapses: bool) -> bool:
    """Whether a client has its leases renewed: every other one, if leases are to lapse."""
    return client % 2 == 0 or not lapses


@dataclass(frozen=True)
class Plan:
    """What a worker is told.

    Attributes:
        name: its own, and that of its files in `directory`.
        nodes: the base URLs of all nodes.
        clients: the numbers of its clients.
        of: how many clients there are in all workers.
        overlap: how many clients come to each effect.
        lapses: whether every other client lets its leases expire where an act takes long.
        stragglers: of how many effects the first holder takes longer between act and commit than a lease lasts.
        trouble: which part of the acts raises or is cancelled, 0 to 1.
        spool_when: when its clients write results to their spool; None: they have none.
        is_async: which of the two clients it uses.
    """

    name: str
    directory: str
    nodes: list[str]
    api_key: str
    world_port: int
    effects: int
    mode: str
    clients: list[int]
    of: int
    overlap: int
    lease_ms: int
    lapses: bool
    stragglers: int
    trouble: float
    spool_when: Literal["trouble", "always"] | None
    is_async: bool

    def save(self) -> Path:
        path = Path(self.directory) / f"{self.name}.plan"
        path.write_text(json.dumps(asdict(self)))
        return path

    @property
    def told(self) -> Path:
        """What its clients were told: `CLIENT KEY RESULT` in each line."""
        return Path(self.directory) / f"{self.name}.told"

    @property
    def history(self) -> Path:
        """When its clients came to what: a `Mark` in each line."""
        return Path(self.directory) / f"{self.name}.history"

    @property
    def counts(self) -> Path:
        """How often which error came, one object for each life of the worker that ended in order."""
        return Path(self.directory) / f"{self.name}.counts"

    @property
    def spool(self) -> Path | None:
        """The spool that its clients share."""
        return None if self.spool_when is None else Path(self.directory) / f"{self.name}.spool"

    def shares(self) -> dict[int, list[str]]:
        """The keys that each client of this worker protects."""
        shares: dict[int, list[str]] = {client: [] for client in self.clients}
        for number in range(self.effects):
            for client in random.Random(number).sample(range(self.of), self.overlap):
                if client in shares:
                    shares[client].append(f"effect:{number}")
        return shares

    def is_straggler(self, key: str) -> bool:
        """Whether the effect's first holder takes too long after its act."""
        return number_of(key) % (self.effects // self.stragglers) == 0

    def cancels(self, key: str) -> bool:
        """Whether the effect's acts are cancelled if their lease is lost; some of those with observe."""
        return kind_of(key, self.mode) == OBSERVED and number_of(key) % 16 < 4

    def trouble_of(self, key: str, fence: int) -> str | None:
        """What the act under this fence gets into; only the first one gets into any."""
        chance = random.Random(f"trouble {key}")
        return chance.choice(_TROUBLES) if fence == 1 and chance.random() < self.trouble else None

    def is_hasty(self, client: int, key: str) -> bool:
        """Whether the first call of this client is cancelled at any time."""
        return random.Random(f"haste {client} {key}").random() < self.trouble / 4
