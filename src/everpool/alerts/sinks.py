"""Where notices go. Each sink delivers one notice, or raises; retrying is the sender's part."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from .http import Target, check_url
from .notice import Alert, Notice

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Sink(Protocol):
    """What `Alerts` can send to. `str()` of it goes into logs: it must not tell secrets.

    :ivar refresh: send what fires again after so many seconds, changed or not; None: only
        when there is a notice for people.
    """

    refresh: float | None

    def send(self, notice: Notice) -> None:
        """Deliver, and block for as long as that takes; called in a thread of the sink's own.

        :raises SinkError: it was not delivered. Of any other error only the class is logged.
        """


class _HTTP:
    refresh: float | None = None

    def __init__(self, url: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        self._target = Target(type(self).__name__, url, headers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._target.shown})"


class Webhook(_HTTP):
    """Posts each notice as JSON (see docs/alerts.md) to a URL. Any 2xx is success.

    A user and password in the URL are sent as basic authentication.

    :param headers: sent along, such as ``{"Authorization": "Bearer …"}``.
    :raises ValueError: the URL or a header is wrong.
    """

    def send(self, notice: Notice) -> None:
        self._target.post(notice.json())


class Alertmanager(_HTTP):
    """Tells a Prometheus Alertmanager (API v2) what fires, and what no longer does.

    :param url: where it is, such as ``http://alertmanager:9093``, with a path if it has one.
    :param headers: as for `Webhook`.
    :raises ValueError: the URL or a header is wrong.
    """

    # An alert that is not repeated is resolved by the Alertmanager. Prometheus itself repeats
    # each minute, and lets an alert end after four times that.
    refresh: float | None = 60.0
    lasts = 240.0

    def __init__(self, url: str, headers: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(_alerts_url(url), headers)

    def send(self, notice: Notice) -> None:
        firing = {alert.key for alert in notice.firing}
        gone = [alert for alert in notice.resolved if alert.key not in firing]
        alerts = [_entry(notice, alert, self.lasts) for alert in (*notice.firing, *gone)]
        if alerts:
            self._target.post(alerts)


_PATH = "/api/v2/alerts"


def _alerts_url(url: str) -> str:
    check_url(Alertmanager.__name__, url)
    if "?" in url:
        raise ValueError("Alertmanager: the URL must not contain a query (?)")
    return url.rstrip("/").removesuffix(_PATH) + _PATH


def _entry(notice: Notice, alert: Alert, lasts: float) -> dict[str, Any]:
    # Labels are an alert's identity: they must not change while it lasts, and take few values.
    name = "".join(word.capitalize() for word in alert.condition.split("_"))
    ended = notice.at + lasts if alert.ended is None else alert.ended
    return {
        "labels": {
            "alertname": f"Everpool{name}",
            "severity": alert.severity,
            "pool": alert.pool[:200],
            "instance": notice.source[:200],
        },
        "annotations": {
            "summary": f"{alert.title}, pool {alert.pool}",
            "description": " ".join(filter(None, (alert.summary, alert.advice, alert.detail))),
        },
        "startsAt": notice.time(alert.started),
        "endsAt": notice.time(ended),
    }
