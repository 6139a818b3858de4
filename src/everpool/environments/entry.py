"""One entry of the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.environment import Environment

KINDS = (
    "server",  # PostgreSQL itself
    "service",  # PostgreSQL run by somebody else
    "proxy",  # forwards a stream of bytes
    "pooler",  # a proxy that shares connections to the server
    "balancer",  # forwards packets, or streams, to one of several
    "nat",
    "firewall",
    "conntrack",  # a host's or a network's table of flows
    "kubernetes",
    "platform",  # runs programs, and stops them
    "client",  # the machine of the program itself
    "credentials",
    "event",  # nothing that stays on the path: something that happens
)

CONFIDENCES = (
    "documented",  # by the vendor or the project
    "source",  # read in the project's source
    "measured",  # by a run of ours
    "reported",  # by users or third parties
    "unknown",  # the figures that matter were looked for and not found
)

MEASURED = "measured"  # stands among the sources where a URL would


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one thing on the path, and from whom.

    :param name: what ``environment=`` calls it.
    :param title: what people call it.
    :param group: the heading that it stands under.
    :param vendor: who makes it.
    :param kind: one of `KINDS`.
    :param text: what it does to connections, in sentences.
    :param facts: what settings follow from.
    :param sources: URLs, or ``"measured"``.
    :param date: of the source, or of the day it was looked up: ``2026-11-22``, ``2026-11`` or
        ``2026``.
    :param confidence: how good the figures are, one of `CONFIDENCES`.
    :param aliases: other names of it.
    :param idle_range: the seconds between which the idle cut can be set.
    :param sqlstate: the code that a client gets.
    :param says: the text that a client gets.
    :param failover_text: what happens when servers change, in sentences.
    :param limits: what else it limits, in sentences.
    :param advice: what to do, in sentences.
    :param not_known: what was looked for and not found, or is less sure, in sentences.
    :param hosts: patterns of host names, in lower case, that give it away.
    """

    name: str
    title: str
    group: str
    vendor: str
    kind: str
    text: str
    facts: Environment
    sources: tuple[str, ...]
    date: str
    confidence: str
    aliases: tuple[str, ...] = ()
    idle_range: tuple[float, float] | None = None
    sqlstate: str | None = None
    says: str | None = None
    failover_text: str | None = None
    limits: str | None = None
    advice: str | None = None
    not_known: str | None = None
    hosts: tuple[str, ...] = ()
