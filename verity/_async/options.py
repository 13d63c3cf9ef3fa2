"""The options of `protect()`, written once for the client's method and a run's.

Type checkers and editors read the options from here through `Unpack` (PEP 692). `inspect.signature` and `help()` read
the two methods, which spell the options out with their defaults. `test_options.py` compares all three places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from verity._concurrency import AsyncAct
from verity.config import OnConflict
from verity.policy import EffectPolicy, OnObserveError
from verity.values import LeaseResponse

Observe = AsyncAct[object]


class ProtectOptions(TypedDict, total=False):
    """What `protect()` takes besides the key and `act`. The docstring of `protect()` describes each option."""

    observe: Observe | None
    namespace: str | None
    effect_name: str | None
    agent_id: str | None
    lease_duration_ms: int | None
    input_json: Any
    on_conflict: OnConflict
    on_lease: Callable[[LeaseResponse], object] | None
    key_suffix: str | None
    on_observe_error: OnObserveError | None
    policy: EffectPolicy | None
