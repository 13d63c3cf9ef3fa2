"""An entry of a spool: a result that waits for its commit, and all that the commit needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from verity._clock import wall_clock_ns
from verity._core.payload import encode_json
from verity._store.sqlite.location import read_location

Kind = Literal["committed", "unprotected"]


class LedgerName(NamedTuple):
    """Which ledger an entry is for: the client's base URL, and the environment of its API key."""

    base_url: str
    environment: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A result that waits for its commit. The payloads and the token stay out of the repr.

    Attributes:
        base_url, environment: the ledger.
        namespace, effect_key: the effect.
        kind: `committed`: act ran under a lease, and the commit was tried or is about to be. `unprotected`: act ran
            without a lease, because the ledger was away.
        fence: the fence token of the lease; None if the effect was unprotected.
        token: the lease token; for an unprotected effect a random id.
        result: the result's compact JSON.
        source: `acted` or `observed`.
        run_id: the run, for the audit trail.
        lease_request: the JSON of the effect's lease request.
        created_at: ms since 1970.
        id: the row's number, in the order of writing.
        code: why it can never be committed; None for an entry that waits.
        rejected_at: ms since 1970; None for an entry that waits.
    """

    base_url: str
    environment: str
    namespace: str
    effect_key: str
    kind: Kind
    fence: int | None
    token: str = field(repr=False)
    result: str = field(repr=False)
    source: str
    run_id: str | None = None
    lease_request: str | None = field(default=None, repr=False)
    created_at: int = 0
    id: int = 0
    code: str | None = None
    rejected_at: int | None = None

    @property
    def ledger(self) -> LedgerName:
        """The ledger that the entry is for."""
        return LedgerName(self.base_url, self.environment)

    def commit_body(self) -> dict[str, Any]:
        """The commit request with this result; of an unprotected effect it has no valid tokens.

        Raises:
            ValueError: the kind is not known, or the result is not JSON: something else wrote the file.
        """
        if self.kind not in get_args(Kind):
            raise ValueError(self.kind)
        body = {"effectKey": self.effect_key, "fenceToken": self.fence or 1, "leaseToken": self.token}
        body |= {"result": json.loads(self.result), "source": self.source}
        return body if self.run_id is None else {**body, "runId": self.run_id}

    @property
    def idempotency_key(self) -> str:
        """The idempotency key of that request: the same for each replay, so that none meets a lease of another one."""
        return hashlib.sha256(self.token.encode()).hexdigest()[:32]

    @property
    def value(self) -> Any:
        """The result."""
        return json.loads(self.result)

    def lease_body(self) -> dict[str, Any]:
        """The request for a lease under which the result can be committed.

        Raises:
            ValueError: it is not JSON: something else wrote the file.
        """
        return {**json.loads(self.lease_request or "{}"), "effectKey": self.effect_key}

    def has_result(self, value: Any) -> bool:
        """Whether this JSON value is the entry's result."""
        return encode_json(value).decode() == self.result


def name_ledger(base_url: str, environment: str) -> LedgerName:
    """The name of a client's ledger. An embedded one has the absolute path of its file."""
    if not base_url.startswith("sqlite:"):
        return LedgerName(base_url, environment)
    path = read_location(base_url).path
    return LedgerName("sqlite://" if path is None else f"sqlite:///{path}", environment)


def make_entry(
    ledger: LedgerName,
    namespace: str,
    effect_key: str,
    kind: Kind,
    *,
    fence: int | None,
    token: str,
    result: Any,
    source: str,
    run_id: str | None = None,
    lease_request: Mapping[str, Any] | None = None,
) -> Entry:
    """An entry as of now. `result` is a JSON value that `_core/payload.py` has checked."""
    request = None if lease_request is None else encode_json(dict(lease_request)).decode()
    text = encode_json(result).decode()
    now_ms = wall_clock_ns() // 1_000_000
    return Entry(*ledger, namespace, effect_key, kind, fence, token, text, source, run_id, request, now_ms)
