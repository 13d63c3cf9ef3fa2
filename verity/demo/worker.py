"""The worker: refunds every order of the file. The supervisor may kill it at any moment, and starts it again.

`refund_with_verity` shows how a program uses Verity. `refund_plainly` is a careful program without it, which notes each
finished order in a file. Both get the same orders and the same payments service.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

from verity import ConflictRetryConfig, LeaseConflictError, SyncVerityClient
from verity.config import OnConflict
from verity.demo.orders import Order, read_orders, validate_order
from verity.demo.payments import PaymentsClient

WORKFLOW = "refund_flow"
STEPS = ("validate_order", "process_refund", "notify_customer")
LEASE_DURATION_MS = 5_000
"""The shortest lease that a ledger grants. A killed worker's order is free again after this time."""

Mode = Literal["verity", "plain", "verity-blind"]
"""`verity-blind` is Verity used wrongly: `observe` never finds anything. It shows that the demo can fail."""


def ledger_url(directory: Path) -> str:
    """The embedded ledger of a run."""
    return f"sqlite:///{directory.absolute() / 'ledger.db'}"


def refund_with_verity(verity: SyncVerityClient, payments: PaymentsClient, orders: Iterable[Order], mode: Mode) -> None:
    """Refund every order exactly once, even if workers before this one were killed.

    An order that is still leased to a killed worker comes last, when its lease has expired.
    """
    leased: list[Order] = []
    for order in orders:
        try:
            _refund(verity, payments, order, "throw", mode)
        except LeaseConflictError:
            leased.append(order)
    for order in leased:
        _refund(verity, payments, order, "retry", mode)


def _refund(
    verity: SyncVerityClient, payments: PaymentsClient, order: Order, on_conflict: OnConflict, mode: Mode
) -> None:
    def find_refund() -> dict[str, Any] | None:
        return None if mode == "verity-blind" else payments.find("refunds", charge=order.charge_id)

    run = verity.workflow(WORKFLOW).case(order.order_id).run(lease_duration_ms=LEASE_DURATION_MS)
    amount = run.protect(
        "validate_order",
        act=lambda: validate_order(order),
        input_json=asdict(order),
        on_conflict=on_conflict,
    )
    refund = run.protect(
        "process_refund",
        observe=find_refund,
        act=lambda: _create_refund(payments, order, amount),
        on_conflict=on_conflict,
    )
    run.protect(
        "notify_customer",
        observe=lambda: payments.find("receipts", refund=refund["id"]),
        act=lambda: _send_receipt(payments, order, refund["id"]),
        on_conflict=on_conflict,
    )


def refund_plainly(progress_file: Path, payments: PaymentsClient, orders: Iterable[Order]) -> None:
    """Refund every order that is not marked as done in the file, and mark it on disk directly afterwards."""
    with progress_file.open("a+", encoding="utf-8") as progress:
        progress.seek(0)
        done = set(progress.read().split())
        for order in orders:
            if order.order_id in done:
                continue
            refund = _create_refund(payments, order, validate_order(order))
            _send_receipt(payments, order, refund["id"])
            progress.write(order.order_id + "\n")
            progress.flush()
            os.fsync(progress.fileno())


def _create_refund(payments: PaymentsClient, order: Order, amount: int) -> dict[str, Any]:
    return payments.create(
        "refunds", charge=order.charge_id, amount=amount, currency=order.currency, order=order.order_id
    )


def _send_receipt(payments: PaymentsClient, order: Order, refund_id: str) -> dict[str, Any]:
    return payments.create("receipts", refund=refund_id, email=order.customer, order=order.order_id)


def _end_with_supervisor() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """`worker MODE DIRECTORY PORT ORDERS`: one pass through the file."""
    mode, directory, port, order_count = cast(Mode, sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    orders = read_orders(order_count)
    with closing(PaymentsClient(port)) as payments:
        if mode == "plain":
            refund_plainly(directory / "done.txt", payments, orders)
            return
        patience = ConflictRetryConfig(max_attempts=30, max_delay_s=1.0)
        with SyncVerityClient(ledger_url(directory), agent_id="demo-worker", conflict_retry=patience) as verity:
            refund_with_verity(verity, payments, orders, mode)


if __name__ == "__main__":
    main()
