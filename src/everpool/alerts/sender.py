"""Delivering to one sink, in a thread of its own, however long that takes or fails.

What waits for delivery is one notice: a newer one takes up the older. So a dead sink costs no
memory, and hears the present and what has passed when it is back, not each step between.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic

from .http import SinkError
from .notice import Notice
from .sinks import Sink

logger = logging.getLogger("everpool.alerts")

# The first retry comes within this, and the limit doubles. Full jitter: all processes of a fleet
# lose their sink at the same moment.
FIRST_PAUSE = 1.0

# A sink that is back learns within a minute what it missed, and one attempt a minute burdens
# nobody.
LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class SinkState:
    """How a sink fares.

    :param sink: which one, with no secret part of its URL.
    :param delivered: notices delivered; of an Alertmanager, repetitions too.
    :param failed: attempts that failed.
    :param failing: how many of them in a row, up to now.
    :param error: why the last of these failed, or empty.
    :param waiting: whether a notice waits for delivery.
    """

    sink: str
    delivered: int
    failed: int
    failing: int
    error: str
    waiting: bool


class Sender:
    """Sends to one sink. `put` and `stop` never wait for it."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._waiting: Notice | None = None
        self._sending = False
        self._stopping = False
        self._news = Condition()
        self._delivered = self._failed = self._failing = 0
        self._error = ""
        self._thread = Thread(target=self._run, name="everpool-alerts-sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, notice: Notice) -> None:
        with self._news:
            self._waiting = notice.after(self._waiting) if self._waiting else notice
            self._news.notify()

    def stop(self) -> None:
        """Try once to deliver what waits, then end."""
        with self._news:
            self._stopping = True
            self._news.notify()

    def join(self, timeout: float) -> None:
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def state(self) -> SinkState:
        with self._news:
            return SinkState(
                sink=repr(self.sink),
                delivered=self._delivered,
                failed=self._failed,
                failing=self._failing,
                error=self._error,
                waiting=self._sending or self._waiting is not None,
            )

    def _run(self) -> None:
        while (notice := self._next()) is not None:
            error = self._try(notice)
            with self._news:
                self._sending = False
                last = self._stopping
                if error:
                    newer = self._waiting
                    self._waiting = newer.after(notice) if newer else notice
            if error and last:
                return
            if error:
                self._pause()

    def _next(self) -> Notice | None:
        with self._news:
            while self._waiting is None and not self._stopping:
                self._news.wait()
            notice, self._waiting = self._waiting, None
            self._sending = notice is not None
            return notice

    def _try(self, notice: Notice) -> str:
        error = ""
        try:
            self.sink.send(notice)
        except SinkError as ex:
            error = str(ex)
        except Exception as ex:
            error = f"failed with {type(ex).__name__}"  # its text may hold anything
        with self._news:
            before = self._failing
            if error:
                self._failed += 1
            else:
                self._delivered += 1
            self._failing = before + 1 if error else 0
            self._error = error
        self._log(before, error)
        return error

    def _log(self, before: int, error: str) -> None:
        sink = repr(self.sink)
        if not error:
            if before:
                logger.warning("%s delivers again, after %s failures", sink, before)
        elif (before + 1) & before == 0:  # the 1st, 2nd, 4th, 8th time
            count = f" ({before + 1} failures in a row)" if before else ""
            logger.warning("%s did not deliver an alert: %s%s", sink, error, count)

    def _pause(self) -> None:
        """Wait before the next attempt, unless the thread shall end."""
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failing - 1, 16))
        until = monotonic() + random.uniform(0.0, longest)
        with self._news:
            while not self._stopping and (left := until - monotonic()) > 0:
                self._news.wait(left)
