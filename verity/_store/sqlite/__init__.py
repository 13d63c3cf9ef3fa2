"""The SQLite store: one file, several processes. Read `store.py` first."""
