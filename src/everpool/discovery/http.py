"""JSON over HTTP, for registries: bounded, without proxies or redirects, errors without secrets."""

from __future__ import annotations

import json
from http.client import HTTPException
from ssl import SSLContext
from typing import Any
from urllib.error import URLError
from urllib.parse import SplitResult, urlsplit
from urllib.request import OpenerDirector, Request

from ..http import Deadline, shown
from ..text import printable

# The largest answer that is read. Real ones have some hundred bytes.
MOST_BYTES = 64 * 1024

# A day: longer, and a registration says nothing about the living.
LONGEST_TTL = 86400.0


class RegistryError(Exception):
    """A registry did not do what was asked. The text names no secrets."""


class Away(RegistryError):
    """It could not be asked, or refused."""


class Lost(RegistryError):
    """It answered that it does not know the registration."""


class Site:
    """The address of a registry.

    :param what: how messages call it.
    :raises ValueError: the URL is wrong; the message shows scheme and host at most.
    """

    def __init__(self, url: str, what: str, tls: SSLContext | None) -> None:
        parts = _parse(url, what)
        self.shown = shown(parts)
        self._base = f"{parts.scheme}://{parts.netloc}"
        self._tls = tls

    def ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str],
        limit: float,
    ) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the answer.

        :param limit: seconds for all of it.
        :raises Away: there was no complete answer.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        request = Request(self._base + path, data, headers, method=method)
        with Deadline(limit, self._tls) as deadline:
            # Neither proxies out of the environment, which are for the world outside, nor
            # redirects: both would hand tokens to somebody else.
            opener = OpenerDirector()
            for handler in deadline.handlers:
                opener.add_handler(handler)
            try:
                with opener.open(request, timeout=limit) as response:
                    answer = response.status, _read(response)
            except Away:
                if not deadline.passed:
                    raise
            except (OSError, HTTPException, ValueError) as error:  # a ValueError: no host name
                if not deadline.passed:
                    reason = error.reason if isinstance(error, URLError) else error
                    raise Away(_reason(reason)) from None
            else:
                if not deadline.passed:
                    return answer
        raise Away(_LATE)


_LATE = "no answer in time"


def _read(response: Any) -> bytes:
    """A body that is not endless."""
    found = bytearray()
    while chunk := response.read1(MOST_BYTES):
        found += chunk
        if len(found) > MOST_BYTES:
            raise Away("the answer is too long")
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit() and len(found) < int(length):
        raise Away("the answer was cut short")
    return bytes(found)


def _reason(error: Any) -> str:
    if isinstance(error, TimeoutError):
        return _LATE
    if isinstance(error, OSError) and error.strerror:
        return clean(error.strerror)
    return clean(f"{type(error).__name__}: {error}")


def clean(text: str) -> str:
    """A foreign text as one harmless line."""
    return printable(" ".join(text.split()))


def refusal(status: int, body: bytes, *secrets: str) -> Away:
    """The error for an answer that is no success."""
    text = body.decode(errors="replace")
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    said = clean(text)
    return Away(f"HTTP {status}: {said}" if said else f"HTTP {status}")


def check_ttl(ttl: float, least: float) -> float:
    """:raises ValueError: it is out of range."""
    if not least <= ttl <= LONGEST_TTL:
        raise ValueError(f"ttl must be from {least:g} to {LONGEST_TTL:g} seconds, not {ttl}")
    return float(ttl)


def fits_header(token: str) -> bool:
    """Whether a token can stand in a header. ``http.client`` would show it when it cannot."""
    return all("!" <= sign <= "~" for sign in token)


def limit_of(ttl: float) -> float:
    """Seconds for one request: two that hang leave time for a third within a TTL."""
    return min(5.0, max(0.5, ttl / 6))


def _parse(url: str, what: str) -> SplitResult:
    wrong = f"the URL of {what}"
    if not isinstance(url, str):
        raise TypeError(f"{wrong} must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{wrong} has no valid host and port") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{wrong} must begin with http:// or https://")
    host = parts.hostname or ""
    if not host or not fits_header(url):
        raise ValueError(f"{wrong} has no valid host")
    wrong = f"{wrong} ({shown(parts)})"
    if port == 0:
        raise ValueError(f"{wrong} has no valid port")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{wrong} must not hold credentials: there are parameters for them")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{wrong} must end after host and port")
    return parts
