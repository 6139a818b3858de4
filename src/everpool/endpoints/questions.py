"""The questions, asked of pools: who asks by HTTP gets a `Reply`, whatever the server is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from random import random
from time import monotonic, time
from typing import TYPE_CHECKING, Any, TypeAlias

from everpool.core.health import Status

from .payload import QUESTIONS, Finding, Question, Reply, brief, find, full, refusal
from .readiness import Readiness, Standing

if TYPE_CHECKING:
    from everpool import AsyncConnectionPool, ConnectionPool

    Pool: TypeAlias = ConnectionPool[Any] | AsyncConnectionPool[Any]

__all__ = ["Endpoints", "listed"]

logger = logging.getLogger("everpool.endpoints")

# As people name them, and as Kubernetes' own components do.
PATHS: dict[str, Question] = {f"/{question}": question for question in QUESTIONS}
PATHS |= {"/livez": "live", "/readyz": "ready", "/startupz": "startup", "/healthz": "health"}

ALLOW = ("Allow", "GET, HEAD")


class Endpoints:
    """The answers of one process for its pools, from memory: nothing is asked of the database.

    May be used from any thread. Each object looks for itself: two that are strict leave and
    come back at their own times.

    :param pools: one or several, of either kind. All have to be well.
    :param readiness: when readiness fails; see `Readiness`. By default it does not fail because
        the database is away.
    :param details: give reasons in ``health``, also when it fails. They name hosts and users:
        only for an address that nobody but the owner reaches.
    :raises TypeError: one of the pools is none.
    :raises ValueError: there is none.
    """

    def __init__(
        self,
        pools: Pool | Iterable[Pool],
        *,
        readiness: Readiness | None = None,
        details: bool = False,
        clock: Callable[[], float] = monotonic,
        random: Callable[[], float] = random,
    ) -> None:
        self.pools = listed(pools)
        self._readiness = readiness or Readiness()
        self._details = details
        self._clock = clock
        self._random = random
        self._standings = [Standing() for _ in self.pools]

    def ask(self, question: Question) -> Reply:
        """The answer to a question."""
        if question == "health":
            return full([pool.health() for pool in self.pools], self._details, time())
        if question == "ready":
            return brief(self.ready())
        return brief([find(question, pool.health()) for pool in self.pools])

    def ready(self) -> list[Finding]:
        """Whether each pool lets its process have traffic: one look at each."""
        return [self._look(number) for number in range(len(self.pools))]

    def _look(self, number: int) -> Finding:
        health = self.pools[number].health()
        # Two threads that look at once may count as one look: no harm is in that.
        standing = self._readiness.look(
            self._standings[number], health, self._clock(), self._random
        )
        self._standings[number] = standing
        finding = find("ready", health)
        if standing.out and finding.status is not Status.FAIL:
            return Finding(Status.FAIL, "down")
        return finding

    def reply(self, method: str, path: str, known: str = "") -> Reply:
        """The answer to a request. Never raises.

        :param path: without what the program is mounted under, and without a query.
        :param known: the request's ``If-None-Match``.
        """
        question = PATHS.get(path)
        if question is None:
            return refusal(404, "unknown path")
        if method not in ("GET", "HEAD"):
            return refusal(405, "unknown method", ALLOW)
        try:
            reply = self.ask(question)
        except Exception:
            logger.exception("the question %r could not be answered", question)
            return refusal(500, "error")
        return _unchanged(reply, known) or reply


def listed(pools: Pool | Iterable[Pool]) -> Sequence[Pool]:
    """One pool or several, as a sequence; see `Endpoints`."""
    several: Sequence[Any] = (pools,) if hasattr(pools, "health") else tuple(pools)
    for pool in several:
        if not callable(getattr(pool, "health", None)):
            raise TypeError(f"a pool of everpool is needed, not {type(pool).__name__}")
    if not several:
        raise ValueError("at least one pool is needed")
    return several


def _unchanged(reply: Reply, known: str) -> Reply | None:
    """The answer for one who has it already."""
    etag = dict(reply.headers).get("ETag")
    if etag is None or reply.code != 200:
        return None
    if known.strip() != "*" and etag not in (tag.strip() for tag in known.split(",")):
        return None
    return Reply(304, tuple(pair for pair in reply.headers if pair[0] in _VALIDATORS), b"")


_VALIDATORS = ("Cache-Control", "ETag")
