"""Which outages a SQLite ledger notices: jumps of the clock in every process, and a node that was away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.helpers.served_ledger import TestClock
from tests.helpers.store_calls import Caller
from verity._ledger.outages import Outage
from verity._ledger.shown import format_time
from verity._store.heartbeat import BEAT_EVERY_MS
from verity._store.lease_states import EffectName
from verity._store.sqlite.clocks import awake_ms, now_ms
from verity._store.sqlite.heartbeat import Offset, boot_id, compare
from verity._store.sqlite.store import SqliteStore


class Machine:
    """A machine with a wall clock and a steady clock, and processes that use one ledger."""

    def __init__(self, path: Path | None) -> None:
        self.clock = TestClock()
        self.steady = TestClock(5_000_000)
        self.stores: list[SqliteStore] = []
        self._path = path

    def start_process(self, *, is_node: bool = False) -> Process:
        store = SqliteStore(None if self._path is None else str(self._path), clock=self.clock, steady=self.steady)
        self.stores.append(store)
        return Process(store, is_node=is_node)

    def advance(self, ms: int, *nodes: Process) -> None:
        """Time passes, and these nodes beat."""
        for _ in range(ms // BEAT_EVERY_MS if nodes else 1):
            self.clock.advance(BEAT_EVERY_MS if nodes else ms)
            self.steady.advance(BEAT_EVERY_MS if nodes else ms)
            for node in nodes:
                node.store.beat()

    def jump(self, ms: int) -> None:
        """The wall clock is set, or the machine was suspended."""
        self.clock.advance(ms)


class Process:
    def __init__(self, store: SqliteStore, *, is_node: bool) -> None:
        self.store = store
        self.call = Caller(store)
        self.outages: list[Outage] = []
        store.heartbeat.recorded.watch(self.outages.append)
        store.heartbeat.is_node = is_node
        if is_node:
            store.beat()

    def lease(self, key: str = "k", ms: int = 5_000) -> str:
        """The status of a lease request: granted, or the error's code."""
        answer = self.call.ask("lease_effect", {"effectKey": key, "leaseDurationMs": ms})
        return "granted" if answer.status == 200 else "/".join(answer.outcome).rstrip("/")

    def remaining_ms(self, key: str = "k") -> int:
        return self.store.lease_states([EffectName("test", "payments", key)])[0].remaining_ms

    def alive_at(self) -> Any:
        return next(self.store._connected().execute("SELECT alive_at FROM heartbeat"))[0]


@pytest.fixture(params=["file", "memory"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "v.db" if request.param == "file" else None)
    yield machine
    for store in machine.stores:
        store.close()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Machine]:
    """A machine whose processes share a file."""
    machine = Machine(tmp_path / "v.db")
    yield machine
    for store in machine.stores:
        store.close()


# --- the clock jumps ---


def test_time_that_the_clock_jumped_over_does_not_count_against_a_lease(machine: Machine) -> None:
    process = machine.start_process()
    assert process.lease() == "granted"
    machine.advance(2_000)
    machine.jump(60_000)
    assert process.lease() == "lease_conflict/grace"
    assert process.outages == [Outage(machine.clock() - 60_000, machine.clock())]
    assert process.remaining_ms() == 5_000, "who waits sleeps until the grace ends"
    machine.advance(4_999)
    assert process.lease() == "lease_conflict/grace"
    machine.advance(1)
    assert process.lease() == "granted"
    assert process.remaining_ms() == 5_000
    assert len(process.outages) == 1


@pytest.mark.parametrize("is_node", [False, True], ids=["embedded", "served"])
def test_time_that_the_clock_jumped_over_is_no_settle_time(machine: Machine, *, is_node: bool) -> None:
    """What timed out a moment ago may still take effect: the next holder would look too early, and act again."""
    process = machine.start_process(is_node=is_node)
    nodes = [process] if is_node else []
    for key, acted in (("k", "unknown"), ("given back", "no")):
        tokens = process.call.tokens(process.call("lease_effect", {"effectKey": key}))
        process.call("release_effect", {**tokens, "acted": acted, "settleMs": 30_000})
    machine.advance(1_000, *nodes)
    machine.jump(60_000)
    assert process.lease("given back") == "granted"
    answer = process.call.ask("lease_effect", {"effectKey": "k"})
    assert answer.outcome[0] == "lease_conflict"
    assert format_time(machine.clock() + 29_000).encode() in answer.body
    assert process.remaining_ms() == 29_000, "who waits sleeps until then"
    machine.advance(28_500, *nodes)
    assert process.lease() == "lease_conflict"
    machine.advance(500, *nodes)
    assert (process.remaining_ms(), process.lease()) == (0, "granted")


def test_the_log_tells_of_an_outage_once(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "verity.ledger")
    process = machine.start_process()
    caplog.clear()
    assert process.lease() == "granted"
    machine.jump(60_000)
    for _ in range(3):
        assert process.lease() == "lease_conflict/grace"
    (line,) = caplog.messages
    assert line.startswith("No holder could renew its lease for 60.0 s, until 2026-02-02T02:41:00.000Z")


