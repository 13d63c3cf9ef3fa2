"""A refund with the async client and an embedded ledger. Run it twice: it refunds once.

python examples/refund_async.py
"""

import asyncio

from verity import VerityClient

REFUNDS: dict[str, dict[str, str]] = {}  # the payment provider's refunds by order


async def find_refund() -> dict[str, str] | None:
    return REFUNDS.get("order_48392")


async def make_refund() -> dict[str, str]:
    return REFUNDS.setdefault("order_48392", {"refund_id": "re_123"})


async def main() -> None:
    async with VerityClient(base_url="sqlite:///verity-example.db", namespace="payments") as verity:
        refund = await verity.protect("refund:order_48392", observe=find_refund, act=make_refund)
        print(f"refunded: {refund['refund_id']}")


if __name__ == "__main__":
    asyncio.run(main())
