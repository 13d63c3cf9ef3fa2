# Made from tests/_async/__init__.py by scripts/mirror.py. Do not edit.
"""The client's behaviour, as in `tests/_async`, for threads."""
