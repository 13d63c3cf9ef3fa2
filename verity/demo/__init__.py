"""`verity demo`: refunds orders while the worker is killed, once with a plain retry and once with Verity.

```
supervisor.py   starts the two processes below, kills the worker between refund and commit, starts it again
  payments.py   the payments service, in its own process: records refunds on disk, without any idempotency
  worker.py     reads the orders and refunds them: with Verity, or with a plain progress file
audit.py        compares the orders with the payments service's records and with the ledger
report.py       the progress bar and the table
```
"""
