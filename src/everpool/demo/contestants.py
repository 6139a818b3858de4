"""The three pools that are shown side by side: what each is called, and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import psycopg_pool

import everpool

__all__ = ["CONTESTANTS", "MAX_SIZE", "MIN_SIZE", "TIMEOUT", "Contestant", "Pool"]

# The same for all three; everything else is left at its default.
MIN_SIZE = 4
MAX_SIZE = 10
TIMEOUT = 10.0  # seconds a request waits for a connection; a visitor would not wait longer


class Pool(Protocol):
    """What the demo calls on a pool."""

    def connection(
        self, timeout: float | None = None
    ) -> AbstractContextManager[psycopg.Connection[Any]]: ...
    def open(self, wait: bool = False, timeout: float = 30.0) -> None: ...
    def close(self, timeout: float = 5.0) -> None: ...


@dataclass(frozen=True, slots=True)
class Contestant:
    """One of the three."""

    key: str
    """What it is called in the JSON."""
    title: str
    """What it is called on the screen."""
    make: Callable[[str], Pool]
    """Make the pool for a database address; it is not open yet."""


def _plain(conninfo: str) -> Pool:
    return psycopg_pool.ConnectionPool(
        conninfo, min_size=MIN_SIZE, max_size=MAX_SIZE, open=False, name="psycopg_pool"
    )


def _checking(conninfo: str) -> Pool:
    return psycopg_pool.ConnectionPool(
        conninfo,
        min_size=MIN_SIZE,
        max_size=MAX_SIZE,
        open=False,
        name="psycopg_pool with check",
        check=psycopg_pool.ConnectionPool.check_connection,
    )


def _everpool(conninfo: str) -> Pool:
    return everpool.ConnectionPool(
        conninfo, min_size=MIN_SIZE, max_size=MAX_SIZE, open=False, name="everpool"
    )


CONTESTANTS = (
    Contestant("psycopg_pool", "psycopg_pool", _plain),
    Contestant("psycopg_pool_check", "with check=", _checking),
    Contestant("everpool", "everpool", _everpool),
)
