"""A fault at every step of the real sync client: `python -m tests.steps --help`."""