def test_a_process_that_starts_after_the_jump_notices_it(shared: Machine) -> None:
    assert shared.start_process().lease() == "granted"
    shared.jump(60_000)
    assert shared.start_process().lease() == "lease_conflict/grace"


def test_a_jump_that_another_process_has_recorded_is_not_recorded_again(shared: Machine) -> None:
    one, two = shared.start_process(), shared.start_process()
    assert one.lease("one") == "granted"
    assert two.lease("two") == "granted"
    shared.jump(60_000)
    assert one.lease("one") == "lease_conflict/grace"
    shared.advance(5_000)
    assert one.lease("one") == "granted"
    shared.advance(5_000)
    assert two.lease("one") == "granted", "the jump was before this lease"
    assert two.outages == []


def test_a_process_that_ends_and_starts_again_takes_over_as_soon_as_the_lease_has_expired(shared: Machine) -> None:
    process = shared.start_process()
    assert process.lease() == "granted"
    process.store.close()
    shared.advance(5_000)
    assert shared.start_process().lease() == "granted"


def test_after_a_restart_of_the_machine_the_offset_says_nothing(tmp_path: Path) -> None:
    clock = TestClock()
    for boot, steady_ms in (("one", 1_000), ("two", 3_000)):
        store = SqliteStore(str(tmp_path / "v.db"), clock=clock, steady=TestClock(steady_ms))
        store.heartbeat._boot = boot
        process = Process(store, is_node=False)
        assert process.lease() == "granted"
        assert process.outages == []
        clock.advance(5_000)
        store.close()


def test_without_the_name_of_the_boot_each_process_compares_with_itself(shared: Machine) -> None:
    one, two = shared.start_process(), shared.start_process()
    for process in (one, two):
        process.store.heartbeat._boot = None
    assert one.lease() == "granted"
    shared.jump(60_000)
    assert two.lease() == "granted", "it cannot know"
    shared.jump(60_000)
    assert two.lease() == "lease_conflict/grace"
    shared.advance(61_000)
    assert two.lease() == "granted"


def test_a_clock_that_is_set_back_is_no_outage(machine: Machine) -> None:
    process = machine.start_process()
    assert process.lease() == "granted"
    machine.jump(-60_000)
    assert process.lease() == "lease_conflict"
    machine.advance(65_000)
    assert process.lease() == "granted"
    assert process.outages == []


def test_an_outage_that_a_clock_set_back_has_left_in_the_future_extends_nothing(machine: Machine) -> None:
    process = machine.start_process()
    assert process.lease() == "granted"
    machine.jump(3_600_000)
    assert process.lease() == "lease_conflict/grace"
    machine.jump(-3_600_000)
    assert process.lease() == "lease_conflict", "it is live again"
    machine.advance(5_000)
    assert process.lease() == "granted"
    machine.advance(5_000)
    assert process.lease() == "granted"


def test_a_jump_while_no_lease_is_live_is_no_outage(machine: Machine) -> None:
    process = machine.start_process()
    assert process.lease() == "granted"
    machine.advance(5_000)
    machine.jump(60_000)
    assert process.lease() == "granted"
    assert process.outages == []


