"""A lane of the demo, with a database behind it."""

from __future__ import annotations

import threading
from time import monotonic, sleep

from everpool.demo.contestants import CONTESTANTS
from everpool.demo.lane import IDLE_CUT, Lane
from everpool.lab import PostgresServer


def test_a_pool_that_hangs_is_seen_to_hang_and_does_not_keep_us(server: PostgresServer) -> None:
    plain = next(each for each in CONTESTANTS if each.key == "psycopg_pool")
    lane = Lane(plain, server, silent=True)
    try:
        lane.open()
        lane.begin(monotonic(), [0.0, *[IDLE_CUT + 0.3] * 4, 60.0])
        sleep(IDLE_CUT + 0.8)
        view = lane.look()
        assert [seen.outcome for seen in view.requests] == ["ok", *["pending"] * 4]
        assert not lane.is_done()
    finally:
        began = monotonic()
        lane.close()
    assert monotonic() - began < 5.0
    assert not [each for each in threading.enumerate() if each.name.startswith("everpool-demo")]
