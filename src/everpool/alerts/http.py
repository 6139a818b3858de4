"""Posting JSON to a URL that is a secret.

Whoever knows a webhook's URL can write to it, so a URL is shown as scheme and host only, and no
error of urllib's is passed on: some quote the URL.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from base64 import b64encode
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..http import Deadline, shown

# A receiver that has not answered by then is as good as dead, and the next try comes anyway.
TIMEOUT = 10.0


class SinkError(Exception):
    """A notice could not be delivered. The text holds no part of a URL but scheme and host."""

    __module__ = "everpool.alerts"


class Target:
    """Where to post.

    :raises ValueError: the URL or a header is wrong; the text says what is, and quotes neither.
    """

    def __init__(self, owner: str, url: str, headers: Mapping[str, str]) -> None:
        parts = check_url(owner, url)
        self.shown = shown(parts)
        self._headers = {"Content-Type": "application/json", "User-Agent": "everpool"}
        self._headers.update(_check_headers(owner, headers))
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        self._url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def post(self, body: Any) -> None:
        """Post the body as JSON. Nothing of the answer is read but its status.

        :raises SinkError: there was no answer, or not one of success.
        """
        data = json.dumps(body).encode()
        request = Request(self._url, data, self._headers, method="POST")
        with Deadline(TIMEOUT) as deadline:
            try:
                opener = build_opener(_NoRedirects, *deadline.handlers)
                opener.open(request, timeout=TIMEOUT).close()
            except HTTPError as ex:
                ex.close()
                moved = ", a redirect, which is not followed" if 300 <= ex.code < 400 else ""
                raise SinkError(f"{self.shown} answered {ex.code}{moved}") from None
            except (OSError, HTTPException, ValueError) as ex:
                reason = _reason(TimeoutError() if deadline.passed else ex)
                raise SinkError(f"{self.shown}: {reason}") from None
        if deadline.passed:  # half a head looks like a short one
            raise SinkError(f"{self.shown}: {_reason(TimeoutError())}")


class _NoRedirects(HTTPRedirectHandler):
    """urllib would turn a POST into a GET, lose the body, and take the answer for success."""

    def redirect_request(
        self,
        req: Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> None:
        return None


def _reason(ex: BaseException) -> str:
    """What went wrong, in words of ours."""
    if isinstance(ex, URLError) and isinstance(ex.reason, BaseException):
        ex = ex.reason
    if isinstance(ex, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    if isinstance(ex, socket.gaierror):
        return "the host's name cannot be resolved"
    if isinstance(ex, ssl.SSLCertVerificationError):
        return f"its certificate is refused ({ex.verify_message})"
    if isinstance(ex, ssl.SSLError):
        return "TLS failed"
    if isinstance(ex, OSError) and ex.strerror:
        return ex.strerror.lower()
    return f"no proper answer ({type(ex).__name__})"


_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%\w+)?").fullmatch
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*").fullmatch


def check_url(owner: str, url: str) -> SplitResult:
    """Split a URL for HTTP.

    :param owner: the name of the sink, for the error's text.
    :raises ValueError: it is wrong; the text says what is, and never quotes more than the scheme.
    """
    wrong = _what_is_wrong(owner, url)
    if wrong:
        raise ValueError(f"{owner}: {wrong}")
    return urlsplit(url)


def _what_is_wrong(owner: str, url: str) -> str:
    if not isinstance(url, str):
        raise TypeError(f"{owner}: the URL must be a text, not {type(url).__name__}")
    if not url:
        return "the URL is empty"
    if any(char.isspace() or not char.isprintable() for char in url):
        return "the URL contains spaces or control characters"
    if not url.isascii():
        return "the URL contains characters outside ASCII: percent-encode them"
    scheme, found, _ = url.partition("://")
    if not found or not scheme:
        return "the URL has no scheme: it must begin with https:// or http://"
    if scheme.lower() not in ("http", "https"):
        shown = f" {scheme}://" if _SCHEME(scheme) else ""
        return f"the URL's scheme{shown} is not supported: it must be https:// or http://"
    if "#" in url:
        return "the URL contains a #: write it as %23"
    return _what_is_wrong_with_host(url)


def _what_is_wrong_with_host(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # its text quotes the host
        return "the URL's host is not well formed"
    try:
        port = parts.port
    except ValueError:  # so does this one
        port = 0
    if port == 0:
        return "the URL's port is not a number from 1 to 65535 (in a password, write / as %2F)"
    if not parts.hostname:
        return "the URL has no host"
    if not _HOST(parts.hostname):
        return "the URL's host contains characters that no host name has"
    return ""


_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_VALUE = re.compile(r"[\t\x20-\x7e]*").fullmatch


def _check_headers(owner: str, headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _HEADER(name):
            raise ValueError(f"{owner}: a header's name contains what no header's name may")
        if not _VALUE(value):
            raise ValueError(f"{owner}: the header {name} must be one line of plain ASCII text")
    return dict(headers)
