"""A stand-in for a Consul agent: what its HTTP API documents of services with TTL checks.

Written after the API's documentation and the agent's source of versions 1.x: methods, paths, types, status codes and
words of the answers, checks that turn critical when nobody reports, services that go when they have been critical for
too long, an old status that survives a new definition. Stricter in one thing: fields that it does not know are errors.
"""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_STATES = ("passing", "warning", "critical")
_SERVICE = {"ID": str, "Name": str, "Address": str, "Port": int, "Check": dict}
_CHECK = {
    "CheckID": str,
    "Name": str,
    "TTL": str,
    "DeregisterCriticalServiceAfter": str,
    "Status": str,
}
# The agent's own minimum, whatever a definition says.
_LEAST_DEREGISTER = 60.0


class _Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text


@dataclass
class Check:
    ttl: float
    deregister_after: float
    status: str
    output: str
    reported_at: float
    critical_since: float | None = None
    history: list[str] = field(default_factory=list)


@dataclass
class Request:
    """What came in, for tests that look at it."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: str


class ConsulAgent:
    """Serves on a port of the loopback while it is `up`. What it knows survives `down`, unless `wipe`d."""

    def __init__(self, port: int = 0, token: str = "", old: bool = False) -> None:
        self.token = token
        self.old = old  # 500 instead of 404 for what it does not know
        self.port = port
        self.requests: list[Request] = []
        self.services: dict[str, dict[str, Any]] = {}
        self.redirect_to = ""
        self.echo = False  # answer everything with 500 and what came
        self._checks: dict[str, Check] = {}
        self._skipped = 0.0
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        self._go_on.set()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        agent = self

        class Handler(_Handler):
            pass

        Handler.agent = agent
        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        self._thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self._server = server

    def down(self) -> None:
        server, self._server = self._server, None
        self._go_on.set()
        if server is not None:
            server.shutdown()
            self._thread.join()
            server.server_close()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *exc: object) -> None:
        self.down()

    def hang(self) -> None:
        """Take requests and do not answer, until `go_on`."""
        self._go_on.clear()

    def go_on(self) -> None:
        self._go_on.set()

    def wipe(self) -> None:
        """Forget everything, as an agent without its data directory."""
        with self._lock:
            self.services.clear()
            self._checks.clear()

    def pass_time(self, seconds: float) -> None:
        self._skipped += seconds

    def status(self, service: str) -> str | None:
        """The status of the service's check; None if there is no such service."""
        check = self.check(service)
        return check.status if check else None

    def check(self, service: str) -> Check | None:
        with self._lock:
            self._age()
            return self._checks.get(f"service:{service}") if service in self.services else None

    # -- what the agent does ------------------------------------------------------------------

    def _now(self) -> float:
        return monotonic() + self._skipped

    def _age(self) -> None:
        now = self._now()
        for check_id, check in list(self._checks.items()):
            if now > check.reported_at + check.ttl and check.status != "critical":
                self._set(check, "critical", "TTL expired", check.reported_at + check.ttl)
            after = max(check.deregister_after, _LEAST_DEREGISTER)
            if check.critical_since is not None and now > check.critical_since + after:
                del self._checks[check_id]
                self.services.pop(check_id.removeprefix("service:"), None)

    def _set(self, check: Check, status: str, output: str, at: float) -> None:
        if status != "critical":
            check.critical_since = None
        elif check.critical_since is None:
            check.critical_since = at
        if not check.history or check.history[-1] != status:
            check.history.append(status)
        check.status, check.output = status, output

    def answer(self, method: str, path: str, headers: dict[str, str], body: str) -> None:
        self._go_on.wait()
        routes = {
            "/v1/agent/service/register": self._register,
            "/v1/agent/check/update/": self._update,
            "/v1/agent/service/deregister/": self._deregister,
        }
        for prefix, act in routes.items():
            if path == prefix or (prefix.endswith("/") and path.startswith(prefix)):
                if method != "PUT":
                    raise _Refused(405, f"method {method} not allowed")
                if self.token and headers.get("x-consul-token") != self.token:
                    raise _Refused(403, "Permission denied")
                with self._lock:
                    self._age()
                    return act(path.removeprefix(prefix), body)
        raise _Refused(404, "Invalid URL path: not a recognized HTTP API endpoint")

    def _register(self, _: str, body: str) -> None:
        service = _decode(body, _SERVICE)
        if not service.get("Name"):
            raise _Refused(400, "Missing service name")
        if service.get("Address") in ("0.0.0.0", "::"):
            raise _Refused(400, "Invalid service address")
        definition = service.get("Check", {})
        _typed(definition, _CHECK)
        if "TTL" not in definition:
            raise _Refused(400, "Invalid check: Interval or TTL must be > 0")
        if definition.get("Status", "critical") not in _STATES:
            raise _Refused(400, "Status for checks must 'passing', 'warning', 'critical'")
        service_id = service.get("ID") or service["Name"]
        check_id = definition.get("CheckID") or f"service:{service_id}"
        now = self._now()
        check = Check(
            ttl=_duration(definition["TTL"]),
            deregister_after=_duration(definition.get("DeregisterCriticalServiceAfter", "0s")),
            status="",
            output="",
            reported_at=now,
        )
        known = self._checks.get(check_id)
        if known:
            check.history = known.history
            self._set(check, known.status, known.output, now)
        else:
            self._set(check, definition.get("Status", "critical"), "", now)
        self.services[service_id] = service
        self._checks[check_id] = check

    def _update(self, check_id: str, body: str) -> None:
        update = _decode(body, {"Status": str, "Output": str})
        if update.get("Status") not in _STATES:
            raise _Refused(400, f"Invalid check status: '{update.get('Status')}'")
        check = self._checks.get(check_id)
        if check is None:
            if self.old:
                raise _Refused(500, f'CheckID "{check_id}" does not have associated TTL')
            text = "Ensure that the check ID is passed, not the check name."
            raise _Refused(404, f'Unknown check ID "{check_id}". {text}')
        check.reported_at = self._now()
        self._set(check, update["Status"], update.get("Output", ""), check.reported_at)

    def _deregister(self, service_id: str, body: str) -> None:
        if service_id not in self.services:
            if self.old:
                raise _Refused(500, f'Unknown service "{service_id}"')
            text = "Ensure that the service ID is passed, not the service name."
            raise _Refused(404, f'Unknown service ID "{service_id}". {text}')
        del self.services[service_id]
        self._checks.pop(f"service:{service_id}", None)


