"""The connections to PostgreSQL: a pool for each use, their settings and timeouts, and the meaning of errors.

Errors of the driver become one of two exceptions. `StatementRefused`: the statement was certainly not carried out.
`Unanswered` (with its subclass `TooSlow`): whether it was carried out is unknown.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg

from verity._clock import monotonic
from verity._store.postgres.session import Session, Unanswered
from verity._store.reads import READ_WITHIN_S
from verity.errors import VerityConfigError

_logger = logging.getLogger("verity.server")

CONNECT_TIMEOUT_S = 3.0
STATEMENT_TIMEOUT_S = 10.0
_GRACE_S = 1.0
"""How much longer than the server's own timeout the client waits. A server that is alive reports the timeout itself."""
MAX_WAITING_READS = 1_000
_AWAY_FOR_S = 0.25
"""How long after a failed connect no other one is tried."""
SPARE = 2
"""How many more batches of a kind may be under way while others are slow."""


class Use(enum.Enum):
    """What a connection is for. Each use has a pool of its own, so that no use can take up another's connections."""

    CALLS = enum.auto()
    """Batches of leases, of commits, and of other calls."""
    RENEWALS = enum.auto()
    """Batches of renewals. Their statements time out early, while the leases still last."""
    SINGLES = enum.auto()
    """Calls that are attempted alone, because their batch was blocked, slow or refused."""
    PATIENT = enum.auto()
    """Calls that were blocked or slow although they were alone."""
    READS = enum.auto()
    """Reads of callers. Read-only; a read whose caller has left is cancelled."""
    NODE_READS = enum.auto()
    """The node's own reads: API keys, effects that requests wait for, readiness. Read-only."""
    COMMANDS = enum.auto()
    """Migrations, purges, changes of API keys. They wait for locks."""


class Limits(NamedTuple):
    """The connections of one use: how many, and the server's timeouts in seconds. A lock timeout of 0 is none."""

    size: int
    statement_timeout_s: float
    lock_timeout_s: float
    only_reads: bool = False


BATCH_LOCK_TIMEOUT_S = 0.25
"""Far below the shortest lease. Another transaction's lock delays a batch by no more than this."""
SINGLE_LOCK_TIMEOUT_S = 0.1
BRISK_S = 1.0
SINGLES = 4
NODE_READERS = 2


def limits_for(
    width: int, readers: int, statement_timeout_s: float, read_within_s: float = READ_WITHIN_S
) -> dict[Use, Limits]:
    """The limits of each use.

    Args:
        width: how many batches of a kind may be under way at a time.
        readers: the most connections for callers' reads.
        statement_timeout_s: how long a statement may take, in seconds.
        read_within_s: how long a caller's read may take, in seconds.
    """
    brisk_s = min(BRISK_S, statement_timeout_s)
    lock_s = min(BATCH_LOCK_TIMEOUT_S, statement_timeout_s / 2)
    return {
        Use.CALLS: Limits(3 * (width + SPARE), statement_timeout_s, lock_s),
        Use.RENEWALS: Limits(width + SPARE, brisk_s, lock_s),
        Use.SINGLES: Limits(SINGLES, brisk_s, min(SINGLE_LOCK_TIMEOUT_S, lock_s)),
        Use.PATIENT: Limits(SINGLES, statement_timeout_s, lock_s),
        Use.READS: Limits(readers, read_within_s, 0, only_reads=True),
        Use.NODE_READS: Limits(NODE_READERS, statement_timeout_s, 0, only_reads=True),
        Use.COMMANDS: Limits(2, statement_timeout_s, 0),
    }


_SET_UP = """
SELECT set_config('synchronous_commit',
                  CASE WHEN current_setting('synchronous_commit') IN ('on', 'remote_apply')
                       THEN current_setting('synchronous_commit') ELSE 'on' END, false),
       set_config('plan_cache_mode', 'force_custom_plan', false),
       set_config('client_min_messages', 'warning', false),
       set_config('statement_timeout', $1, false),
       set_config('lock_timeout', $2, false),
       set_config('default_transaction_isolation', 'read committed', false)
"""
"""Commits are durable and warnings arrive, whatever the server's defaults are. Plans are made for each statement: a
generic plan that was made for an empty table would scan the whole table later."""

DANGERS = {
    "fsync": ("off", "a crash of the machine loses acknowledged commits and may break the database"),
    "full_page_writes": ("off", "a crash of the machine may break the database"),
}

ENCODINGS = frozenset({"UTF8", "SQL_ASCII"})
"""Encodings that can store any text. The client sends UTF-8, which SQL_ASCII stores unchanged."""


