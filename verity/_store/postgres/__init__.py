"""The PostgreSQL store, for ledgers of several nodes. Read `batches.py` first."""
