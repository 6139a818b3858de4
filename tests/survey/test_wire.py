"""One connection: what is read of its end."""

from __future__ import annotations

import asyncio

from everpool.lab import READY, CutAfter, FaultProxy, PostgresServer, fatal
from everpool.ping import Answer
from everpool.survey.wire import Target, Wire
from everpool.watch import Watch


def test_a_reason_that_comes_together_with_an_answer_is_kept(
    server: PostgresServer, proxy: FaultProxy
) -> None:
    async def run() -> tuple[str, str, str]:
        watch = Watch()
        wire = Wire(await Target(proxy.via(server.dsn), 10.0).connect("busy"), watch, 1)
        try:
            proxy.on(READY, CutAfter(fatal("08P01", "gone")))
            assert wire.ask()
            await proxy.wait_async(lambda stats: bool(stats.cuts))
            while not wire.dead:
                await asyncio.sleep(0.01)
            assert wire.answer() in (Answer.PONG, Answer.DEAD)
            return wire.ending()
        finally:
            await wire.close()
            watch.close()

    assert asyncio.run(run()) == ("fatal", "08P01", "gone")
