"""What is registered, and what is told of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Protocol

from ..core.health import Status

# Both end up in paths, keys and DNS names.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_ID = re.compile(r"[A-Za-z0-9._:-]+")


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of a service: where it can be reached.

    :param name: of the service: letters, digits, ``.``, ``_`` and ``-``.
    :param address: host name or IP address at which others reach this process.
    :param port: its TCP port.
    :param id: what tells it from other instances in the registry. Default: name, address and
        port, so that a restarted process takes the place of the one that crashed.
    :raises ValueError: a part is missing, or cannot be registered.
    """

    name: str
    address: str
    port: int
    id: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"the name of a service has letters, digits, '.', '_' and '-': {self.name!r}"
            )
        if not _ID.fullmatch(self.address) or _is_unspecified(self.address):
            raise ValueError(
                f"address must be one that others can connect to, not {self.address!r}"
            )
        if isinstance(self.port, bool) or not isinstance(self.port, int):
            raise TypeError(f"port must be an int, not {type(self.port).__name__}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be from 1 to 65535, not {self.port}")
        if not self.id:
            object.__setattr__(self, "id", f"{self.name}-{self.address}-{self.port}")
        if not _ID.fullmatch(self.id):
            raise ValueError(
                f"the id of an instance has letters, digits, '.', '_', ':' and '-': {self.id!r}"
            )


def _is_unspecified(address: str) -> bool:
    """``0.0.0.0`` and ``::`` are where a server listens, not where it can be found."""
    try:
        return ip_address(address).is_unspecified
    except ValueError:
        return False  # a host name


@dataclass(frozen=True, slots=True)
class Report:
    """What a registry is told: the status, why (a text for anybody), and the time (seconds
    since the epoch) at which the status became so."""

    status: Status
    why: str
    since: float

    @property
    def since_text(self) -> str:
        """``since`` as RFC 3339 has it, in UTC."""
        return datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Registry(Protocol):
    """What the `Registrar` needs of a registry.

    :ivar shown: scheme and host, for people.
    :ivar ttl: seconds after which a registration that is not renewed lapses.
    """

    @property
    def shown(self) -> str: ...

    @property
    def ttl(self) -> float: ...

    def entry(self, instance: Instance) -> Entry:
        """A place for one instance. Asks nobody yet."""


class Entry(Protocol):
    """One registration. Its methods block, for a bounded time, and are called by one thread.

    They raise `Away` when the registry cannot be asked or refuses, `Lost` when it answers that
    it does not know the registration.
    """

    def register(self, report: Report) -> None:
        """Make it known, whatever was known before."""

    def report(self, report: Report) -> None:
        """Renew the registration and make its status true."""

    def withdraw(self) -> None:
        """Take the registration back; fine if there is none."""
