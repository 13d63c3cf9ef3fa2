"""A refund in three steps with the sync client. Run it again after a crash: steps that are done are not repeated."""

from verity import SyncVerityClient


def main(base_url: str = "sqlite:///verity-example.db") -> None:
    with SyncVerityClient(base_url=base_url) as verity:
        run = verity.workflow("refund_flow").case("order_123").run()
        run.protect("validate_order", act=lambda: {"valid": True})
        refund = run.protect("process_refund", observe=lambda: None, act=lambda: {"refund_id": "re_1"})
        run.protect("notify_customer", act=lambda: f"sent for {refund['refund_id']}")
        print(f"order_123: {refund['refund_id']}")


if __name__ == "__main__":
    main()
