"""The code in which the async and the sync client differ, as hand-written pairs.

Each `Async…` has a `Sync…` twin of the same shape. The code in `_async/` uses the first, its mirror in `_sync/` the
second. No other module of the client imports anyio or threading. The idea is from httpcore's `_synchronization.py` and
psycopg's `_acompat.py`.
"""

from verity._concurrency.async_calls import AsyncCancellation
from verity._concurrency.blocking import async_blocking, sync_blocking
from verity._concurrency.callables import (
    AsyncAct,
    AsyncFunction,
    AsyncThunk,
    SyncAct,
    SyncFunction,
    SyncThunk,
    async_check_callable,
    async_settled,
    sync_check_callable,
    sync_settled,
)
from verity._concurrency.current import CurrentEffect, NoLease
from verity._concurrency.greenlets import check_threads
from verity._concurrency.interrupts import async_here, async_interrupt_in, sync_here, sync_interrupt_in
from verity._concurrency.limiters import AsyncLimiter, NonBlockingLimiter, Permit, SyncLimiter
from verity._concurrency.loop_binding import AsyncLoopBinding, SyncLoopBinding
from verity._concurrency.names import async_addresses, async_connect, sync_addresses, sync_connect
from verity._concurrency.nesting import Inside
from verity._concurrency.runtime import AsyncRuntime, SyncRuntime, Timer
from verity._concurrency.single_flight import AsyncSingleFlight, SyncSingleFlight
from verity._concurrency.sync_calls import SyncCancellation
from verity._process import forget_in_child, notice_fork

__all__ = [
    "AsyncAct",
    "AsyncCancellation",
    "AsyncFunction",
    "AsyncLimiter",
    "AsyncLoopBinding",
    "AsyncRuntime",
    "AsyncSingleFlight",
    "AsyncThunk",
    "CurrentEffect",
    "Inside",
    "NoLease",
    "NonBlockingLimiter",
    "Permit",
    "SyncAct",
    "SyncCancellation",
    "SyncFunction",
    "SyncLimiter",
    "SyncLoopBinding",
    "SyncRuntime",
    "SyncSingleFlight",
    "SyncThunk",
    "Timer",
    "async_addresses",
    "async_blocking",
    "async_check_callable",
    "async_connect",
    "async_here",
    "async_interrupt_in",
    "async_settled",
    "check_threads",
    "forget_in_child",
    "notice_fork",
    "sync_addresses",
    "sync_blocking",
    "sync_check_callable",
    "sync_connect",
    "sync_here",
    "sync_interrupt_in",
    "sync_settled",
]
