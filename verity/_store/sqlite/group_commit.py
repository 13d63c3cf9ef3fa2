"""Group commit: operations that wait at the same moment go to disk together, in one transaction.

A lone operation goes at once: nothing ever waits for company. The idea is old (DeWitt et al. 1984); what is specific
here is only who does the work: among threads the first one that comes (no thread of our own, nothing to fork or stop),
for event loops one writer thread, so that a cancelled task can neither block nor lose the others' operations.
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

_LOOK_EVERY_S = 0.05


class Store(Protocol):
    """What group commit needs of a store."""

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry requests out as one transaction."""
        ...


class _Waiter:
    """One thread's operation. Its bell rings when there is an answer, or when it is its turn to lead."""

    __slots__ = ("bell", "is_gone", "is_taken", "outcome", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome: Answer | VerityError | None = None
        self.is_taken = False
        """A leader began to carry it out."""
        self.is_gone = False
        """Its thread has left, with an answer or without one."""
        self.bell = threading.Lock()
        self.bell.acquire()

    def ring(self) -> None:
        """Wake its thread. Idempotent."""
        with suppress(RuntimeError):  # it rings already
            self.bell.release()


class ThreadGroupCommit:
    """For threads: the first one carries out what has gathered, then hands the lead to the next one that waits.

    A signal's handler, or another thread, may raise an exception in any of these threads and at any point of this
    code. Nobody else may be left waiting for that. So who leads is told by a `Mutex`, which is always released; an
    operation stays in line until it has an outcome, so that the next leader finds what an interrupted one left; and a
    bell only saves time: who waits also looks for itself, every `_LOOK_EVERY_S` seconds.
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
        """Those who waited were threads of the parent."""
        self._lead = Mutex()
        self._waiting: deque[_Waiter] = deque()

    def answer(self, request: Request) -> Answer:
        """Carry out one operation, durably, with whatever else waits.

        Raises:
            VerityConnectionError: the thread that carried it out was interrupted: it is unknown whether it did.
            VerityError: the store can't be used.
        """
        me = _Waiter(request)
        try:
            self._waiting.append(me)
            while me.outcome is None:
                if not self._lead_if_nobody_does(me):
                    me.bell.acquire(timeout=_LOOK_EVERY_S)
        finally:
            try:  # see verity/_mutex.py
                me.is_gone = True  # a store, not a call: an interrupt may come at the entry of a call
            finally:
                pass
        if isinstance(me.outcome, VerityError):
            raise me.outcome
        return me.outcome

    def _lead_if_nobody_does(self, me: _Waiter) -> bool:
        """Carry out what waits, `me` among it, then let the next one lead. False: another thread leads."""
        batch: list[_Waiter] = []
        has_led = False
        try:
            has_led = self._lead.run_if_free(partial(self._carry_out_what_waits, me, batch))
        finally:
            if (has_led or batch) and self._waiting:
                self._ring_next()
            for each in batch:
                if each is not me:
                    each.ring()
        return has_led

    def _carry_out_what_waits(self, me: _Waiter, batch: list[_Waiter]) -> None:
        self._settle_what_was_left()
        if me.outcome is None:  # else another thread carried it out meanwhile
            batch += [each for each in self._first_in_line() if not each.is_gone]
            self._carry_out(batch)
            self._leave_line()

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

    def _settle_what_was_left(self) -> None:
        """Whose operation an interrupted leader had begun to carry out asks again."""
        self._leave_line()
        if not self._waiting or not self._waiting[0].is_taken:
            return
        for each in self._first_in_line():
            if each.is_taken and each.outcome is None:
                each.outcome = VerityConnectionError(
                    "The thread that wrote to the ledger was interrupted: whether it carried the call out is unknown."
                )
                each.ring()
        self._leave_line()

    def _leave_line(self) -> None:
        """Who has an outcome, or is gone, is out."""
        while self._waiting and (self._waiting[0].outcome is not None or self._waiting[0].is_gone):
            self._waiting.popleft()

    def _ring_next(self) -> None:
        for each in self._first_in_line():
            if each.outcome is None and not each.is_gone:
                each.ring()
                return

    def _first_in_line(self) -> list[_Waiter]:
        return list(self._waiting)[:MAX_BATCH]  # `list` is one step: others join before it or after it


class LoopGroupCommit:
    """For event loops: one daemon thread writes; it starts with the first operation.

    It ends with `close()`, and also when the last reference to this object is gone. What it shares with the event
    loops is a queue of which every call is one step, so that nothing that is raised in between leaves it half changed.

    Attributes:
        watch: called in that thread with the number of operations of each batch, before it is carried out.
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
        """The writer was a thread of the parent, and so were the loops that waited."""
        self._lock = threading.Lock()
        self._inbox: _Inbox = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._owner.clear()  # it would wake a thread of the parent, which crashes Python 3.13
        self._owner = [weakref.ref(self, self._inbox.put)]  # the last thing that the thread hears

    def answer(self, request: Request) -> Coroutine[Any, Any, Answer]:
        """Carry out one operation, durably, with whatever else waits.

        Cancelled, it may have been carried out or not; the others are not touched.
        """
        return wait_for(partial(self._submit, request))

    def close(self) -> None:
        """Carry out what waits, and end the thread."""
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
                self._thread.start()  # raises where no thread is to be had: then the next operation tries again
            self._inbox.put((request, deliver))

    def has_ended(self) -> bool:
        """Whether nothing waits; the thread is then told apart from one that goes on."""
        with self._lock:
            if self._inbox.empty():
                self._thread = None
            return self._thread is None

    def carry_out(self, batch: list[tuple[Request, Deliver]]) -> None:
        """Have the store answer, in the writer's thread, and pass the answers on."""
        outcomes: Sequence[Answer | BaseException]
        try:
            if self.watch is not None:
                self.watch(len(batch))
            outcomes = self._store.answer_batch([request for request, _ in batch])
        except BaseException as error:  # noqa: BLE001 - the thread must live, and the error belongs to those who wait
            outcomes = [error] * len(batch)
        for (_, deliver), outcome in zip(batch, outcomes, strict=True):
            deliver(outcome)


_Inbox = SimpleQueue[Any]
"""What comes in: an operation with its `Deliver`; None: end once nothing waits; a dead reference: nobody is left."""


_Owner = list[weakref.ref[LoopGroupCommit]]
"""One reference, which the child of a fork can take away from the parent's thread."""


def _write(owner: _Owner, inbox: _Inbox) -> None:
    """What the writer's thread runs. Between two batches it keeps nothing alive but the inbox."""
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
