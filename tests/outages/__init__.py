"""The ledger is away when acts have ended and their results are to be committed. See `scenario.py`."""
