"""What an application brings: OpenTelemetry's SDK, with everything kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"

Key = tuple[str, frozenset[tuple[str, Any]]]


class Meters:
    """A meter provider, and what it would send."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def metrics(self) -> dict[str, Any]:
        """Each metric by its name, as it is now."""
        data = self._reader.get_metrics_data()
        found: dict[str, Any] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == "everpool"
                for metric in scope.metrics:
                    assert metric.name not in found, "the same instrument twice"
                    found[metric.name] = metric
        return found

    def points(self) -> dict[Key, Any]:
        """Each point by its metric's name and its attributes."""
        return {
            (name, frozenset(point.attributes.items())): point
            for name, metric in self.metrics().items()
            for point in metric.data.data_points
        }

    def value(self, name: str, pool: str = "orders", /, **attributes: str) -> float | None:
        """One value, with its other attributes by the last words of their names."""
        for (metric, found), point in self.points().items():
            rest = {key.rpartition(".")[2]: value for key, value in found if key != POOL}
            if metric == name and (POOL, pool) in found and rest == attributes:
                return float(point.value)
        return None

    def histogram(self, name: str, pool: str = "orders") -> Any:
        return self.points().get((name, frozenset({(POOL, pool)})))


class Tracing:
    """A tracer provider, and the spans that have ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    assert span.attributes is not None
    return span.attributes