class StatementRefused(Exception):
    """The database refused a statement: it was certainly not carried out.

    Attributes:
        is_locked: it waited for another transaction's lock until the lock timeout.
        is_passing: another transaction was in its way. The same statement may succeed now.
        is_about_a_value: a value can't be stored.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(type(error).__name__)
        self.is_locked = isinstance(error, asyncpg.LockNotAvailableError)
        self.is_passing = self.is_locked or isinstance(error, asyncpg.TransactionRollbackError)
        self.is_about_a_value = isinstance(error, (asyncpg.DataError, ValueError))


_GONE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # for example: no host takes writes
    asyncpg.InsufficientResourcesError,
    asyncpg.InvalidTransactionStateError,  # read-only: the server is no longer the primary
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    asyncpg.PostgresSystemError,
    asyncpg.StatementCompletionUnknownError,
)


class TooSlow(Unanswered):
    """The server stopped a statement at its timeout."""


class _Pool:
    """The connections for one use."""

    def __init__(self, pool: Any, *, only_reads: bool) -> None:
        self.pool = pool
        self._only_reads = only_reads
        self._away_until = 0.0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        if monotonic() < self._away_until:
            raise Unanswered("the database is away")
        try:
            connection = await self.pool.acquire(timeout=CONNECT_TIMEOUT_S)
        except (*_GONE, asyncpg.PostgresError) as error:
            self._away_until = monotonic() + _AWAY_FOR_S
            raise Unanswered(type(error).__name__) from error
        session = Session(connection)
        is_sound = False
        try:
            yield session
            is_sound = True
            session.check()
        except Unanswered:
            is_sound = True
            raise
        except asyncio.CancelledError:
            is_sound = self._only_reads  # asyncpg has the server cancel the read, and gives the connection back then
            raise
        except (*_GONE, asyncpg.PostgresError) as error:
            if isinstance(error, ValueError) or not isinstance(error, _GONE):
                is_sound = True
                raise StatementRefused(error) from error
            if isinstance(error, asyncpg.QueryCanceledError):
                is_sound = True
                raise TooSlow(type(error).__name__) from error
            if isinstance(error, asyncio.TimeoutError):
                await self.pool.expire_connections()  # the others hang, too, and each would cost as much time
            raise Unanswered(type(error).__name__) from error
        finally:
            await self._give_back(connection, session, is_sound=is_sound)

    async def _give_back(self, connection: Any, session: Session, *, is_sound: bool) -> None:
        try:
            session.leave()
            if not is_sound:
                # Before any await: otherwise asyncpg would send a request to cancel the statement. That would end
                # PostgreSQL's wait for a standby, and others could read a commit that the standby does not have.
                connection.terminate()
            await self.pool.release(connection, timeout=CONNECT_TIMEOUT_S)
        except (*_GONE, asyncpg.PostgresError) as error:
            # It broke, and has left the pool by itself. The outcome of its statement is known already.
            _logger.debug("a connection could not be given back: %s", type(error).__name__)


class Database:
    """The pools of all uses. Made by `connect`. Reads are refused at once if too many are waiting.

    Attributes:
        patience_s: how long a call may wait for another transaction's locks, in seconds.
        read_within_s: how long a read may take, in seconds.
    """

    def __init__(self, pools: Mapping[Use, Any], limits: Mapping[Use, Limits]) -> None:
        self.patience_s = limits[Use.COMMANDS].statement_timeout_s
        self.read_within_s = limits[Use.READS].statement_timeout_s
        self._pools = {use: _Pool(pool, only_reads=limits[use].only_reads) for use, pool in pools.items()}
        self._turns = {use: asyncio.Semaphore(limits[use].size) for use in (Use.READS, Use.NODE_READS)}
        self._waiting = dict.fromkeys(self._turns, 0)

    @property
    def size(self) -> int:
        """How many connections are open."""
        return sum(int(each.pool.get_size()) for each in self._pools.values())

    @property
    def idle(self) -> int:
        """How many of them are not in use."""
        return sum(int(each.pool.get_idle_size()) for each in self._pools.values())

    @asynccontextmanager
    async def connection(self, use: Use = Use.COMMANDS) -> AsyncIterator[Session]:
        """A connection for a statement or two.

        Raises:
            Unanswered: no connection can be opened (for a moment after a failure none is tried), or it broke.
            StatementRefused: a statement was refused.
        """
        async with self._pools[use].session() as session:
            yield session

    @asynccontextmanager
    async def reading(self, use: Use = Use.READS) -> AsyncIterator[Session]:
        """A connection for callers' reads, or for the node's.

        Raises:
            Unanswered: too many reads are waiting, or as with `connection`.
        """
        if self._waiting[use] >= MAX_WAITING_READS:
            raise Unanswered("too many reads are waiting")
        self._waiting[use] += 1
        try:
            async with self._turns[use], self.connection(use) as session:
                yield session
        finally:
            self._waiting[use] -= 1

    async def close(self) -> None:
        """Close the connections. It waits for those in use, but no longer than a statement may take."""
        pools = [each.pool for each in self._pools.values()]
        try:
            await asyncio.wait_for(asyncio.gather(*(pool.close() for pool in pools)), STATEMENT_TIMEOUT_S)
        except asyncio.TimeoutError:
            for pool in pools:
                pool.terminate()


async def connect(
    url: str,
    *,
    width: int = 1,
    readers: int = 4,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    read_within_s: float = READ_WITHIN_S,
) -> Database:
    """Open the pools, and one connection as a check.

    Args:
        url: `postgresql://user:password@host:port/database`, as libpq takes it. If it names several hosts, the first
            one that takes writes is used.
        width: how many batches of a kind may be under way at a time.
        readers: the most connections for callers' reads.
        statement_timeout_s: how long a statement may take, in seconds.
        read_within_s: how long a caller's read may take, in seconds.

    Raises:
        VerityConfigError: the URL is wrong, or the database can't be used. Its text never has the password.
    """
    limits = limits_for(width, readers, statement_timeout_s, read_within_s)
    longest_s = max(statement_timeout_s, read_within_s) + _GRACE_S
    try:
        pools = {use: await _create_pool(url, limits[use], longest_s) for use in limits}
        pool = pools[Use.COMMANDS]
        connection = await pool.acquire(timeout=CONNECT_TIMEOUT_S)
        encoding = connection.get_settings().server_encoding  # the server says so when it is connected to
        await pool.release(connection)
    except (*_GONE, ValueError, OverflowError, asyncpg.PostgresError) as error:
        raise VerityConfigError(
            f"The database at {without_password(url)} can't be used ({type(error).__name__}: {_why(error)}).",
            parameter="database",
        ) from None
    if encoding not in ENCODINGS:
        await pool.close()
        raise VerityConfigError(
            f"The database at {without_password(url)} can't be used: its encoding {encoding} can't hold every text, so "
            "that results would be refused after their act. Make one with CREATE DATABASE … ENCODING 'UTF8'.",
            parameter="database",
        )
    return Database(pools, limits)


async def _create_pool(url: str, limits: Limits, command_timeout_s: float) -> Any:
    return await asyncpg.create_pool(
        url,
        min_size=0,  # others would be opened in the background, and each failure logged with a traceback
        max_size=limits.size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        connect=_connect_to_primary,
        init=lambda connection: _set_up(connection, limits),
        reset=_keep,
        server_settings={"application_name": "verity"},
    )


async def _connect_to_primary(url: str, **options: Any) -> Any:
    """Connect to the first host that takes writes.

    Each host gets an equal share of the timeout. asyncpg would spend all of it on a first host that does not answer.
    """
    options["target_session_attrs"] = "read-write"  # a standby's data may be out of date
    hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    failure: Exception | None = None
    for host in hosts if len(hosts) > 1 else ():
        try:
            return await asyncpg.connect(
                url.replace(",".join(hosts), host, 1), **{**options, "timeout": CONNECT_TIMEOUT_S / len(hosts)}
            )
        except (*_GONE, asyncpg.PostgresError) as error:
            failure = error
    if failure is not None:
        raise failure
    return await asyncpg.connect(url, **options)


async def _set_up(connection: Any, limits: Limits) -> None:
    await connection.execute(_SET_UP, _in_ms(limits.statement_timeout_s), _in_ms(limits.lock_timeout_s))
    if limits.only_reads:  # else the server's own setting holds: it may be told to take no more writes
        await connection.execute("SET default_transaction_read_only = on")


def _in_ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


async def _keep(_connection: Any) -> None:
    """Reset nothing: the settings are for the connection's whole life, and no statement leaves anything behind."""


