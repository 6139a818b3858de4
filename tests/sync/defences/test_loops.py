# Generated from tests/aio/defences/test_loops.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""A pool of tasks belongs to the event loop it was opened in."""

from __future__ import annotations

from typing import Any

from tests.support.database import Database


def test_a_pool_of_a_loop_that_was_closed_goes_without_a_word(
    make: Any, database: Database, recwarn: Any, capsys: Any
) -> None:
    pass


def _gone(database: Database) -> bool:
    from time import monotonic, sleep

    deadline = monotonic() + 5
    while database.pids():
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True
