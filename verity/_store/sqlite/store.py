"""The SQLite store: effect calls in batches, each batch one durable transaction.

Several processes may use one file. A transaction takes SQLite's write lock before it reads (BEGIN IMMEDIATE), so no
other process can change what a decision is based on. A call is answered with success only when its commit is on disk
(WAL with synchronous=FULL).

This module has the connection that writes, its locks and its transactions. What happens inside a transaction is in
`effects.py`, `api_keys.py` and `purging.py`. Reads are in `reads.py`; they use connections of their own, and no writer
waits for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from verity._ledger.calls import Answer, Request
from verity._ledger.codec import EFFECT_OPERATIONS
from verity._mutex import Mutex
from verity._process import notice_fork
from verity._store.api_keys import ApiKey
from verity._store.purging import Candidate, Purge
from verity._store.sqlite import api_keys, effects, forks, purging
from verity._store.sqlite.clocks import awake_ms, now_ms
from verity._store.sqlite.connection import BUSY_TIMEOUT_MS, FileMoved, connect, files_of, identify
from verity._store.sqlite.file_locks import Locks, LocksDropped, LockTimeout, open_locks
from verity._store.sqlite.heartbeat import Heartbeat, boot_id
from verity._store.sqlite.location import Location, check_file
from verity._store.sqlite.readers import OneConnection, Readers
from verity._store.sqlite.reads import SqliteReads
from verity._unique import new_token
from verity.errors import VerityConfigError

T = TypeVar("T")

_logger = logging.getLogger("verity.ledger")

_PURGE_READ_WITHIN_S = 60.0
_TRIES = 3
"""How often a transaction is begun before the call fails, if something drops its locks each time."""
_SHORTEN_WITHIN_S = 0.5


class SqliteStore(SqliteReads):
    """A ledger's data in one SQLite file, or in memory. Safe to use from several threads.

    Args:
        path: the file; None: keep everything in memory.
        clock: ms since 1970; it decides when leases expire.
        steady: ms of a clock that nobody sets, to notice jumps of `clock`; None: do not notice them. By default the
            machine's, and None if `clock` is not the machine's.
        new_token: makes lease tokens.
        upgrade: whether to migrate a file with an older schema; False refuses it.
        named: the path that the user gave, if it leads to the file by a symbolic link. Calls fail once it leads to
            another file.
        must_exist: whether to refuse a file that does not exist, instead of creating it.

    Raises:
        VerityConfigError: the file can't be used, or has a second name.
    """

    def __init__(
        self,
        path: str | None,
        *,
        clock: Callable[[], int] = now_ms,
        steady: Callable[[], int] | None = None,
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
        self.heartbeat = Heartbeat(awake_ms if clock is now_ms else steady, boot_id())
        self._lock = Mutex()
        self._is_in_parent = False
        """Whether this process is a fork, and the ledger is in the memory of its parent."""
        self._connection: apsw.Connection | None = connect(path, upgrade=upgrade)
        self._files = files_of(path) + ([] if named in (None, path) else [Path(named)])
        self._opened = identify(self._files)
        try:
            self._locks: Locks | None = self._open_locks()
        except apsw.Error as error:
            raise VerityConfigError(
                f"The ledger's file {path!r} cannot be used ({type(error).__name__}: {error}).", parameter="base_url"
            ) from error
        self._has_warned = False
        if path is None:
            alone = OneConnection(self._write)
            super().__init__(alone, alone, clock)
        else:
            super().__init__(Readers(path, shorten_log=self._shorten_log), Readers(path), clock)
        self.transactions = 0
        forks.watch(self)

    @classmethod
    def at(cls, place: Location, *, clock: Callable[[], int] = now_ms, upgrade: bool = True) -> SqliteStore:
        """The store at a location."""
        return cls(place.path, clock=clock, upgrade=upgrade, named=place.named, must_exist=place.must_exist)

    def __repr__(self) -> str:
        return f"<SqliteStore {self._path or 'in memory'}>"

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry out effect calls in their order, in one transaction. A refused call does not affect the others.

        If the storage fails, all of them are answered with 503. A success is on disk before it is returned.

        Raises:
            VerityConfigError: the ledger is in memory, and this process is a fork of its owner.
        """
        notice_fork()
        return self._lock.run(partial(self._with_cleanup, partial(self._answer_batch, requests)))

    def answer(self, request: Request) -> Answer:
        """Carry out one request: a read, or an effect call in a transaction of its own."""
        return self.answer_batch([request])[0] if request.operation in EFFECT_OPERATIONS else self.read(request)

    def beat(self) -> None:
        """As a node: prove that the file can be written to, unless a batch has just done so.

        Raises:
            apsw.Error: it can't.
        """
        now = self._now()
        if self.heartbeat.is_fresh(now):
            return
        if self._node_reads.run(lambda connection: self.heartbeat.is_idle(connection, now)):
            self.heartbeat.rest(now)
        else:
            notice_fork()
            self._lock.run(partial(self._with_cleanup, self._beat))

    def insert_key(self, key: ApiKey) -> None:
        """Add an API key, durably. Like the next two, raises apsw.Error if the storage fails."""
        self._write(partial(api_keys.insert, key=key))

    def revoke_key(self, key_id: str, now: int) -> bool:
        """Revoke an API key, durably; False: there is none with this id."""
        return self._write(partial(api_keys.revoke, key_id=key_id, now=now))

    def purge(self, purge: Purge) -> Purge:
        """Carry out one batch of a purge, durably; returns the purge with its progress."""
        candidates = self._reads.run(partial(purging.find_candidates, purge=purge), within_s=_PURGE_READ_WITHIN_S)
        due = [each for each in candidates if each.is_due]
        if purge.dry_run or not due:
            return purge.after(candidates, len(due))
        return purge.after(candidates, self._write(partial(self._purge, due)))

    def close(self) -> None:
        """Close the file. Idempotent. A later call opens it again."""
        notice_fork()
        for readers in (self._reads, self._node_reads):
            readers.close()
        self._lock.run(self._close_here)

    # -- forks: see forks.py --

    def before_fork(self) -> None:
        """Wait for the transaction to end, and close the file: the child must not inherit SQLite's file locks."""
        # Reads first: one of them may be about to take the lock, to shorten the log.
        for readers in (self._reads, self._node_reads):
            readers.before_fork()
        self._lock.acquire()
        if self._path is not None:
            self._close_file()

    def after_fork_in_parent(self) -> None:
        """Allow calls again."""
        self._lock.release()
        for readers in (self._reads, self._node_reads):
            readers.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Make a new lock, since a thread of the parent may hold the old one. A ledger in memory is the parent's."""
        if self._path is not None and self._connection is not None:  # no hook ran before this fork
            forks.discard_inherited(self._connection, in_use=self._lock.locked())
            if self._locks is not None and not self._lock.locked():
                self._locks.close_in_child()
            self._connection = self._locks = None
        self._lock = Mutex()
        self._is_in_parent = self._path is None
        for readers in (self._reads, self._node_reads):
            readers.after_fork_in_child()

    def _shorten_log(self) -> None:
        """Write the log into the file and truncate it. Does nothing if another thread or process uses the file."""
        self._lock.run_if_free(partial(self._with_cleanup, self._shorten_log_here), within_s=_SHORTEN_WITHIN_S)

    def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        """Call `work` with the connection, with the exclusive right to write."""
        notice_fork()
        return self._lock.run(partial(self._with_cleanup, partial(self._write_here, work)))

    # -- inside the lock --

    def _with_cleanup(self, work: Callable[[], T]) -> T:
        """Call `work`. Then roll back an open transaction and release the write lock, whatever raised.

        The cleanup must happen even if an interrupt arrives during it, because other processes wait for the lock. An
        interrupt can't split a call into C, but it can come at the entry of a Python method; so the cleanup calls C
        functions directly. Why each `finally` begins with `try`: see verity/_mutex.py.
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
                        self._locks.release()
                except OSError:
                    self._abandon_locks()
                finally:
                    pass

    def _answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        try:
            return self._transaction(self._connected(), requests)
        except apsw.Error as error:
            self._recover_from(error)
            ids = [request.request_id for request in requests]
            _logger.error("storage failed: %s: %s", type(error).__name__, error, extra={"requestIds": ids})
            return [effects.answer_failure(request, error) for request in requests]

    def _beat(self) -> None:
        try:
            self._transaction(self._connected(), ())
        except apsw.Error as error:
            self._recover_from(error)
            raise

    def _recover_from(self, error: apsw.Error) -> None:
        """After an error of a transaction."""
        self._roll_back()
        if isinstance(error, apsw.IOError):
            with suppress(apsw.Error):
                self._close_file()  # opening it again writes the log's content to disk: see connection.py

    def _write_here(self, work: Callable[[apsw.Connection], T]) -> T:
        connection = self._connected()
        try:
            self._own_locks().acquire()
            return work(connection)
        except apsw.Error:
            self._roll_back()
            raise

    def _shorten_log_here(self) -> None:
        connection = self._connected()
        locks = self._own_locks()
        try:
            connection.set_busy_timeout(0)
            locks.acquire(within_s=0.0)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            _logger.debug("another process uses the log, which is not shortened now")
        finally:
            try:  # see verity/_mutex.py
                connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            finally:
                pass

    def _close_here(self) -> None:
        if self._path is not None and not self._is_in_parent:
            self._close_file()

    def _connected(self) -> apsw.Connection:
        if self._is_in_parent:
            raise VerityConfigError(
                "A ledger in memory does not survive a fork: parent and child would no longer exclude each other. "
                "Use a file (sqlite:///verity.db), or create the client after the fork.",
                parameter="base_url",
            )
        found = identify(self._files)
        if self._connection is None:
            if found[:1] != self._opened[:1]:
                raise FileMoved  # opening the path would create an empty ledger, or use another one
            try:
                self._connection = connect(self._path, upgrade=self._upgrade)
            except VerityConfigError as error:
                if isinstance(error.__cause__, apsw.Error):  # the storage fails, as it may at any other moment
                    raise error.__cause__ from None
                raise
            self._opened = identify(self._files)
            self._own_locks()
        elif found != self._opened:
            raise FileMoved
        return self._connection

    def _transaction(self, connection: apsw.Connection, requests: Sequence[Request]) -> list[Answer]:
        self._own_locks().acquire()
        for _ in range(_TRIES):
            self._begin(connection)
            now = self._now()  # after the lock was taken, so that the times are in the order of the transactions
            self.heartbeat.begin(connection, now)
            answers = [effects.carry_out(connection, request, now, self._new_token) for request in requests]
            if self._are_locks_intact():
                connection.execute("COMMIT")
                self.heartbeat.end()
                self.transactions += 1
                return answers
            connection.execute("ROLLBACK")
        raise LocksDropped(str(self._path))

    def _begin(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as error:
            raise LockTimeout(self._own_locks().describe_holder()) from error

    def _are_locks_intact(self) -> bool:
        """Whether no lock was dropped since the last check. If one was, another process may have written meanwhile."""
        if self._own_locks().are_intact():
            return True
        if not self._has_warned:
            self._has_warned = True
            _logger.error("%s", LocksDropped(str(self._path)))
        return False

    def _own_locks(self) -> Locks:
        if self._locks is None:
            self._locks = self._open_locks()
        return self._locks

    def _open_locks(self) -> Locks:
        if self._path is None:
            return Locks()
        try:
            return open_locks(self._path, wait_s=BUSY_TIMEOUT_MS / 1000)
        except BaseException:
            # A descriptor of the file may be closed again, and that dropped the locks of this connection.
            try:  # see verity/_mutex.py
                self._disconnect()
            finally:
                pass
            raise

    def _purge(self, due: Sequence[Candidate], connection: apsw.Connection) -> int:
        """Purge in one transaction; returns how many effects were purged."""
        self._begin(connection)
        purged = purging.purge_effects(connection, due, self._now())
        if not self._are_locks_intact():
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
                locks.release_shared()
        finally:
            try:
                self._disconnect()
            finally:
                if locks is not None:
                    locks.close()

    def _abandon_locks(self) -> None:
        """Close the file, because a lock can't be released otherwise. The next call opens the file again."""
        with suppress(apsw.Error, OSError):
            self._close_file()

    def _disconnect(self) -> None:
        """Close the connection.

        The last connection to a file writes the log into the file, and deletes the log by its name. If the path leads
        to other files by now, the log of that name has the commits of others. Then the connection must not do this,
        and the file is not opened again.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        found = identify(self._files)
        if any(now not in (None, then) for now, then in zip(found, self._opened, strict=True)):
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._opened = []
        connection.close(force=True)
