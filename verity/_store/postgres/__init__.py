"""The PostgreSQL store, for ledgers of several nodes. Read `dispatch.py` first, then `batches.py`."""
