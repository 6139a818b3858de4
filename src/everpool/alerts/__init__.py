"""Alerts from inside the process, for those without Prometheus.

::

    from everpool.alerts import Alerts, Webhook

    with Alerts(pool, sinks=[Webhook("https://example.com/hook")]):
        ...

Listens to what happens to pools, decides what needs a person, and tells them once: see
`conditions` for what, `engine` for when, `sinks` for where.
"""

from .apprise import Apprise
from .conditions import (
    CommitUnknown,
    Condition,
    ConfigurationRefused,
    ConnectionsCut,
    Contradiction,
    CredentialsRefused,
    Finding,
    Leak,
    OlderHistory,
    Saturated,
    SlowWaits,
    Unreachable,
    defaults,
)
from .http import SinkError
from .notice import Alert, Notice
from .sender import SinkState
from .service import Alerts
from .sinks import Alertmanager, Sink, Webhook

__all__ = [
    "Alert",
    "Alertmanager",
    "Alerts",
    "Apprise",
    "CommitUnknown",
    "Condition",
    "ConfigurationRefused",
    "ConnectionsCut",
    "Contradiction",
    "CredentialsRefused",
    "Finding",
    "Leak",
    "Notice",
    "OlderHistory",
    "Saturated",
    "Sink",
    "SinkError",
    "SinkState",
    "SlowWaits",
    "Unreachable",
    "Webhook",
    "defaults",
]
