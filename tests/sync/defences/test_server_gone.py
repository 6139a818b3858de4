# Generated from tests/aio/defences/test_server_gone.py by `python tools/async_to_sync.py`.
# Do not edit: change that file and run `make generate`.

"""The server is gone for a while, under load: tried sparingly, and served within a second of its return."""

from __future__ import annotations

import os
from time import monotonic
from typing import Any

import psycopg
import pytest

from everpool import PoolTimeout
from everpool.lab import RST, SILENCE, CutBefore, FaultProxy, Message
from tests.support.threads import eventually, gather, scalar, sleep, spawn
from tests.sync.defences.measure import at_rest, is_whole

SIZE = 20
LENGTHS = [4.0, 9.0, 20.0] if os.environ.get("EVERPOOL_TEST_LONG") == "1" else [4.0]

# A client's first word silences its connection: it was accepted, and is never answered.
FIRST_WORD = Message("client")


class Connects:
    """Counts the connects in flight, where they are made: a port that refuses sees none of them."""

    def __init__(self) -> None:
        self.total = 0
        self.forget()

    def forget(self) -> None:
        """Count only those that begin from now on."""
        self.flight: set[int] = set()
        self.most = 0

    def connection_class(self) -> Any:
        counts = self

        class Counting(psycopg.Connection[Any]):
            @classmethod
            def connect(cls, *args: Any, **kwargs: Any) -> Any:
                counts.total += 1
                number, flight = counts.total, counts.flight
                flight.add(number)
                counts.most = max(counts.most, len(counts.flight))
                try:
                    return super().connect(*args, **kwargs)
                finally:
                    flight.discard(number)

        return Counting


class Outage:
    """The server goes, and comes back. What was connected through an outage never works again."""

    def __init__(self, proxy: FaultProxy, silent: bool) -> None:
        self.proxy = proxy
        self.silent = silent
        self.begun = self.ended = False

    def begin(self) -> None:
        self.begun = True
        if self.silent:
            self.proxy.cut(SILENCE)
            self.rule = self.proxy.on(FIRST_WORD, CutBefore(SILENCE), times=None)
        else:
            self.proxy.refuse()
            self.proxy.cut(RST)

    def end(self) -> None:
        self.ended = True
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

    def visit() -> None:
        try:
            with pool.connection() as conn:
                assert scalar(conn, "select 1") == 1
            successes.append(monotonic())
        except psycopg.OperationalError:
            pass  # lent when it was cut, or not served in time

    with make(SIZE, connection_class=connects.connection_class(), timeout=3) as pool:
        pool.wait(10)
        outage = Outage(proxy, silent)
        visitors: list[Any] = []
        began = returned = monotonic() + 0.5
        most = 0
        # Somebody comes every 50 ms, whatever became of those before.
        while not successes or successes[-1] <= returned:
            visitors.append(spawn(visit))
            sleep(0.05)
            now = monotonic()
            if not outage.begun and now > began:
                outage.begin()
                sleep(0.01)
                connects.forget()  # what was in flight when the server went
            elif outage.begun and not outage.ended and now > began + length:
                most = connects.most
                returned = monotonic()
                outage.end()
            assert now < began + length + 20
        first = next(when for when in successes if when > returned)
        proxy.cut(RST)  # frees those who have waited in silence for an answer
        gather(*visitors)
        figure("first success after the return, s", first - returned, 1)
        figure("connects in flight", most, 2 if silent else 1)
        eventually(lambda: is_whole(pool, SIZE), timeout=10)


def test_while_the_server_is_gone_it_is_not_hammered(make: Any, proxy: FaultProxy) -> None:
    connects = Connects()
    with make(SIZE, connection_class=connects.connection_class()) as pool:
        pool.wait(10)
        opened = connects.total
        proxy.refuse()
        proxy.cut(RST)
        eventually(lambda: at_rest(pool) == 0)
        with pytest.raises(PoolTimeout, match="refused"):
            with pool.connection(timeout=2):
                pass
        # Waits between attempts are drawn from [0, 0.8) once warmed up: five in two seconds, and the first few quicker.
        assert 3 <= connects.total - opened <= 25
