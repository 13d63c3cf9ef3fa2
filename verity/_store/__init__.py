"""Stores: where a ledger keeps its effects. Used by the embedded ledger and by the server."""
