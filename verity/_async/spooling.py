"""How results go into the spool, and out of it: see `verity/_spool/file.py` for the file.

An entry leaves the spool only when the ledger has confirmed its result, or has refused it for good. A commit is
idempotent for its lease, so to replay an entry twice, or in two processes at once, does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from verity._async.effect import AsyncEffect
from verity._async.ledger import AsyncLedger, Wire
from verity._concurrency import AsyncFunction, AsyncRuntime, async_blocking
from verity._core.backoff import SEND_ATTEMPTS
from verity._core.bodies import to_wire
from verity._core.failure import add_note
from verity._core.keys import check_namespace
from verity._core.observation import result_of
from verity._core.payload import round_trip
from verity._core.replies import CACHED_COMPLETED, CACHED_FAILED, is_transient, why_never
from verity._spool import Entry, Spool, SpoolError, make_entry, name_ledger
from verity.config import ClientSettings
from verity.errors import LeaseConflictError, VerityApiError, VerityError
from verity.values import CommitRequestBody, LeaseRequestBody, LeaseResponse

T = TypeVar("T")

REPLAY_S = 10.0
"""For how many seconds a call replays entries of other effects at most."""
REPLAY_TIMEOUT_S = 5.0
"""How many seconds a replayed commit waits for its answer."""
AGAIN_AFTER_S = 30.0
"""How many seconds after a replay that left something, or after a result was spooled, a call replays again."""
UNREADABLE_S = 5.0
"""For how many seconds calls do not look for their effects' entries after the spool could not be read."""

STALE = "stale_fence"
"""The code of a commit whose lease is not the current one. It is final if another holder has committed another result,
or an admin has said that nobody acted."""
OTHER_RESULT = "other_result"
"""Why an unprotected result can't be committed: the effect has another one."""
INVALID_ENTRY = "invalid_entry"
"""Why an entry can't be committed: its fields are no commit. Something else wrote the file."""


