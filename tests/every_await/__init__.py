"""A fault at every await and at every start of a thread, in the real async client over real ledgers."""
