"""``everpool demo --web``: everpool's lane alone, without an end, and its page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic, sleep

from everpool.demo.contestants import CONTESTANTS
from everpool.demo.lane import AGE_CUT, IDLE_CUT, Lane
from everpool.demo.run import Plan
from everpool.lab import PostgresServer
from everpool.web import serve

__all__ = ["serve_demo"]

_LOOK = 0.1  # seconds between looks whether a round of requests is over


def serve_demo(plan: Plan, tell: Callable[[str], None]) -> None:
    """Play *plan* round after round, and *tell* where the page is. Ends by KeyboardInterrupt.

    :raises everpool.lab.BinariesNotFound: there is no PostgreSQL on this machine.
    :raises everpool.lab.ServerError: it does not start.
    """
    logging.getLogger("everpool").addHandler(logging.NullHandler())
    with ExitStack() as stack:
        server = stack.enter_context(PostgresServer())
        (contestant,) = (one for one in CONTESTANTS if one.key == "everpool")
        lane = Lane(contestant, server, silent=plan.silent)
        stack.callback(lane.close)
        lane.open()
        page = stack.enter_context(serve(lane.pool, note=_note(plan)))
        tell(f"{page.url}#seconds=60")
        while True:
            lane.begin(monotonic(), plan.dues)
            while not lane.is_done():
                sleep(_LOOK)


def _note(plan: Plan) -> str:
    how = "forgets" if plan.silent else "closes"
    return (
        f"This is the demo. A proxy {how} every connection that is quiet for {IDLE_CUT:g} s, and"
        f" closes those {AGE_CUT:g} s old; hours are seconds here. Ctrl-C in the terminal ends it."
    )
