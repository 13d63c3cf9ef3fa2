"""Modules that the tests build on, and that are no tests themselves. `tests/README.md` lists them."""
