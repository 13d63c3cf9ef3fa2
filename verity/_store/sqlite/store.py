"""The SQLite store: many operations, one durable transaction.

Several processes may use one file: a batch takes SQLite's write lock before it reads (BEGIN IMMEDIATE), so decisions
are made on what is there. What was answered with success is on disk: WAL with synchronous=FULL.

What only reads is in `sqlite_reads.py`, and no writer waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from verity._clock import machines_time_ns
from verity._ledger.calls import Answer, Request
from verity._ledger.codec import EFFECT_OPERATIONS, answer_decision, read_call
from verity._ledger.commands import REPORTS_AMONG, Context
from verity._ledger.effect import ROW, Effect, from_row, to_row
from verity._ledger.problems import Problem, answer_problem
from verity._ledger.transitions import apply
from verity._mutex import Mutex
from verity._operations import Operation
from verity._process import notice_fork
from verity._store.api_keys import ApiKey
from verity._store.events import EVENT_COLUMNS, to_event_row
from verity._store.names import COLUMNS, hash_effect_name, next_id
from verity._store.purging import DUE, PURGED, Candidate, Purge
from verity._store.reads import Rows
from verity._store.sqlite import api_keys, forks
from verity._store.sqlite.connection import BUSY_TIMEOUT_MS, FileMoved, connect, files_of, identify
from verity._store.sqlite.file_locks import Locked, LocksDropped, NoLocks, open_locks
from verity._store.sqlite.location import Location, check_file
from verity._store.sqlite.readers import OneConnection, Readers
from verity._store.sqlite.reads import RETRY_AFTER_S, SqliteReads
from verity._unique import new_token
from verity.errors import VerityConfigError

T = TypeVar("T")

_logger = logging.getLogger("verity.ledger")

_SELECT = f"SELECT {COLUMNS} FROM effects WHERE key_hash = ?"
_INSERT = f"INSERT INTO effects (environment, key_hash, {COLUMNS}) VALUES (?, ?, {', '.join('?' * len(ROW))})"
_CHANGING = ROW[3:]
_UPDATE = f"UPDATE effects SET {', '.join(f'{name} = ?' for name in _CHANGING)} WHERE id = ?"
_REPORTS = (
    "SELECT count(*) FROM events WHERE effect = ? AND sequence > ? AND fence = ?"
    " AND type IN ('OBSERVE_HIT', 'OBSERVE_MISS')"
)
_INSERT_EVENT = f"INSERT INTO events (effect, {', '.join(EVENT_COLUMNS)}) VALUES (?{', ?' * len(EVENT_COLUMNS)})"
_LOOK_FOR_PURGE = f"""
SELECT '', effects.id, effects.key_hash, effects.event_count, effects.created_at,
    {DUE} AND effects.environment = ? AND (? IS NULL OR effects.namespace = ?)
