"""Stores: where a ledger keeps its effects and API keys. The embedded ledger and the server use them."""