class AsyncSpooler:
    """The spool of one client.

    Attributes:
        name: the client's ledger, as entries have it.
        writes_first: whether results are written before their first commit.
    """

    def __init__(self, spool: Spool, ledger: AsyncLedger, runtime: AsyncRuntime, settings: ClientSettings) -> None:
        self._spool = spool
        self._ledger = ledger
        self._runtime = runtime
        self._logger = settings.logger
        self.name = name_ledger(settings.base_url, settings.environment)
        self._due_at = -math.inf
        self._unreadable_until = -math.inf
        self.writes_first = settings.spool_when == "always"

    # -- into the spool --

    async def keep(self, effect: AsyncEffect, body: Wire) -> Entry | None:
        """Write the result of a commit request durably. None: it could not be written, as a warning says."""
        entry = self._make(effect, "committed", body["result"], body["source"], body["leaseToken"], body["fenceToken"])
        return entry if await self._write(entry) else None

    async def keep_unprotected(self, effect: AsyncEffect, source: str, result: Any) -> bool:
        """Write the result of an effect without a lease durably. False: it could not be written."""
        self._replay_soon()
        return await self._write(self._make(effect, "unprotected", result, source, self._runtime.new_id()))

    async def keep_refused(self, effect: AsyncEffect, body: Wire, entry: Entry | None, error: VerityError) -> bool:
        """Keep a result whose commit failed. Returns whether it is in the spool and will be replayed.

        Args:
            effect: the effect.
            body: the commit request.
            entry: the entry, if the result was written before.
            error: why the commit is not confirmed.
        """
        code = why_never(error)
        if code is None:
            self._replay_soon()
            return (entry or await self.keep(effect, body)) is not None
        source, token, fence = body["source"], body["leaseToken"], body["fenceToken"]
        refused = entry or self._make(effect, "committed", body["result"], source, token, fence)
        await self._reject(refused, code)
        return False

    async def keep_oversized(self, effect: AsyncEffect, source: str, result: Any, tokens: Wire | None = None) -> None:
        """Keep a result that is too large to be committed, for people. One that is not JSON can't be kept.

        Args:
            effect: the effect.
            source: `acted` or `observed`.
            result: the result.
            tokens: those of the lease; None for an effect without one.
        """
        try:
            value = round_trip(result_of(result), "result", max_bytes=math.inf)
        except VerityError:
            return
        if tokens is None:
            entry = self._make(effect, "unprotected", value, source, self._runtime.new_id())
        else:
            entry = self._make(effect, "committed", value, source, tokens["leaseToken"], tokens["fenceToken"])
        await self._reject(entry, "payload_too_large")

    async def _write(self, entry: Entry) -> bool:
        def add() -> bool:
            self._spool.add(entry)
            return True

        return await self._guarded(add, otherwise=False)

    def _replay_soon(self) -> None:
        self._due_at = min(self._due_at, self._runtime.monotonic() + AGAIN_AFTER_S)

    def _make(
        self, effect: AsyncEffect, kind: Any, result: Any, source: str, token: str, fence: int | None = None
    ) -> Entry:
        return make_entry(
            self.name,
            effect.namespace,
            effect.key,
            kind,
            fence=fence,
            token=token,
            result=result,
            source=source,
            run_id=effect.lease_body.get("runId"),
            lease_request=effect.lease_body,
        )

    # -- out of it --

    async def find(self, effect: AsyncEffect, lease: LeaseResponse, *, is_left: bool) -> Entry | None:
        """The effect's result, if it is in the spool although this call was granted the lease.

        An earlier holder may have written it while this call waited. Its own lease has expired by now.

        Args:
            effect: the effect.
            lease: the grant.
            is_left: whether `before_lease` left an entry.
        """
        if not is_left and lease.prior_state in ("none", "reset"):
            return None
        return next(iter(await self.read(effect)), None)

    async def before_lease(self, effect: AsyncEffect) -> bool:
        """Replay what is due, and the effect's own entries. Returns whether one of its entries is left.

        Raises:
            VerityError: the effect has a result, and the ledger did not confirm it. The call must not go on: it could
                be granted a lease, and act again.
        """
        if self._runtime.monotonic() >= self._due_at:
            await self.replay()
        is_left = False
        if self._runtime.monotonic() < self._unreadable_until:
            return False
        for entry in await self.read(effect):
            try:
                await self.settle(entry)
            except LeaseConflictError:  # another holder is at work; this call waits for it
                is_left = True
            except VerityError as error:
                add_note(error, f"The spool has a result of effect {entry.effect_key!r}, and commits it later.")
                raise
        return is_left

    async def read(self, effect: AsyncEffect) -> list[Entry]:
        """The entries of the effect, the latest grant's first."""
        if self._spool.is_known_to_lack(self.name, effect.namespace, effect.key):
            return []
        found = await self._guarded(lambda: self._read_effect(effect), otherwise=None)
        if found is None:
            self._unreadable_until = self._runtime.monotonic() + UNREADABLE_S
        return found or []

    def _read_effect(self, effect: AsyncEffect) -> list[Entry] | None:
        return self._spool.read_effect(self.name, effect.namespace, effect.key)

    async def replay(self) -> None:
        """Replay the entries of the ledger, oldest first, for some seconds. It stops once the ledger is away."""
        self._due_at = math.inf
        is_done = False
        try:
            is_done = await self._replay(self._runtime.monotonic() + REPLAY_S)
        finally:
            if not is_done:
                self._replay_soon()

    async def _replay(self, ends_at: float) -> bool:
        """Whether no entry is left."""
        after, is_left = 0, False
        while entries := await self._guarded(partial(self._spool.read, self.name, after=after), otherwise=None):
            for entry in entries:
                if self._runtime.monotonic() >= ends_at:
                    return False
                try:
                    await self.settle(entry, attempts=1, timeout_s=REPLAY_TIMEOUT_S)
                except VerityError as error:
                    self._logger.debug("A spooled result is not committed yet (%s).", type(error).__name__)
                    if is_transient(error):
                        return False
                    is_left = True
                after = entry.id
        return entries is not None and not is_left

    async def settle(
        self, entry: Entry, *, attempts: int = SEND_ATTEMPTS, timeout_s: float | None = None
    ) -> str | None:
        """Commit an entry, and take it out of the spool. Returns None, or why it can never be committed.

        Where the entry has no lease, or the effect was granted to another holder since, the result is committed under
        a lease of its own, unless the effect is finished or an admin has said that nobody acted.

        Raises:
            LeaseConflictError: the effect is another holder's at the moment.
            VerityError: the ledger is away, or refuses for now. The entry stays.
        """
        try:
            code = await self._commit(entry, attempts, timeout_s)
        except VerityError as error:
            code = why_never(error)
            if code is None:
                raise
        if code is None:
            await self.forget(entry)
            self._logger.info("The spooled result of effect %r is committed.", entry.effect_key)
        else:
            await self._reject(entry, code)
        return code

    async def forget(self, entry: Entry) -> None:
        """Remove an entry that the ledger has confirmed. If that fails, it is replayed once more, which is harmless."""
        await self._guarded(lambda: self._spool.remove(entry), otherwise=None)

    async def _reject(self, entry: Entry, code: str) -> None:
        await self._guarded(lambda: self._spool.reject(entry, code), otherwise=None)
        self._logger.warning(
            "The result of effect %r in namespace %r can never be committed (%s): `verity recover --list` shows it. "
            "Compare it with the effect in the ledger, and reconcile the two.",
            entry.effect_key,
            entry.namespace,
            code,
        )

    async def _commit(self, entry: Entry, attempts: int, timeout_s: float | None) -> str | None:
        try:
            namespace = check_namespace(entry.namespace)
            body = to_wire(entry.commit_body(), CommitRequestBody)
            request = to_wire(entry.lease_body(), LeaseRequestBody)
        except (VerityError, ValueError, TypeError):
            return INVALID_ENTRY
        commit = partial(self._ledger.commit, namespace, attempts=attempts, timeout_s=timeout_s)
        if entry.kind == "committed":
            try:
                await commit(body)
            except VerityApiError as error:
                if error.code != STALE:
                    raise
            else:
                return None
        return await self._commit_anew(entry, namespace, body, request, commit)

    async def _commit_anew(
        self, entry: Entry, namespace: str, body: Wire, request: Wire, commit: AsyncFunction[Any]
    ) -> str | None:
        """Commit the entry under a lease of its own."""
        lease = await self._ledger.lease(namespace, request, idempotency_key=entry.idempotency_key)
        if lease.status == CACHED_FAILED:
            return "effect_finished"
        if lease.status == CACHED_COMPLETED:
            other = OTHER_RESULT if entry.kind == "unprotected" else STALE
            return None if entry.has_result(lease.cached_result) else other
        tokens = {"fenceToken": lease.fence_token, "leaseToken": lease.lease_token}
        if entry.kind == "committed" and lease.prior_state == "reset":
            await self._give_back(namespace, {"effectKey": entry.effect_key, **tokens, "acted": "no"})
            return STALE
        try:
            await commit({**body, **tokens})
        except VerityApiError as error:
            if error.code != STALE:
                raise
            raise LeaseConflictError(str(error), status_code=409, effect_key=error.effect_key) from error
        return None

    async def _give_back(self, namespace: str, body: Wire) -> None:
        try:
            await self._ledger.release(namespace, body)
        except VerityError as error:  # the lease expires by itself
            self._logger.debug("A lease could not be given back (%s).", type(error).__name__)

    async def _guarded(self, work: Callable[[], T], *, otherwise: T) -> T:
        """Run an operation of the spool. If it fails, warn, and return `otherwise`: the effect matters more."""
        try:
            return await async_blocking(work)
        except SpoolError as error:
            self._logger.warning("The spool %s can't be used: %s.", self._spool.path, error)
            return otherwise
