"""The packages that the contract is tested on.

Every contract test is meant for psycopg_pool as much as for everpool: psycopg_pool is the reference, and a test that it
fails says something wrong about the contract. As the reference does not change from one day to the next, it is only
run when EVERPOOL_TEST_REFERENCE=1 says so.

A test for one of the two only carries a mark with the reason:

    @reference_only("psycopg_pool waits a second before ...")
    @everpool_only("psycopg_pool lends the dead connection")
"""

from __future__ import annotations

import os

import pytest

REFERENCE = "psycopg_pool"
OURS = "everpool"

PACKAGES = [REFERENCE, OURS] if os.environ.get("EVERPOOL_TEST_REFERENCE") == "1" else [OURS]


def reference_only(reason: str) -> pytest.MarkDecorator:
    """What psycopg_pool does and everpool, on purpose, does otherwise."""
    return pytest.mark.contract_only(REFERENCE, reason=reason)


def everpool_only(reason: str) -> pytest.MarkDecorator:
    """What psycopg_pool documents and does not do, or what everpool adds to the same words."""
    return pytest.mark.contract_only(OURS, reason=reason)


def deselect_by_package(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that are not meant for the package they were parametrized with."""
    kept, left_out = [], []
    for item in items:
        mark = item.get_closest_marker("contract_only")
        callspec = getattr(item, "callspec", None)
        package = callspec.params.get("package") if callspec else None
        (left_out if mark and package and package != mark.args[0] else kept).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
