"""`verity demo`: refunds under SIGKILL, once as a plain retry does them and once through Verity.

```
supervisor.py   starts the two processes below, kills the worker between refund and commit, starts it again
  payments.py   the outside world, in its own process: refunds on its own disk, without any idempotency
  worker.py     reads the orders and refunds them: with Verity, or with a plain progress file
audit.py        what came out, told from the payments service's records and from the ledger
report.py       the progress bar and the table
```
"""
