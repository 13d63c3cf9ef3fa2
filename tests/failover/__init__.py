"""Fail-overs of PostgreSQL to a real standby, while effects are under way. See `scenario.py`."""
