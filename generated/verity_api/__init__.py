# Made from openapi.yaml by scripts/generate.py. Do not edit.
"""The low-level client of the Verity ledger's API: one module for each call, one for each model."""

from .client import AuthenticatedClient, Client

__all__ = (
    "AuthenticatedClient",
    "Client",
)
