"""The input: refund orders in a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from importlib.resources import files

DECIMALS = {"EUR": 2, "GBP": 2, "JPY": 0, "USD": 2}
"""The number of decimals of each currency; a payments service counts in the smallest unit."""


@dataclass(frozen=True, slots=True)
class Order:
    """One line of the file, unchanged."""

    order_id: str
    charge_id: str
    amount: str
    currency: str
    customer: str
    reason: str


def read_orders(count: int | None = None) -> list[Order]:
    """The first `count` orders of the file; without a count, all of them."""
    text = (files("verity.demo") / "orders.csv").read_text(encoding="utf-8")
    return [Order(**row) for row in csv.DictReader(text.splitlines())][:count]


def validate_order(order: Order) -> int:
    """The amount to refund in the currency's smallest unit.

    Raises:
        ValueError: the order's currency or amount is not valid.
    """
    if order.currency not in DECIMALS:
        raise ValueError(f"{order.order_id}: unknown currency {order.currency!r}")
    try:
        amount = Decimal(order.amount).scaleb(DECIMALS[order.currency])
    except InvalidOperation:
        raise ValueError(f"{order.order_id}: {order.amount!r} is not an amount") from None
    if not amount.is_finite() or amount <= 0 or amount != amount.to_integral_value():
        raise ValueError(f"{order.order_id}: {order.amount!r} is not an amount in {order.currency}")
    return int(amount)
