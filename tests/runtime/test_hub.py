"""The hub between a pool and its listeners: what runs in the middle of it must not stop it."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import nullcontext
from typing import Any

import pytest

from everpool import ConnectionPool
from everpool.core.events import Closed, Drained, Happening
from everpool.logs import LogWriter
from everpool.subscriptions import Hub


@pytest.fixture
def amid(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is called in the middle of the next publishing, as a finalizer may be."""
    calls: list[Any] = []
    add = LogWriter.add

    def interrupted(writer: LogWriter, happening: Happening, now: float) -> None:
        if calls:
            calls.pop()()
        add(writer, happening, now)

    monkeypatch.setattr(LogWriter, "add", interrupted)
    return calls


@pytest.mark.timeout(5)
def test_a_subscription_may_be_closed_by_a_finalizer_amid_publishing(amid: list[Any]) -> None:
    hub = Hub("test")
    subscription = hub.add(print, ())
    amid.append(subscription.close)
    hub.publish(deque([Closed(1.0)]))
    assert hub.subscriptions == () and not subscription.claim(object())


@pytest.mark.timeout(5)
def test_a_finalizer_may_publish_amid_publishing(amid: list[Any]) -> None:
    """A generator that holds a connection is collected, and the connection returned."""
    hub = Hub("test")
    happenings: deque[Happening] = deque([Closed(1.0)])

    def returns() -> None:
        happenings.append(Drained(2.0))
        hub.publish(happenings)

    amid.append(returns)
    hub.publish(happenings)
    assert not happenings and set(hub.recent) == {Closed(1.0), Drained(2.0)}


def test_what_the_fast_paths_are_read_from_is_not_written_over_by_older_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool: ConnectionPool[Any] = ConnectionPool(open=False)
    monkeypatch.setattr(pool, "_closed", False)
    pool._read_fast_paths()
    assert pool._direct
    threads: list[threading.Thread] = []

    def wants_loans(hub: Hub) -> bool:
        if not threads:  # another thread's order comes just when this one has read the old state
            threads.append(threading.Thread(target=pool.trace, args=[nullcontext]))
            threads[0].start()
            threads[0].join(0.3)
        return False

    monkeypatch.setattr(Hub, "wants_loans", property(wants_loans))
    pool._read_fast_paths()
    threads[0].join(5)
    assert not pool._direct
    monkeypatch.setattr(pool, "_closed", True)
