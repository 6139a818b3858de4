"""What everpool adds to each connect, what it reads from a conninfo, and what it hides of one."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .core.policy import Policy
from .text import printable


def prepare(
    conninfo: str, kwargs: Mapping[str, Any], policy: Policy, *, primary: bool = False
) -> str:
    """Add timeouts and TCP settings to a conninfo, except those the user has set.

    "Set" means: in the conninfo, the keyword arguments, the environment or a service file.
    Neither argument is changed. A conninfo that cannot be parsed is returned as it is: the
    connect will say what is wrong with it.

    :param primary: of several hosts, pass over standbys. Otherwise libpq takes the first that
        answers, for ever.
    """
    known = _known(conninfo, kwargs)
    if known is None:
        return conninfo
    extra: dict[str, Any] = {}
    if known.get("connect_timeout") is None:
        extra["connect_timeout"] = max(2, ceil(min(policy.connect_timeout, 1e6)))
    if policy.tcp_settings and not _only_unix(known) and str(known.get("keepalives", "1")) != "0":
        extra.update({k: v for k, v in tcp_settings(policy).items() if known.get(k) is None})
    if primary and known.get("target_session_attrs") is None and _several_hosts(known):
        # Not "read-write" where it can be helped: a primary whose disk is full is set to read-only
        # by providers, and with no host to be had nobody could even read.
        extra["target_session_attrs"] = "primary" if pq.version() >= 140000 else "read-write"
    return make_conninfo(conninfo, **extra) if extra else conninfo


def tcp_settings(policy: Policy) -> dict[str, int]:
    """The TCP settings of a policy under libpq's names: whole seconds, at least one, and
    milliseconds for ``tcp_user_timeout``."""
    found = {
        "keepalives_idle": policy.keepalives_idle,
        "keepalives_interval": policy.keepalives_interval,
        "keepalives_count": policy.keepalives_count,
        "tcp_user_timeout": 1000 * policy.tcp_user_timeout,
    }
    return {name: max(1, round(min(value, 1e6))) for name, value in found.items()}


def session_attributes(conninfo: str, kwargs: Mapping[str, Any]) -> str:
    """The ``target_session_attrs`` that the user has set; empty if none."""
    return str((_known(conninfo, kwargs) or {}).get("target_session_attrs") or "")


def way(conninfo: str, kwargs: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """To which hosts a conninfo leads, as they are written, and all that it is made with; both to
    be compared, not shown: there is a password among the second."""
    known = {name: str(value) for name, value in (_known(conninfo, kwargs) or {}).items()}
    host, hostaddr, port = (known.get(name, "") for name in ("host", "hostaddr", "port"))
    return (host, hostaddr, port or "5432"), tuple(sorted(known.items()))


def hosts(conninfo: str, kwargs: Mapping[str, Any]) -> list[str]:
    """The full names of the hosts to connect to, as far as they are known before connecting."""
    found = str((_known(conninfo, kwargs) or {}).get("host") or "")
    return [host for host in found.split(",") if re.fullmatch(r"[\w.-]+\.[a-zA-Z]+\.?", host)]


def redact(text: str, conninfo: Any, kwargs: Any) -> str:
    """An error's text without passwords, printable, on one line.

    What libpq says of a conninfo that it cannot parse quotes pieces of it, any of which may be
    the password: then only the fact is told.
    """
    if not isinstance(conninfo, str) or not isinstance(kwargs, Mapping):
        return "conninfo must be a string and kwargs a mapping (their values are withheld)"
    try:
        given = conninfo_to_dict(conninfo)
    except psycopg.Error:
        return (
            "the conninfo cannot be parsed (libpq's message is withheld: it may quote a password)"
        )
    for key in ("password", "sslpassword", "passfile"):
        for secret in (given.get(key), kwargs.get(key)):
            if secret:
                text = text.replace(str(secret), "***")
    return printable(" ".join(text.split()))


def _known(conninfo: str, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """All that is set, whoever has set it; None if the conninfo cannot be parsed."""
    try:
        own = {key: value for key, value in kwargs.items() if _is_parameter(key)}
        given = conninfo_to_dict(conninfo, **own)
    except psycopg.Error:
        return None
    return {**_surroundings(given), **given}


def _is_parameter(key: str) -> bool:
    return key in _PARAMETERS


_PARAMETERS = frozenset(
    option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.keyword
)


def _surroundings(given: Mapping[str, Any]) -> dict[str, str]:
    """What environment variables and service files set."""
    found: dict[str, str] = {}
    for option in pq.Conninfo.get_defaults():
        name = option.keyword.decode()
        if option.envvar and (value := os.environ.get(option.envvar.decode())) is not None:
            found[name] = value
    service = given.get("service") or os.environ.get("PGSERVICE")
    if service:
        found.update({k: v for k, v in _service(str(service)).items() if k not in found})
    return found


def _service(name: str) -> dict[str, str]:
    """The settings of a service, from the first of libpq's two files that has it."""
    own = os.environ.get("PGSERVICEFILE") or str(Path.home() / ".pg_service.conf")
    system = os.environ.get("PGSYSCONFDIR")
    for path in filter(None, (own, system and str(Path(system) / "pg_service.conf"))):
        parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
        try:
            parser.read(path)
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        if parser.has_section(name):
            return dict(parser.items(name))
    return {}


def _only_unix(known: Mapping[str, Any]) -> bool:
    if known.get("hostaddr"):
        return False
    hosts = str(known.get("host") or "/").split(",")
    return all(host.startswith(("/", "@")) for host in hosts)


def _several_hosts(known: Mapping[str, Any]) -> bool:
    return "," in str(known.get("host") or "") or "," in str(known.get("hostaddr") or "")
