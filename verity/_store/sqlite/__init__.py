"""The SQLite store: one file that several processes may use. Read `store.py` first."""
