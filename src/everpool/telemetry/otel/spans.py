"""Spans: each request for a connection, each connect, each retry, each COMMIT looked into.

The span of a request is made in the asker's own context, so it is a child of what he is doing. The
others are made afterwards, from what the pool tells, and begin traces of their own: a connection
is opened for whoever comes first, and not on behalf of one of them.

No message of an error is told: it may name hosts and users.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from time import monotonic, time_ns
from types import TracebackType
from typing import Any, ClassVar

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, Tracer, TracerProvider

from ... import Refused, __version__
from ...events import CommitResolved, Happening, Opened, OpenFailed, Retried, Trouble
from .readings import POOL_NAME, SCHEMA_URL

logger = logging.getLogger("everpool.telemetry")

NUMBER = "everpool.connection.number"
ERROR_TYPE = "error.type"
SQLSTATE = "db.response.status_code"

# psycopg passes on what a server sends in an SQLSTATE's place, and that may be anything.
_FIVE = re.compile(r"[0-9A-Z]{5}").fullmatch

# What a failed connect is told as begins with the SQLSTATE, where there is one. "FATAL" is none.
_SQLSTATE = re.compile(r"(?=[A-Z]*[0-9])([0-9A-Z]{5}): ").match

_TROUBLES = {
    Trouble.GONE: "unreachable",
    Trouble.SILENT: "silent",
    Trouble.CROWDED: "too_many_connections",
    Trouble.REJECTED: "rejected",
}


class Spans:
    """Makes the spans of one pool.

    What goes wrong in a tracer, or in what it calls, is logged and harms no caller.
    """

    KINDS: ClassVar = (Opened, OpenFailed, Retried, CommitResolved)

    def __init__(self, pool_name: str, provider: TracerProvider | None) -> None:
        self.tracer: Tracer = trace.get_tracer("everpool", __version__, provider, SCHEMA_URL)
        self.attributes = {"db.system.name": "postgresql", POOL_NAME: pool_name}
        self._failures = 0

    def around(self) -> _Acquire:
        """For ``pool.trace``: the span of one request."""
        return _Acquire(self)

    def hear(self, happening: Happening) -> None:
        """For ``pool.subscribe``, with `KINDS`: the span of what has happened."""
        _TELL[type(happening)](self, happening)

    def record(
        self,
        name: str,
        kind: SpanKind,
        start: float,
        end: float,
        attributes: dict[str, Any],
        error: str = "",
    ) -> None:
        """Make the span of what began and ended at ``start`` and ``end`` of the pool's clock."""
        offset = time_ns() - int(1e9 * monotonic())
        span = self.tracer.start_span(
            name,
            context=Context(),  # nobody's child
            kind=kind,
            attributes={**self.attributes, **attributes},
            start_time=offset + int(1e9 * start),
        )
        if error:
            fail(span, error)
        span.end(offset + int(1e9 * end))

    def failed(self) -> None:
        """Log the exception that is being handled."""
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th time
            logger.exception("tracing failed, %s times so far", self._failures)


class _Acquire:
    """The span of one request for a connection, as a context."""

    __slots__ = ("_span", "_spans", "_token")

    _token: Any

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._span: Span = INVALID_SPAN
        self._token = None

    def __enter__(self) -> Callable[[int], None]:
        spans = self._spans
        try:
            self._span = spans.tracer.start_span(
                "everpool.acquire", kind=SpanKind.INTERNAL, attributes=spans.attributes
            )
            self._token = context.attach(trace.set_span_in_context(self._span))
        except Exception:
            spans.failed()
        return self._lent

    def _lent(self, number: int) -> None:
        self._span.set_attribute(NUMBER, number)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc is not None:
                fail(self._span, exc.code if isinstance(exc, Refused) else _class_name(exc))
                sqlstate = getattr(exc, "sqlstate", None)
                if sqlstate and _FIVE(sqlstate):
                    self._span.set_attribute(SQLSTATE, sqlstate)
            self._span.end()
        except Exception:
            self._spans.failed()
        finally:
            if self._token is not None:
                context.detach(self._token)


def fail(span: Span, error: str) -> None:
    span.set_attribute(ERROR_TYPE, error)
    span.set_status(StatusCode.ERROR)


def _class_name(exc: BaseException) -> str:
    kind = type(exc)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _opened(spans: Spans, told: Opened) -> None:
    spans.record(
        "everpool.connect", SpanKind.CLIENT, told.at - told.took, told.at, {NUMBER: told.number}
    )


def _open_failed(spans: Spans, told: OpenFailed) -> None:
    attributes: dict[str, Any] = {NUMBER: told.number}
    if found := _SQLSTATE(told.text):
        attributes[SQLSTATE] = found[1]
    spans.record(
        "everpool.connect",
        SpanKind.CLIENT,
        told.at - told.took,
        told.at,
        attributes,
        _TROUBLES[told.trouble],
    )


def _retried(spans: Spans, told: Retried) -> None:
    """From the failure to the next attempt."""
    attributes = {"everpool.retry.attempt": told.attempt, "everpool.retry.reason": told.why}
    spans.record("everpool.retry", SpanKind.INTERNAL, told.at, told.at + told.pause, attributes)


def _commit_resolved(spans: Spans, told: CommitResolved) -> None:
    spans.record(
        "everpool.resolve_commit",
        SpanKind.INTERNAL,
        told.at - told.took,
        told.at,
        {"everpool.commit.outcome": told.outcome},
        "commit_unknown" if told.outcome == "unknown" else "",
    )


_TELL: dict[type[Happening], Callable[[Spans, Any], None]] = {
    Opened: _opened,
    OpenFailed: _open_failed,
    Retried: _retried,
    CommitResolved: _commit_resolved,
}
