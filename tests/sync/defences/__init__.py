# Generated from tests/aio/defences/__init__.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.
