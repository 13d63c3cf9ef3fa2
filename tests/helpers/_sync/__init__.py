# Made from tests/helpers/_async/__init__.py by scripts/mirror.py. Do not edit.
"""The client's test bench, as in `tests/helpers/_async`, for threads."""
