"""etcd: a key under a lease, through the JSON gateway of etcd 3.4 and newer."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from math import ceil
from ssl import SSLContext
from typing import Any

from .http import Away, Lost, Site, check_ttl, clean, fits_header, limit_of, refusal
from .instance import Instance, Report

# What etcd grants is never less than one and a half of its election timeout: two seconds by
# default.
_LEAST_TTL = 2.0

# gRPC's codes, as the gateway passes them on.
_NOT_FOUND = 5
_UNAUTHENTICATED = 16


class Etcd:
    """An etcd cluster.

    An instance is the key ``<prefix>/<name>/<id>``. Its value is JSON: ``address``, ``port``,
    ``status`` (``"pass"``, ``"warn"`` or ``"fail"``) and ``since`` (when the status became so).

    :param urls: the address of a member, or of several: ``http://`` or ``https://``, host, port.
        If one does not answer, the next is asked.
    :param prefix: what the keys begin with.
    :param ttl: seconds without renewal after which etcd deletes the key; at least 2.
    :param user, password: if etcd asks for them. Never shown.
    :param tls: for members with certificates of a private authority, or that ask for one.
    :raises ValueError: a URL or a number is wrong.
    """

    def __init__(
        self,
        urls: str | Sequence[str] = "http://127.0.0.1:2379",
        *,
        prefix: str = "/services",
        ttl: float = 15.0,
        user: str = "",
        password: str = "",
        tls: SSLContext | None = None,
    ) -> None:
        urls = [urls] if isinstance(urls, str) else list(urls)
        if not urls:
            raise ValueError("etcd needs at least one URL")
        self._sites = [Site(url, "etcd", tls) for url in urls]
        self._prefix = prefix.rstrip("/")
        self.ttl = check_ttl(ttl, _LEAST_TTL)
        if bool(user) != bool(password):
            raise ValueError("etcd needs user and password, or neither")
        self._login = {"name": user, "password": password} if user else None

    def __repr__(self) -> str:
        return f"Etcd({self.shown!r})"

    @property
    def shown(self) -> str:
        """Scheme and host of the first member."""
        return self._sites[0].shown

    def entry(self, instance: Instance) -> _Entry:
        """A place for one instance. Asks nobody yet."""
        client = _Client(self._sites, self._login, limit_of(self.ttl))
        return _Entry(client, self._prefix, ceil(self.ttl), instance)


class _Entry:
    def __init__(self, client: _Client, prefix: str, ttl: int, instance: Instance) -> None:
        self._ask = client.ask
        self._key = _base64(f"{prefix}/{instance.name}/{instance.id}".encode())
        self._ttl = ttl
        self._instance = instance
        self._lease = ""
        self._value = b""  # what the key holds, as far as we know

    def register(self, report: Report) -> None:
        # A lease that was granted in vain ends by itself.
        self._lease = _text(self._ask("/v3/lease/grant", {"TTL": self._ttl}), "ID")
        self._put(report)

    def report(self, report: Report) -> None:
        if self._value != self._told(report):
            self._put(report)  # first what others wait for
        elif not self._is_there():
            raise Lost("the key is gone")
        result = self._ask("/v3/lease/keepalive", {"ID": self._lease}).get("result")
        # Of a lease that it does not know etcd says nothing, instead of the time to live.
        if not isinstance(result, dict) or str(result.get("TTL") or "0") == "0":
            raise Lost("the lease is gone")

    def withdraw(self) -> None:
        # With its lease the key goes, if it is still ours: another process may have taken the
        # place of this one, and its key is under its own lease.
        if self._lease:
            try:
                self._ask("/v3/lease/revoke", {"ID": self._lease})
            except Lost:
                pass

    def _put(self, report: Report) -> None:
        value = self._told(report)
        self._value = b""
        self._ask("/v3/kv/put", {"key": self._key, "value": _base64(value), "lease": self._lease})
        self._value = value

    def _is_there(self) -> bool:
        answer = self._ask("/v3/kv/range", {"key": self._key, "count_only": True})
        return str(answer.get("count") or "0") != "0"

    def _told(self, report: Report) -> bytes:
        value = {
            "address": self._instance.address,
            "port": self._instance.port,
            "status": report.status.value,
            "since": report.since_text,
        }
        return json.dumps(value).encode()


class _Client:
    """Asks one member after the other, logged in if need be."""

    def __init__(self, sites: list[Site], login: dict[str, str] | None, limit: float) -> None:
        self._sites = sites
        self._login = login
        self._limit = limit
        self._token = ""

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer of the first member that gives one.

        :raises Lost: what was asked for is not there.
        :raises Away: nobody answers, or the answer is no.
        """
        if self._login and not self._token:
            self._log_in(self._login)
        status, answer = self._ask_any(path, body)
        if self._login and _wants_login(answer):
            self._log_in(self._login)
            status, answer = self._ask_any(path, body)
        if status == 200:
            return answer
        if answer.get("code") == _NOT_FOUND:
            raise Lost(clean(str(answer.get("error"))))
        raise self._refusal(status, answer)

    def _log_in(self, login: dict[str, str]) -> None:
        self._token = ""
        status, answer = self._ask_any("/v3/auth/authenticate", login)
        if status != 200:
            raise self._refusal(status, answer)
        token = _text(answer, "token")
        if not fits_header(token):
            raise Away("the token that etcd gave is none")
        self._token = token

    def _ask_any(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": self._token} if self._token else {}
        failure = Away("not asked")
        for _ in self._sites:
            try:
                status, raw = self._sites[0].ask("POST", path, body, headers, self._limit)
                answer = _decode(raw)
                if status < 500:
                    return status, answer
                failure = self._refusal(status, answer)
            except Away as error:
                failure = error
            # From now on the next is asked first.
            self._sites = [*self._sites[1:], self._sites[0]]
        raise failure

    def _refusal(self, status: int, answer: dict[str, Any]) -> Away:
        said = str(answer.get("error") or "").encode()
        password = self._login["password"] if self._login else ""
        return refusal(status, said, password, self._token)


def _wants_login(answer: dict[str, Any]) -> bool:
    """Tokens end after minutes of disuse, and with every change of etcd's users."""
    if answer.get("code") == _UNAUTHENTICATED:
        return True
    return "revision of auth store is old" in str(answer.get("error"))


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Away("the answer is not etcd's: is this the right port?")
    return answer


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise Away(f"the answer of etcd has no {name}")
    return value


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
