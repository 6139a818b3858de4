"""OpenTelemetry: metrics and spans of a pool, by the semantic conventions for databases.

::

    from everpool.telemetry.otel import instrument

    instrument(pool)  # metrics, to the application's global meter provider
    instrument(pool, metrics=False, traces=True)  # spans

Only OpenTelemetry's API is needed; the application brings the SDK, and says where to.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Never, Self
from weakref import ref

try:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f'{error.name} is needed here: pip install "everpool[otel]"', name=error.name
    ) from None

from ... import AsyncConnectionPool, ConnectionPool
from ...events import Subscription
from .instruments import Entry, Instruments, Pool, instruments_of
from .spans import Spans

__all__ = ["Instrumentation", "instrument"]

OPTIONS = ("metrics", "traces", "meter_provider", "tracer_provider")


class Instrumentation:
    """What `instrument` has begun, to be ended by `close`. A context manager."""

    def __init__(self, pool: Pool) -> None:
        self._pool = ref(pool)
        self._instruments: Instruments | None = None
        self._entry: Entry | None = None
        self._spans: Subscription | None = None

    def close(self) -> None:
        """End it. What was measured and has not been recorded yet is recorded first, which may
        take some tens of milliseconds."""
        pool = self._pool()
        if self._spans is not None:
            self._spans.close()
            self._spans = None
            if pool is not None:
                pool.trace(None)
        if self._instruments is not None and self._entry is not None:
            self._instruments.leave(self._entry)
            self._instruments = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def instrument(
    pool: Pool,
    *,
    metrics: bool = True,
    traces: bool = False,
    meter_provider: MeterProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    **unknown: Never,
) -> Instrumentation:
    """Tell OpenTelemetry of a pool, threaded or asynchronous, until it is closed or collected.

    :param metrics: the pool's metrics. Nothing is done for them where connections are lent.
    :param traces: spans for requests, connects, retries and looking into COMMITs. They cost every
        checkout some tens of microseconds, as the SDK's spans do.
    :param meter_provider, tracer_provider: default: the global ones, also if they are set later.
    :raises TypeError: an unknown option, or no pool of everpool's.
    :raises ValueError: the options contradict each other, the pool is instrumented already, or
        another has its name.
    """
    for option in unknown:
        raise TypeError(f"unknown option {option!r}; allowed: {', '.join(OPTIONS)}")
    if not isinstance(pool, ConnectionPool | AsyncConnectionPool):
        raise TypeError(f"{type(pool).__name__} is no pool of everpool's")
    _check(metrics, "metrics", "meter_provider", meter_provider)
    _check(traces, "traces", "tracer_provider", tracer_provider)
    if not metrics and not traces:
        raise ValueError("nothing to do with both metrics=False and traces=False")
    done = Instrumentation(pool)
    if traces:
        spans = Spans(pool.name, tracer_provider)
        pool.trace(spans.around)
        done._spans = pool.subscribe(spans.hear, *Spans.KINDS)
    if metrics:
        try:
            instruments = instruments_of(meter_provider)
            done._entry = instruments.enter(pool)
            done._instruments = instruments
        except BaseException:
            done.close()
            raise
    return done


def _check(wanted: bool, option: str, provider_option: str, provider: Any) -> None:
    if provider is not None and not wanted:
        raise ValueError(f"{provider_option} is given, but {option}=False")
