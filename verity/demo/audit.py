"""The outcome of a run, from the payments service's records and the ledger. The worker's own reports are not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from verity import LeaseConflictError, LeaseRequestBody, SyncVerityClient
from verity.demo.orders import Order, validate_order
from verity.demo.payments import read_records
from verity.demo.supervisor import Job, Tally
from verity.demo.worker import STEPS, WORKFLOW, ledger_url


@dataclass(frozen=True)
class Outcome:
    """One column of the table.

    Attributes:
        double_refunds: refunds after the first of their order.
        problems: one line for each step that did not happen exactly once; empty if all did.
    """

    orders: int
    worker_starts: int
    kills: int
    refunds: int
    double_refunds: int
    notifications: int
    wall_s: float
    problems: tuple[str, ...]


def audit(job: Job, orders: Sequence[Order], tally: Tally) -> Outcome:
    """Compare the orders with the service's records and, if the run used one, with the ledger."""
    refunds, receipts = read_records(job.records_file)
    per_charge = Counter(refund["charge"] for refund in refunds)
    problems = [*_wrong_records(orders, refunds, receipts)]
    if job.mode != "plain":
        problems += _wrong_in_ledger(job, orders, {refund["order"]: refund for refund in refunds})
    missed = len(job.kill_at - tally.killed_at)
    if missed:
        problems.append(f"{missed} of {len(job.kill_at)} kills did not happen")
    return Outcome(
        orders=len(orders),
        worker_starts=tally.worker_starts,
        kills=len(tally.killed_at),
        refunds=len(refunds),
        double_refunds=len(refunds) - len(per_charge),
        notifications=len(receipts),
        wall_s=tally.wall_s,
        problems=tuple(problems),
    )


def _wrong_records(
    orders: Sequence[Order], refunds: Sequence[dict[str, object]], receipts: Sequence[dict[str, object]]
) -> list[str]:
    made: Counter[tuple[object, object, object]] = Counter(
        (refund["charge"], refund["amount"], refund["currency"]) for refund in refunds
    )
    ordered: Counter[tuple[object, object, object]] = Counter(
        (order.charge_id, validate_order(order), order.currency) for order in orders
    )
    order_of = {order.charge_id: order.order_id for order in orders}
    problems = [
        f"{order_of.get(str(charge), charge)}: {made[charge, amount, currency]} refunds of {amount} {currency} "
        f"(smallest unit) instead of {ordered[charge, amount, currency]}"
        for charge, amount, currency in made | ordered
        if made[charge, amount, currency] != ordered[charge, amount, currency]
    ]
    notified = Counter(receipt["order"] for receipt in receipts)
    problems += [
        f"{order.order_id}: {notified[order.order_id]} notifications instead of 1"
        for order in orders
        if notified[order.order_id] != 1
    ]
    return problems


def _wrong_in_ledger(job: Job, orders: Sequence[Order], refund_of: dict[str, dict[str, object]]) -> list[str]:
    """The ledger answers a lease request for a committed effect with its result, and any other one differently."""
    problems: list[str] = []
    with SyncVerityClient(ledger_url(job.directory), agent_id="demo-audit") as verity:
        for order in orders:
            for step in STEPS:
                key = f"{order.order_id}:{step}"
                try:
                    lease = verity.request_lease(WORKFLOW, LeaseRequestBody(effect_key=key))
                except LeaseConflictError:
                    problems.append(f"{key}: still leased, not committed")
                    continue
                if lease.status != "cached_completed":
                    problems.append(f"{key}: not committed in the ledger")
                elif step == "process_refund" and lease.cached_result != refund_of.get(order.order_id):
                    problems.append(f"{key}: the ledger has another refund than the payments service")
    return problems