def test_small_steps_add_up_and_an_adjustment_does_not() -> None:
    at, found = 0, 0
    offset = Offset(0, 0)
    for number in range(1, 11):
        at += 500
        offset, jumped = compare(offset, Offset(number * 200, at))
        found += jumped
    assert 1_000 < found < 2_000
    offset, found = Offset(0, 0), 0
    for number in range(1, 100_000):  # 0.09 %, for a day
        offset, jumped = compare(offset, Offset(number * 864 * 9 // 10_000, number * 864))
        found += jumped
    assert found == 0


def test_the_offset_is_saved_now_and_then_and_not_in_every_transaction(shared: Machine) -> None:
    process = shared.start_process()
    assert process.lease("a") == "granted"
    rows = set()
    for _ in range(100):
        shared.advance(1_000)
        process.lease("a")
        rows.add(next(process.store._connected().execute("SELECT * FROM heartbeat")))
    assert len(rows) == 2, "the clocks did not move against each other: once a minute"


def test_a_transaction_that_fails_records_nothing_and_forgets_nothing(shared: Machine) -> None:
    process = shared.start_process()
    assert process.lease() == "granted"
    shared.jump(60_000)
    connection = process.store._connected()
    connection.set_commit_hook(lambda: True)
    answer = process.call.ask("lease_effect", {"effectKey": "other"})
    assert answer.status == 503
    assert process.outages == []
    connection.set_commit_hook(None)
    assert process.lease() == "lease_conflict/grace"
    assert len(process.outages) == 1


def test_the_machines_clocks_are_used_by_default_and_not_with_a_clock_of_ones_own() -> None:
    assert SqliteStore(None).heartbeat._steady is awake_ms
    assert SqliteStore(None, clock=TestClock()).heartbeat._steady is None
    assert abs((now_ms() - awake_ms()) - (now_ms() - awake_ms())) < 1_000
    if Path("/proc/sys/kernel/random/boot_id").exists():
        assert boot_id()


# --- a node ---


def test_a_node_that_was_away_gives_grace_when_it_starts(shared: Machine) -> None:
    node = shared.start_process(is_node=True)
    assert node.lease() == "granted"
    shared.advance(3_000)
    node.store.beat()
    node.store.close()
    shared.advance(7_000)
    node = shared.start_process(is_node=True)
    assert node.outages == [Outage(shared.clock() - 7_000, shared.clock())]
    assert node.lease() == "lease_conflict/grace"
    shared.advance(5_000, node)
    assert node.lease() == "granted"


def test_a_node_that_was_frozen_gives_grace_before_its_next_heartbeat(machine: Machine) -> None:
    node = machine.start_process(is_node=True)
    assert node.lease() == "granted"
    machine.advance(7_000)
    assert node.lease() == "lease_conflict/grace"
    assert len(node.outages) == 1


def test_a_node_whose_clock_jumped_records_one_outage(machine: Machine) -> None:
    node = machine.start_process(is_node=True)
    assert node.lease() == "granted"
    machine.advance(400)
    machine.jump(60_000)
    assert node.lease() == "lease_conflict/grace"
    assert node.outages == [Outage(machine.clock() - 60_400, machine.clock())]


def test_a_node_that_beats_lets_leases_expire(machine: Machine) -> None:
    node = machine.start_process(is_node=True)
    assert node.lease() == "granted"
    machine.advance(5_000, node)
    assert node.lease() == "granted"
    assert node.outages == []


def test_an_idle_node_is_alive_and_writes_nothing(machine: Machine) -> None:
    node = machine.start_process(is_node=True)
    assert node.lease() == "granted"
    machine.advance(10_000, node)
    alive_at, transactions = node.alive_at(), node.store.transactions
    machine.advance(10_000, node)
    assert (node.alive_at(), node.store.transactions) == (alive_at, transactions)
    assert alive_at >= machine.clock() - 15_500
    assert node.lease() == "granted"
    assert node.alive_at() == machine.clock(), "written together with the lease"
    machine.advance(400)
    assert node.lease("b") == "granted"
    assert node.alive_at() == machine.clock() - 400, "not with every batch"
    transactions = node.store.transactions
    node.store.beat()
    assert node.store.transactions == transactions, "a batch has proved it"
    assert node.outages == []


def test_a_node_that_cannot_write_is_away(machine: Machine) -> None:
    node = machine.start_process(is_node=True)
    assert node.lease() == "granted"
    node.store._connected().set_commit_hook(lambda: True)
    for _ in range(14):
        machine.advance(500)
        with pytest.raises(apsw.Error):
            node.store.beat()
    node.store._connected().set_commit_hook(None)
    assert node.lease() == "lease_conflict/grace"


def test_another_node_of_the_file_is_alive_meanwhile(shared: Machine) -> None:
    one, two = shared.start_process(is_node=True), shared.start_process(is_node=True)
    assert one.lease() == "granted"
    shared.advance(5_000, two)
    assert one.lease() == "granted"
    assert one.outages == two.outages == []


def test_an_embedded_ledger_writes_no_heartbeat_and_gives_the_grace_of_a_node(shared: Machine) -> None:
    node, embedded = shared.start_process(is_node=True), shared.start_process()
    assert node.lease() == "granted"
    alive_at = node.alive_at()
    shared.advance(4_000)
    assert embedded.lease("other") == "granted"
    assert embedded.alive_at() == alive_at
    shared.advance(3_000)
    assert node.lease() == "lease_conflict/grace"
    assert embedded.lease() == "lease_conflict/grace"


def test_the_silence_of_a_program_without_a_heartbeat_is_one_outage_that_ends(shared: Machine) -> None:
    """An older program, or an embedded ledger, worked on the file for an hour while no node ran."""
    node, embedded = shared.start_process(is_node=True), shared.start_process()
    assert node.lease("before") == "granted"
    node.store.close()
    shared.advance(3_595_000)
    assert embedded.lease("shortly before", 30_000) == "granted"
    shared.advance(30_000)
    node = shared.start_process(is_node=True)
    assert len(node.outages) == 1
    assert node.lease("shortly before") == "lease_conflict/grace"
    shared.advance(30_000, node)
    assert node.lease("shortly before") == "granted"
    assert node.lease("before") == "granted"


def test_the_first_node_of_a_file_has_no_outage(shared: Machine) -> None:
    embedded = shared.start_process()
    assert embedded.lease() == "granted"
    shared.advance(60_000)
    node = shared.start_process(is_node=True)
    assert node.lease() == "granted"
    assert node.outages == []


def test_outages_are_told_to_a_watcher_that_comes_later(machine: Machine) -> None:
    process = machine.start_process()
    process.store.heartbeat.recorded.__init__()  # type: ignore[misc]  # as if nobody watched
    assert process.lease() == "granted"
    machine.jump(60_000)
    process.lease()
    told: list[Outage] = []
    watch: Callable[[Outage], None] = told.append
    process.store.heartbeat.recorded.watch(watch)
    assert len(told) == 1