async def find_dangers(database: Database) -> list[str]:
    """Settings of the server that could lose acknowledged commits, a sentence for each."""
    async with database.connection() as connection:
        found = [
            f"{name} is {bad}: {why}."
            for name, (bad, why) in DANGERS.items()
            if await connection.fetchval("SELECT current_setting($1, true)", name) == bad
        ]
        standbys = await connection.fetch(
            "SELECT application_name FROM pg_stat_replication WHERE sync_state IN ('async', 'potential')"
        )
    if standbys:
        names = ", ".join(sorted({name for (name,) in standbys}))
        found.append(
            f"no commit waits for {len(standbys)} of the standbys ({names}): promoting one of them loses the commits "
            "that it had not received."
        )
    return found


def without_password(url: str) -> str:
    """The URL without its password, to be shown."""
    address, _, parameters = url.partition("?")
    scheme, _, place = address.partition("://")
    if "@" in parameters:  # the password has a question mark, or is one of the parameters
        return f"{scheme}://…"
    user, at, host = place.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}{at}{host}"


def _why(error: Exception) -> str:
    if isinstance(error, ValueError) and not isinstance(error, asyncpg.InterfaceError):
        # The error quotes what can't be parsed, which may be a part of the password (after a `/`, for example).
        return "it is not a URL; write special characters of the password as %2F and the like"
    if isinstance(error, asyncio.TimeoutError):
        return f"no answer in {CONNECT_TIMEOUT_S:g} s from it, or from the standby that it waits for"
    return str(error).partition("\n")[0]
