# Generated from src/everpool/_async/__init__.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The pool for asyncio: written by hand. ``_sync`` is generated from it."""
