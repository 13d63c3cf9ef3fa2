# Made from verity/_async/__init__.py by scripts/mirror.py. Do not edit.
"""The mirror of `verity/_async` for threads."""