FROM events CROSS JOIN effects ON effects.id = events.effect
WHERE events.effect > ? AND events.sequence = 1
ORDER BY events.effect LIMIT ?
"""
_PURGE = f"UPDATE effects SET {PURGED} WHERE id = ? AND event_count = ? AND purged_at IS NULL"
_PURGE_LOOKS_WITHIN_S = 60.0
_TRIES = 3
_SHORTEN_WITHIN_S = 0.5


def now_ms() -> int:
    """The machine's clock: ms since 1970.

    All processes that work on a file see the same one, also where it is set back: leases last longer then. A process
    that went on by a time of its own would take the others' leases for run out, and grant their effects to another. So
    it is the real one also where a test has made time stand still, or travel.
    """
    return machines_time_ns() // 1_000_000


class SqliteStore(SqliteReads):
    """A ledger's data in one SQLite file, or in memory.

    Args:
        path: the file; None keeps everything in memory.
        clock: ms since 1970; it decides when leases run out.
        new_token: makes lease tokens.
        upgrade: whether a file with an older schema is brought up to date; False refuses it.
        named: another path that leads to the file, by way of a symbolic link, and has to go on doing so.
        must_exist: whether a file that is not there is refused, and not made.

    Raises:
        VerityConfigError: the file can't be used, or has another name.
    """

    def __init__(
        self,
        path: str | None,
        *,
        clock: Callable[[], int] = now_ms,
        new_token: Callable[[], str] = new_token,
        upgrade: bool = True,
        named: str | None = None,
        must_exist: bool = False,
    ) -> None:
        if path is not None:
            check_file(path, must_exist=must_exist)
        self._path = path
        self._upgrade = upgrade
        self._new_token = new_token
        self._lock = Mutex()
        self._lost = False
        self._connection: apsw.Connection | None = connect(path, upgrade=upgrade)
        self._files = files_of(path) + ([] if named in (None, path) else [Path(named)])
        self._opened = identify(self._files)
        try:
            self._locks: NoLocks | None = self._open_locks()
        except apsw.Error as error:
            raise VerityConfigError(
                f"The ledger's file {path!r} cannot be used ({type(error).__name__}: {error}).", parameter="base_url"
            ) from error
        self._is_told = False
        if path is None:
            alone = OneConnection(self._write)
            super().__init__(alone, alone, clock)
        else:
            super().__init__(Readers(path, shorten_log=self._shorten_log), Readers(path), clock)
        self.transactions = 0
        forks.watch(self)

    @classmethod
    def at(cls, place: Location, *, clock: Callable[[], int] = now_ms, upgrade: bool = True) -> SqliteStore:
        """The store at a place that `read_location` has read."""
        return cls(place.path, clock=clock, upgrade=upgrade, named=place.named, must_exist=place.must_exist)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path or 'in memory'}>"

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry effect calls out in their order, as one transaction; one that is refused leaves the others alone.

        A storage error answers 503 to all of them: nobody is told of success before it is on disk.

        Raises:
            VerityConfigError: the store was in memory, and this process is a fork of its owner.
        """
        notice_fork()
        return self._lock.run(partial(self._ending_all, partial(self._answer_batch, requests)))

    def answer(self, request: Request) -> Answer:
        """Carry one request out: a read, or an effect call as a transaction of its own."""
        return self.answer_batch([request])[0] if request.operation in EFFECT_OPERATIONS else self.read(request)

    def insert_key(self, key: ApiKey) -> None:
        """Add an API key, durably. Like the next two: raises apsw.Error where the storage fails."""
        self._write(partial(api_keys.insert, key=key))

    def revoke_key(self, key_id: str, now: int) -> bool:
        """Revoke an API key, durably; False where there is none with this id."""
        return self._write(partial(api_keys.revoke, key_id=key_id, now=now))

    def purge(self, purge: Purge) -> Purge:
        """Carry out one batch of a purge, durably; returns what is left to do. Raises apsw.Error as the above do."""
        where = (purge.environment, purge.namespace, purge.namespace)
        values = (purge.before, *where, purge.reached[1], purge.batch)
        rows: Rows = self._reads.run(
            lambda reader: reader.execute(_LOOK_FOR_PURGE, values).fetchall(), within_s=_PURGE_LOOKS_WITHIN_S
        )
        looked_at = [Candidate._make(row) for row in rows]
        due = [each for each in looked_at if each.is_due]
        if purge.dry_run or not due:
            return purge.after(looked_at, len(due))
        return purge.after(looked_at, self._write(partial(self._purge, due)))

    def close(self) -> None:
        """Close the file. Idempotent; the store opens it again when it is used."""
        notice_fork()
        for readers in (self._reads, self._node_reads):
            readers.close()
        self._lock.run(self._close_here)

    # -- forks: see forks.py --

    def before_fork(self) -> None:
        """Let the transaction end, and close: SQLite's file locks belong to a process and must not be copied."""
        # Reads first: one of them may be about to take the lock, to shorten the log.
        for readers in (self._reads, self._node_reads):
            readers.before_fork()
        self._lock.acquire()
        if self._path is not None:
            self._close_file()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()
        for readers in (self._reads, self._node_reads):
            readers.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Go on with a lock of this process; what was in memory stays with the parent."""
        if self._path is not None and self._connection is not None:  # no hook ran before this fork
            forks.leave_to_parent(self._connection, in_use=self._lock.locked())
            if self._locks is not None and not self._lock.locked():
                self._locks.leave_to_parent()
            self._connection = self._locks = None
        self._lock = Mutex()
        self._lost = self._path is None
        for readers in (self._reads, self._node_reads):
            readers.after_fork_in_child()

    def _shorten_log(self) -> None:
        """Begin the file's log anew, unless somebody is reading or writing it for long: then another time."""
        self._lock.run_if_free(partial(self._ending_all, self._shorten_log_here), within_s=_SHORTEN_WITHIN_S)

    def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        """Call `work` with the connection, while nobody else uses it or writes."""
        notice_fork()
        return self._lock.run(partial(self._ending_all, partial(self._write_here, work)))

    # -- inside the lock --

    def _ending_all(self, work: Callable[[], T]) -> T:
        """Call `work`, and end its transaction and its locks, whatever interrupts it: other processes wait for them.

        A method of ours could be interrupted once more at its entry. A call into C can't. Why `finally` begins with
        `try`: see verity/_mutex.py.
        """
        try:
            return work()
        finally:
            try:
                if self._connection is not None and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            finally:
                try:
                    if self._locks is not None:
                        self._locks.give_back()
                except OSError:
                    self._abandon_locks()
                finally:
                    pass

    def _answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        try:
            return self._transaction(self._connected(), requests)
        except apsw.Error as error:
            self._roll_back()
            if isinstance(error, apsw.IOError):
                with suppress(apsw.Error):
                    self._close_file()  # what the log has by now counts once it was written anew: see `connect`
            ids = [request.request_id for request in requests]
            _logger.error("storage failed: %s: %s", type(error).__name__, error, extra={"requestIds": ids})
            return [_answer_failure(request, error) for request in requests]

    def _write_here(self, work: Callable[[apsw.Connection], T]) -> T:
        connection = self._connected()
        try:
            self._take_locks().take()
            return work(connection)
        except apsw.Error:
            self._roll_back()
            raise

    def _shorten_log_here(self) -> None:
        connection = self._connected()
        locks = self._take_locks()
        try:
            connection.set_busy_timeout(0)
            locks.take(within_s=0.0)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            _logger.debug("another process works with the log, which stays as it is for now")
        finally:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)

    def _close_here(self) -> None:
        if self._path is not None and not self._lost:
            self._close_file()

    def _connected(self) -> apsw.Connection:
        if self._lost:
            raise VerityConfigError(
                "A ledger in memory does not survive a fork: parent and child would no longer exclude each other. "
                "Use a file (sqlite:///verity.db), or create the client after the fork.",
                parameter="base_url",
            )
        found = identify(self._files)
        if self._connection is None:
            if found[:1] != self._opened[:1]:
                raise FileMoved  # opened anew, it would be an empty ledger
            try:
                self._connection = connect(self._path, upgrade=self._upgrade)
            except VerityConfigError as error:
                if isinstance(error.__cause__, apsw.Error):  # as at any other moment: the storage fails
                    raise error.__cause__ from None
                raise
            self._opened = identify(self._files)
            self._take_locks()
        elif found != self._opened:
            raise FileMoved
        return self._connection

    def _transaction(self, connection: apsw.Connection, requests: Sequence[Request]) -> list[Answer]:
        self._take_locks().take()
        for _ in range(_TRIES):
            self._begin(connection)
            now = self._now()  # after the lock: what is decided here is in the order of the transactions
            answers = [self._answer(connection, request, now) for request in requests]
            if self._are_locks_whole():
                connection.execute("COMMIT")
                self.transactions += 1
                return answers
            connection.execute("ROLLBACK")
        raise LocksDropped(str(self._path))

    def _begin(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as error:
            raise Locked(self._take_locks().tell_holder()) from error

    def _are_locks_whole(self) -> bool:
        """Whether no lock was dropped since the last time: while a transaction was under way, another may have been."""
        if self._take_locks().are_whole():
            return True
        if not self._is_told:
            self._is_told = True
            _logger.error("%s", LocksDropped(str(self._path)))
        return False

    def _take_locks(self) -> NoLocks:
        if self._locks is None:
            self._locks = self._open_locks()
        return self._locks

    def _open_locks(self) -> NoLocks:
        if self._path is None:
            return NoLocks()
        try:
            return open_locks(self._path, wait_s=BUSY_TIMEOUT_MS / 1000)
        except BaseException:
            # It may have closed a descriptor of the file, which dropped the locks of this connection.
            self._disconnect()
            raise

    def _purge(self, due: Sequence[Candidate], connection: apsw.Connection) -> int:
        """Purge what is still as it was read; returns how many."""
        self._begin(connection)
        now, purged = self._now(), 0
        for each in due:
            connection.execute(_PURGE, (now, each.id, each.known_count))
            if connection.changes():
                connection.execute("DELETE FROM events WHERE effect = ?", (each.id,))
                purged += 1
        if not self._are_locks_whole():
            raise LocksDropped(str(self._path))
        connection.execute("COMMIT")
        return purged

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._disconnect()

    def _close_file(self) -> None:
        locks, self._locks = self._locks, None
        try:
            if locks is not None:
                locks.let_go()
        finally:
            try:
                self._disconnect()
            finally:
                if locks is not None:
                    locks.close()

    def _abandon_locks(self) -> None:
        """Close the file, since its locks can't be given back. That drops them. The next call opens it anew."""
        with suppress(apsw.Error, OSError):
            self._close_file()

    def _disconnect(self) -> None:
        """Close the connection. The last one on a file writes its log into it, and deletes what has the log's name.
        Where that is another one by now, in which others' commits are, it must do neither, nor begin anew.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        found = identify(self._files)
        if any(now not in (None, then) for now, then in zip(found, self._opened, strict=True)):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._opened = []
        connection.close(force=True)

    def _answer(self, connection: apsw.Connection, request: Request, now: int) -> Answer:
        try:
            return self._change(connection, request, now)
        except Problem as refused:
            return answer_problem(refused, request.request_id)

    def _change(self, connection: apsw.Connection, request: Request, now: int) -> Answer:
        call = read_call(request)
        key_hash = hash_effect_name(call.environment, call.namespace, call.key)
        row = connection.execute(_SELECT, (key_hash,)).fetchone()
        before = None if row is None else from_row(row)
        context = Context(
            *(call.namespace, call.key, now),
            new_id=lambda: _new_id(connection, now),
            new_token=self._new_token,
            count_reports=lambda: 0 if before is None else _count_reports(connection, before),
        )
        decision = apply(before, call.command, context)
        after = decision.effect
        if decision.events and after is not None:
            if before is None:
                connection.execute(_INSERT, (call.environment, key_hash, *to_row(after)))
            else:
                connection.execute(_UPDATE, (*to_row(after)[3:], after.id))
            first = after.event_count - len(decision.events) + 1
            for sequence, event in enumerate(decision.events, first):
                connection.execute(_INSERT_EVENT, (after.id, *to_event_row(sequence, event)))
        return answer_decision(call, decision, now)


def _answer_failure(request: Request, error: apsw.Error) -> Answer:
    """503: the storage failed. Only an embedded ledger's caller learns which process blocks it: it can act on that."""
    why = f" ({error})" if isinstance(error, Locked) and request.scope.actor == "embedded" else ""
    # If a forced reset was carried out, the same one again could end the lease of the next holder.
    is_reset = request.operation is Operation.RESET_EFFECT
    advice = "Look at the effect before you send it again." if is_reset else "Send it again."
    message = f"The ledger's storage did not answer{why}; whether the call was carried out is unknown. {advice}"
    return answer_problem(Problem(503, "unavailable", message, retry_after_s=RETRY_AFTER_S), request.request_id)


def _new_id(connection: apsw.Connection, now: int) -> int:
    """Above every other: made while the write lock is held, so no other process makes it, too."""
    return next_id(connection.execute("SELECT max(id) FROM effects").get or 0, now)


def _count_reports(connection: apsw.Connection, effect: Effect) -> int:
    count: int = connection.execute(_REPORTS, (effect.id, effect.event_count - REPORTS_AMONG, effect.fence)).get
    return count
