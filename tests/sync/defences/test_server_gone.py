# Generated from tests/aio/defences/test_server_gone.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The server is gone for a while, under load: tried sparingly, and served within a second of its return."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import PoolTimeout
from everpool.lab import RST, SILENCE, CutBefore, FaultProxy, Message
from tests.support.threads import eventually, gather, scalar, sleep, spawn
from tests.sync.defences.measure import is_whole

SIZE = 20
LENGTHS = [4.0, 9.0, 20.0] if os.environ.get("EVERPOOL_TEST_LONG") == "1" else [4.0]

# A client's first word silences its connection: it was accepted, and is never answered.
FIRST_WORD = Message("client")


class Connects:
    """Counts the connects in flight, where they are made: a port that refuses sees none of them."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.total = 0

    def connection_class(self) -> Any:
        counts = self

        class Counting(psycopg.Connection[Any]):
            @classmethod
            def connect(cls, *args: Any, **kwargs: Any) -> Any:
                counts.now += 1
                counts.total += 1
                counts.most = max(counts.most, counts.now)
                try:
                    return super().connect(*args, **kwargs)
                finally:
                    counts.now -= 1

        return Counting


class Outage:
    """The server goes, and comes back. What was connected through an outage never works again."""

    def __init__(self, proxy: FaultProxy, silent: bool) -> None:
        self.proxy = proxy
        self.silent = silent

    def begin(self) -> None:
        if self.silent:
            self.proxy.cut(SILENCE)
            self.rule = self.proxy.on(FIRST_WORD, CutBefore(SILENCE), times=None)
        else:
            self.proxy.refuse()
            self.proxy.cut(RST)

    def end(self) -> None:
        if self.silent:
            self.rule.remove()
        else:
            self.proxy.accept()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("silent", [False, True], ids=["refusing", "silent"])
def test_the_first_success_comes_within_a_second_of_the_servers_return(
    make: Any, proxy: FaultProxy, silent: bool, length: float, figure: Any
) -> None:
    connects = Connects()
    successes: list[float] = []
    stop = False

    def load() -> None:
        while not stop:
            try:
                with pool.connection() as conn:
                    assert scalar(conn, "select 1") == 1
            except psycopg.OperationalError:
                # Lent when it was cut, or not served in time.
                sleep(0.01)
            else:
                successes.append(monotonic())
                sleep(0.02)

    with make(SIZE, connection_class=connects.connection_class(), timeout=1.5) as pool:
        pool.wait(10)
        workers = [spawn(load) for _ in range(8)]
        eventually(lambda: len(successes) > 16)
        outage = Outage(proxy, silent)
        began = monotonic()
        outage.begin()
        # What was in flight when the server went, and answers still on their way, do not count.
        sleep(0.05)
        connects.most = connects.now
        before = connects.now
        while monotonic() < began + length:
            sleep(0.01)
        most = connects.most - before
        returned = monotonic()
        outage.end()
        eventually(lambda: successes[-1] > returned, timeout=20, every=0.001)
        stop = True
        first = next(when for when in successes if when > returned)
        gather(*workers)
        figure("first success after the return, s", first - returned, 1)
        figure("connects in flight", most, 2 if silent else 1)
        eventually(lambda: is_whole(pool, SIZE), timeout=10)


def test_while_the_server_is_gone_its_ghost_is_not_hammered(make: Any, proxy: FaultProxy) -> None:
    connects = Connects()
    with make(SIZE, connection_class=connects.connection_class()) as pool:
        pool.wait(10)
        opened = connects.total
        proxy.refuse()
        proxy.cut(RST)
        with pytest.raises(PoolTimeout, match="refused"):
            with pool.connection(timeout=2):
                pass
        # Waits between attempts are drawn from [0, 0.8) once warmed up: five in two seconds, and the first few quicker.
        assert 3 <= connects.total - opened <= 25
