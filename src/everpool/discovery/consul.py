"""Consul: a service with a TTL check, through the HTTP API of the agent on this machine."""

from __future__ import annotations

from ssl import SSLContext
from typing import Any, Literal
from urllib.parse import quote

from ..core.health import Status
from .http import Lost, Site, check_ttl, clean, fits_header, limit_of, refusal
from .instance import Instance, Report

# A crashed process is critical after the TTL, which is what takes traffic from it. Its entry may
# stay longer: a *living* instance that is critical for so long is removed too, and comes back
# with its next report, so this had better be longer than most outages. Consul's minimum is 60.
DEREGISTER_AFTER = 600.0
_LEAST_DEREGISTER_AFTER = 60.0


class Consul:
    """A Consul agent.

    :param url: the agent's address: ``http://`` or ``https://``, host, port.
    :param token: an ACL token that may write the service. Never shown.
    :param ttl: seconds without a report after which Consul holds the instance critical.
    :param deregister_after: seconds of being critical after which Consul forgets it; at least
        60, and Consul looks every 30.
    :param warn: what an instance is called whose pools have warnings. Consul's DNS and its
        mesh send traffic to ``"warning"``; whoever asks the HTTP API for ``?passing`` does
        not, and needs ``"passing"`` here so that a warning costs no traffic.
    :param tls: for agents with certificates of a private authority, or that ask for one.
    :raises ValueError: the URL or a number is wrong.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8500",
        *,
        token: str = "",
        ttl: float = 15.0,
        deregister_after: float = DEREGISTER_AFTER,
        warn: Literal["warning", "passing"] = "warning",
        tls: SSLContext | None = None,
    ) -> None:
        self._site = Site(url, "Consul", tls)
        if not fits_header(token):
            raise ValueError("the token of Consul has a character that no token has")
        self._token = token
        self.ttl = check_ttl(ttl, 1.0)
        if not _LEAST_DEREGISTER_AFTER <= deregister_after < float("inf"):
            raise ValueError(
                f"deregister_after must be at least {_LEAST_DEREGISTER_AFTER:g} seconds,"
                f" not {deregister_after}"
            )
        self._deregister_after = deregister_after
        if warn not in ("warning", "passing"):
            raise ValueError(f"warn must be 'warning' or 'passing', not {warn!r}")
        self._words = {Status.PASS: "passing", Status.WARN: warn, Status.FAIL: "critical"}

    def __repr__(self) -> str:
        return f"Consul({self.shown!r})"

    @property
    def shown(self) -> str:
        """Scheme and host of the agent."""
        return self._site.shown

    def entry(self, instance: Instance) -> _Entry:
        """A place for one instance. Asks nobody yet."""
        check = {
            "CheckID": f"service:{instance.id}",  # what Consul itself would call it
            "Name": "everpool",
            "TTL": _go(self.ttl),
            "DeregisterCriticalServiceAfter": _go(self._deregister_after),
        }
        return _Entry(self._site, self._token, limit_of(self.ttl), self._words, instance, check)


class _Entry:
    def __init__(
        self,
        site: Site,
        token: str,
        limit: float,
        words: dict[Status, str],
        instance: Instance,
        check: dict[str, Any],
    ) -> None:
        self._site = site
        self._token = token
        self._limit = limit
        self._words = words
        self._instance = instance
        self._check = check

    def register(self, report: Report) -> None:
        instance = self._instance
        definition = {
            "ID": instance.id,
            "Name": instance.name,
            "Address": instance.address,
            "Port": instance.port,
            # Without a status it would be critical until the first report.
            "Check": {**self._check, "Status": self._words[report.status]},
        }
        status, body = self._put("service/register", definition)
        if status != 200:
            raise refusal(status, body, self._token)
        # An agent that knew the check keeps its old status, whatever the definition says.
        self.report(report)

    def report(self, report: Report) -> None:
        # The output is for people who look at the check. Consul hands a new one to its servers
        # at leisure; only a new status goes there at once.
        update = {"Status": self._words[report.status], "Output": clean(report.why)}
        status, body = self._put(f"check/update/{_quoted(self._check['CheckID'])}", update)
        if _is_unknown(status, body):
            raise Lost("the agent does not know the check")
        if status != 200:
            raise refusal(status, body, self._token)

    def withdraw(self) -> None:
        status, body = self._put(f"service/deregister/{_quoted(self._instance.id)}", None)
        if status != 200 and not _is_unknown(status, body):
            raise refusal(status, body, self._token)

    def _put(self, path: str, body: dict[str, Any] | None) -> tuple[int, bytes]:
        headers = {"X-Consul-Token": self._token} if self._token else {}
        return self._site.ask("PUT", f"/v1/agent/{path}", body, headers, self._limit)


def _is_unknown(status: int, body: bytes) -> bool:
    """Whether the agent says that it does not know what was asked for.

    Newer ones say so with 404, older ones with 500 and one of these phrases.
    """
    phrases = (b"unknown check", b"unknown service", b"does not have associated ttl")
    text = body.lower()
    return status in (404, 500) and any(phrase in text for phrase in phrases)


def _quoted(part: str) -> str:
    return quote(part, safe=":")


def _go(seconds: float) -> str:
    """A duration as Go writes it."""
    return f"{round(1000 * seconds)}ms"
