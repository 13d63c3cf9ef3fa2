"""Group commit: operations that wait at the same moment go to disk together, in one transaction.

A lone operation goes at once: nothing ever waits for company. The idea is old (DeWitt et al. 1984); what is specific
here is only who does the work: among threads the first one that comes (no thread of our own, nothing to fork or stop),
for event loops one writer thread, so that a cancelled task can neither block nor lose the others' operations.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from verity._ledger.calls import Answer, Request
from verity._store import forks
from verity._store.loops import Deliver, wait_for

MAX_BATCH = 256


class Store(Protocol):
    """What group commit needs of a store."""

    def answer_batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Carry requests out as one transaction."""
        ...


class _Waiter:
    """One thread's operation. Its lock is released when there is an answer, or when it is its turn to lead."""

    __slots__ = ("answer", "error", "leads", "request", "turn")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.answer: Answer | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()


class ThreadGroupCommit:
    """For threads: the first one carries out what has gathered, then hands the lead to the next one that waits."""

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
        self._mutex = threading.Lock()
        self._waiting: deque[_Waiter] = deque()
        self._led = False

    def answer(self, request: Request) -> Answer:
        """Carry out one operation, durably, with whatever else waits."""
        me = _Waiter(request)
        try:
            with self._mutex:
                self._waiting.append(me)
                me.leads = not self._led
                self._led = True
            if not me.leads:
                me.turn.acquire()
            if me.leads:
                self._lead()
        except BaseException:
            self._leave(me)
            raise
        if me.answer is None:
            raise me.error or RuntimeError("a batch ended without an answer")
        return me.answer

    def _leave(self, me: _Waiter) -> None:
        """Go without an answer, as Ctrl+C or a signal's handler asks; the others must not wait for who is not here."""
        with self._mutex:
            if me in self._waiting:
                self._waiting.remove(me)
                if me.leads:
                    self._hand_on()

    def _hand_on(self) -> None:
        """Have the next one lead, inside the lock."""
        following = self._waiting[0] if self._waiting else None
        self._led = following is not None
        if following is not None:
            following.leads = True
            following.turn.release()

    def _lead(self) -> None:
        """Carry out a batch that begins with this thread's own operation, and hand on the lead."""
        batch: list[_Waiter] = []
        try:
            with self._mutex:
                while self._waiting and len(batch) < MAX_BATCH:
                    batch.append(self._waiting.popleft())
            answers = self._store.answer_batch([each.request for each in batch])
            for each, answer in zip(batch, answers, strict=True):
                each.answer = answer
        except BaseException as error:
            # Ctrl+C is this thread's alone. The others don't know what became of their operations, and ask again.
            known = error if isinstance(error, Exception) else RuntimeError("the thread that wrote was interrupted")
            for each in batch:
                each.error = known
            raise
        finally:
            with self._mutex:
                self._hand_on()
            for each in batch:
                each.turn.release()


class LoopGroupCommit:
    """For event loops: one daemon thread writes; it starts with the first operation.

    Attributes:
        watch: called in that thread with the number of operations of each batch, before it is carried out.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.watch: Callable[[int], None] | None = None
        self.max_batch = MAX_BATCH
        self.after_fork_in_child()
        forks.watch(self)

    def before_fork(self) -> None:
        """The store itself waits for the transaction under way."""

    def after_fork_in_parent(self) -> None:
        """Nothing was held."""

    def after_fork_in_child(self) -> None:
        """The writer was a thread of the parent, and so were the loops that waited."""
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Request, Deliver]] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False

    async def answer(self, request: Request) -> Answer:
        """Carry out one operation, durably, with whatever else waits.

        Cancelled, it may have been carried out or not; the others are not touched.
        """
        answer: Answer = await wait_for(lambda deliver: self._submit(request, deliver))
        return answer

    def close(self) -> None:
        """Carry out what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _submit(self, request: Request, deliver: Deliver) -> None:
        with self._changed:
            if self._thread is None:
                self._closing = False
                thread = threading.Thread(target=self._write, name="verity-ledger-writer", daemon=True)
                thread.start()  # raises where no thread is to be had: then the next operation tries again
                self._thread = thread
            elif not self._waiting:
                self._changed.notify()
            self._waiting.append((request, deliver))

    def _write(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closing:
                    self._changed.wait()
                if not self._waiting:
                    self._thread = None
                    return
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.max_batch))]
            outcomes: Sequence[Answer | BaseException]
            try:
                if self.watch is not None:
                    self.watch(len(batch))
                outcomes = self._store.answer_batch([request for request, _ in batch])
            except BaseException as error:  # noqa: BLE001 - the thread must live, and the error belongs to those who wait
                outcomes = [error] * len(batch)
            for (_, deliver), outcome in zip(batch, outcomes, strict=True):
                deliver(outcome)
