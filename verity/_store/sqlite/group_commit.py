"""Group commit: calls that wait at the same time are carried out together, in one transaction.

A call never waits for others to join it: if nothing is under way, it is carried out at once, alone. The idea is from
DeWitt et al. (1984). There are two variants:

- Threads (`ThreadGroupCommit`): the first thread that comes becomes the leader and carries out the batch. So there is
  no thread of our own to fork or stop.
- Event loops (`LoopGroupCommit`): one writer thread carries out the batches. So a cancelled task neither blocks nor
  loses the calls of others.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Protocol

from verity._ledger.calls import Answer, Request
from verity._mutex import Mutex
from verity._store.interface import MAX_BATCH
from verity._store.sqlite import forks
from verity._store.sqlite.loops import Deliver, wait_for
from verity.errors import VerityConnectionError, VerityError

_CHECK_EVERY_S = 0.05


class Store(Protocol):
    """What group commit needs of a store."""

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry out requests in one transaction."""
        ...


class _Waiter:
    """A thread's call. Its bell, a lock, is released to wake the thread: it has an outcome, or should try to lead."""

    __slots__ = ("bell", "is_gone", "is_taken", "outcome", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome: Answer | VerityError | None = None
        self.is_taken = False
        """Whether a leader has begun to carry the call out."""
        self.is_gone = False
        """Whether the thread has returned or raised."""
        self.bell = threading.Lock()
        self.bell.acquire()

    def ring(self) -> None:
        """Wake the thread. Idempotent."""
        with suppress(RuntimeError):  # it was released already
            self.bell.release()


class ThreadGroupCommit:
    """Group commit for threads: one thread leads, which means that it carries out a batch with the calls of others.

    A signal handler or another thread may raise an exception in any of these threads, at any point of this code. The
    other threads must get their answers nevertheless:

    - The leader holds a `Mutex`, which is always released.
    - A call stays in the queue until it has an outcome. So the next leader finds the calls that an interrupted leader
      left.
    - The bells only save time. A thread that waits also checks every `_CHECK_EVERY_S` seconds.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.after_fork_in_child()
        forks.watch(self)

    def before_fork(self) -> None:
        """The store itself waits for the transaction under way."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork_in_child(self) -> None:
        """Begin with an empty queue: the threads that waited are the parent's."""
        self._leader = Mutex()
        self._waiting: deque[_Waiter] = deque()

    def answer(self, request: Request) -> Answer:
        """Carry out one call, durably, together with the others that wait.

        Raises:
            VerityConnectionError: the leader was interrupted; whether the call was carried out is unknown.
            VerityError: the store can't be used.
        """
        me = _Waiter(request)
        try:
            self._waiting.append(me)
            while me.outcome is None:
                if not self._try_to_lead(me):
                    me.bell.acquire(timeout=_CHECK_EVERY_S)
        finally:
            try:  # see verity/_mutex.py
                me.is_gone = True  # a store, not a call: an interrupt may come at the entry of a call
            finally:
                pass
        if isinstance(me.outcome, VerityError):
            raise me.outcome
        return me.outcome

    def _try_to_lead(self, me: _Waiter) -> bool:
        """Lead unless another thread does: carry out a batch with `me`, then wake the next leader. False: it does."""
        batch: list[_Waiter] = []
        has_led = False
        try:
            has_led = self._leader.run_if_free(partial(self._lead, me, batch))
        finally:
            if (has_led or batch) and self._waiting:
                self._ring_next()
            for each in batch:
                if each is not me:
                    each.ring()
        return has_led

    def _lead(self, me: _Waiter, batch: list[_Waiter]) -> None:
        self._fail_abandoned()
        if me.outcome is None:  # otherwise another leader carried it out meanwhile
            batch += [each for each in self._first_waiting() if not each.is_gone]
            self._carry_out(batch)
            self._remove_finished()

    def _carry_out(self, batch: list[_Waiter]) -> None:
        for each in batch:
            each.is_taken = True
        try:
            answers = self._store.answer_batch([each.request for each in batch])
        except VerityError as error:
            for each in batch:
                each.outcome = error
        else:
            for each, answer in zip(batch, answers, strict=True):
                each.outcome = answer

    def _fail_abandoned(self) -> None:
        """Fail the calls that an interrupted leader had begun to carry out: their outcome is unknown."""
        self._remove_finished()
        if not self._waiting or not self._waiting[0].is_taken:
            return
        for each in self._first_waiting():
            if each.is_taken and each.outcome is None:
                each.outcome = VerityConnectionError(
                    "The thread that wrote to the ledger was interrupted: whether it carried the call out is unknown."
                )
                each.ring()
        self._remove_finished()

    def _remove_finished(self) -> None:
        """Remove the first calls of the queue that have an outcome, or whose thread is gone."""
        while self._waiting and (self._waiting[0].outcome is not None or self._waiting[0].is_gone):
            self._waiting.popleft()

    def _ring_next(self) -> None:
        for each in self._first_waiting():
            if each.outcome is None and not each.is_gone:
                each.ring()
                return

    def _first_waiting(self) -> list[_Waiter]:
        return list(self._waiting)[:MAX_BATCH]  # copying is atomic: no thread can append meanwhile


class LoopGroupCommit:
    """Group commit for event loops: one daemon thread, the writer, carries out the batches.

    The writer starts with the first call. It ends with `close()`, or when the last reference to this object is gone. It
    shares one queue with the event loops. Each of the queue's methods is atomic, so an interrupt can't leave the queue
    half changed.

    Attributes:
        watch: called in the writer with the number of calls of each batch, before the batch is carried out.
        max_batch: the most calls in one batch.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.watch: Callable[[int], None] | None = None
        self.max_batch = MAX_BATCH
        self._owner: _Owner = []
        self.after_fork_in_child()
        forks.watch(self)

    def before_fork(self) -> None:
        """The store itself waits for the transaction under way."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork_in_child(self) -> None:
        """Begin with an empty queue and without a writer: those that there were are the parent's."""
        self._lock = threading.Lock()
        self._inbox: _Inbox = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._owner.clear()  # otherwise it would wake a thread of the parent, which crashes Python 3.13
        self._owner = [
            weakref.ref(self, self._inbox.put)
        ]  # when this object is gone, the dead reference tells the writer

    def answer(self, request: Request) -> Coroutine[Any, Any, Answer]:
        """Carry out one call, durably, together with the others that wait.

        If this is cancelled, the call may be carried out or not. Other calls are not affected.
        """
        return wait_for(partial(self._submit, request))

    def close(self) -> None:
        """Carry out the calls that wait, and end the writer."""
        thread = self._thread
        if thread is not None and thread.is_alive():
            self._inbox.put(None)
            if thread is not threading.current_thread():
                thread.join()

    def _submit(self, request: Request, deliver: Deliver) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=_write, args=(self._owner, self._inbox), name="verity-ledger-writer", daemon=True
                )
                self._thread.start()  # if this raises, the next call tries again
            self._inbox.put((request, deliver))

    def has_ended(self) -> bool:
        """Whether no call waits. Then the writer ends, and the next call starts a new one."""
        with self._lock:
            if self._inbox.empty():
                self._thread = None
            return self._thread is None

    def carry_out(self, batch: list[tuple[Request, Deliver]]) -> None:
        """Carry out a batch, in the writer, and deliver the answers."""
        outcomes: Sequence[Answer | BaseException]
        try:
            if self.watch is not None:
                self.watch(len(batch))
            outcomes = self._store.answer_batch([request for request, _ in batch])
        except BaseException as error:  # noqa: BLE001 - the thread must live, and the error is raised at the callers
            outcomes = [error] * len(batch)
        for (_, deliver), outcome in zip(batch, outcomes, strict=True):
            deliver(outcome)


_Inbox = SimpleQueue[Any]
"""Its items: a call with its `Deliver`; None: end once no call waits; a dead reference: the owner is gone, end."""


_Owner = list[weakref.ref[LoopGroupCommit]]
"""A weak reference to the owner, in a list so that the child of a fork can remove it."""


def _write(owner: _Owner, inbox: _Inbox) -> None:
    """What the writer runs. Between two batches it keeps only the inbox alive, so that the owner can be collected."""
    is_closing = False
    while True:
        batch = [inbox.get()]
        group = owner[0]()
        if group is None:
            return
        batch += [inbox.get() for _ in range(min(inbox.qsize(), group.max_batch - 1))]
        is_closing = is_closing or None in batch
        batch = [each for each in batch if each is not None]
        if batch:
            group.carry_out(batch)
        if is_closing and group.has_ended():
            return
        del batch, group
