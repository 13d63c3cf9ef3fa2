"""The served ledger: HTTP in front of a store. Needs the extra `[server]`; nothing outside imports it."""