def _decode(body: str, types: dict[str, type]) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise _Refused(400, f"Request decode failed: {error}") from None
    _typed(value, types)
    return value


def _typed(value: Any, types: dict[str, type]) -> None:
    if not isinstance(value, dict):
        raise _Refused(400, "Request decode failed: not an object")
    for name, item in value.items():
        if name not in types:
            raise _Refused(400, f"Request decode failed: unknown field {name!r}")
        if type(item) is not types[name]:
            raise _Refused(400, f"Request decode failed: cannot unmarshal {item!r} into {name}")


def _duration(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not found:
        raise _Refused(400, f"Request decode failed: time: invalid duration {text!r}")
    return float(found[1]) * _UNITS[found[2]]


class _Handler(BaseHTTPRequestHandler):
    agent: ConsulAgent

    def _serve(self) -> None:
        agent = self.agent
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(urlsplit(self.path).path)
        agent.requests.append(Request(monotonic(), self.command, path, headers, body))
        status, text = 200, ""
        if agent.redirect_to:
            status = 307
        elif agent.echo:
            status, text = 500, f"{headers} {body}"
        else:
            try:
                agent.answer(self.command, path, headers, body)
            except _Refused as refused:
                status, text = refused.status, refused.text
        try:
            self.send_response(status)
            if agent.redirect_to:
                self.send_header("Location", agent.redirect_to + self.path)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass  # who asked has gone

    do_GET = do_PUT = do_POST = do_DELETE = _serve

    def log_message(self, *args: object) -> None:
        pass
