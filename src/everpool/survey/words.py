"""A survey in sentences."""

from __future__ import annotations

from ..core.environment import BYTES, FATAL, FIN, PACKETS, RST, RST_NEXT, SILENCE
from ..core.policy import Policy
from ..text import printable
from .facts import Facts
from .findings import Findings, Found
from .observation import LIVED, OUTAGE, Limits, Observation
from .run import Progress, Result

# PostgreSQL's own idle cut says this; another's may too.
IDLE_SESSION_TIMEOUT = "57P05"

_KILLS = {
    FIN: "closed in good order (FIN), without a word",
    RST: "reset at that moment (RST)",
    RST_NEXT: "forgotten: nothing is said, and the next packet is answered by a reset",
    SILENCE: "forgotten in silence: nothing is said, and what is sent vanishes",
}

OUTCOMES = {
    LIVED: "lived",
    FIN: "closed (FIN)",
    RST: "reset (RST)",
    RST_NEXT: "next packet reset",
    SILENCE: "silence",
    OUTAGE: "outage: nothing answered",
}

KINDS = {"idle": "left alone", "busy": "kept busy", "tcp": "TCP keepalives"}


def span(seconds: float) -> str:
    """``75.2`` as ``"75.2 s"``, ``1250`` as ``"1250 s (21 min)"``."""
    text = f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"
    return f"{text} s" if seconds < 600 else f"{text} s ({seconds / 60:.0f} min)"


def intention(limits: Limits) -> str:
    """What is about to be done."""
    return (
        f"Opens up to {limits.connections} connections, leaves each alone for its own time, up to"
        f" {span(limits.max_idle)}, and sees what becomes of it. Takes {span(limits.longest)} at"
        " most; Ctrl-C ends it with what is known by then. Reads nothing of your data."
    )


def standing(progress: Progress) -> str:
    """What a survey knows by now, in a few words."""
    evidence = progress.evidence
    parts = []
    if evidence.idle.times:
        parts.append(f"idle cut at {span(evidence.idle.value)}")
    elif evidence.idle.found:
        parts.append(f"idle cut between {span(evidence.idle.lived)} and {span(evidence.idle.died)}")
    elif evidence.idle.lived:
        parts.append(f"no idle cut up to {span(evidence.idle.lived)}")
    if evidence.age.found:
        parts.append(f"maximum age {span(evidence.age.value)}")
    return ", ".join(parts) or f"{progress.open} connections open"


def outcome(o: Observation) -> str:
    """How a probe ended, for a table."""
    if o.outcome == FATAL:
        return f"FATAL {printable(o.sqlstate)}: {printable(o.text)}".rstrip(": ")
    return OUTCOMES[o.outcome]


def facts(facts: Facts) -> list[str]:
    """What the server said of itself."""
    if not facts.server:
        return ["It was not reached."]
    server = f"PostgreSQL {facts.version}" if facts.version else "A server of unknown version"
    if facts.role:
        server += f", a {facts.role}"
    road = "a Unix socket" if facts.unix else "TCP with TLS" if facts.tls else "TCP without TLS"
    lines = [f"{server}, over {road}."]
    if facts.pooler:
        lines.append(
            "Something else answers in its place, a pooler: what ends connections may be there."
        )
    if (facts.addresses or 0) > 1:
        lines.append(f"The host has {facts.addresses} addresses; one of them was measured.")
    shown = [f"{name} = {value}" for name, value in facts.settings.items()]
    if shown:
        lines.append(f"The server's own settings: {', '.join(shown)}.")
    return lines


def findings(found: Findings, result: Result) -> list[str]:
    """What was found, in sentences."""
    lines = []
    if found.idle:
        lines.append(
            f"Idle connections are cut after {_measured(found.idle)}: {_kill(found.idle)}."
        )
        lines += _own(found.idle, result.facts)
        if not result.facts.unix:
            lines.append(_activity(found.activity))
        if not found.sharp:
            lines.append(
                "Some lived longer than others that were cut: the cut is not sharp, or there are"
                " several paths."
            )
    else:
        lines.append(_none("idle cut", found.idle_survived))
    if found.age:
        lines.append(
            f"Connections end at an age of {_measured(found.age)}, however busy: {_kill(found.age)}."
        )
        if found.age.count == 1:
            lines.append("That was seen once only: it may have been a restart.")
    else:
        lines.append(_none("maximum age", found.age_survived))
    lines += _reservations(found, result)
    return lines


def _reservations(found: Findings, result: Result) -> list[str]:
    lines = []
    if found.unexplained:
        after = ", ".join(span(time) for time in found.unexplained)
        lines.append(
            f"Connections ended after {after}, and whether for idleness or for age is not known:"
            " there was no time to see."
        )
    if found.restarts:
        times = "once" if found.restarts == 1 else f"{found.restarts} times"
        lines.append(
            f"Connections ended at no common age {times}, as in a restart: that is no cut, and was"
            " left out."
        )
    if found.strays:
        lines.append(
            f"{_connections(found.strays)} ended alone, while others lived longer: that was left out."
        )
    if found.outages:
        lines.append(
            f"{_connections(found.outages)} did not answer while nothing else did: an outage,"
            " which was left out."
        )
    if found.silent:
        lines.append(
            f"{_connections(found.silent)} went silent: if the server was not told, the session"
            " stays there until the server's own TCP keepalives notice."
        )
    if result.trouble:
        lines.append(f"It ended early: {result.trouble}")
    elif not result.complete:
        lines.append("It was not finished; --resume goes on from a saved file.")
    return lines


def _none(what: str, survived: float) -> str:
    if not survived:
        return f"Whether there is any {what} is not known yet."
    return f"No {what} up to {span(survived)}."


def _measured(found: Found) -> str:
    if found.kill in (RST_NEXT, SILENCE):
        return (
            f"about {span(found.figure)} (between {span(found.least)} and {span(found.most)},"
            f" {_seen(found)})"
        )
    return f"{span(found.value)} ({_seen(found)})"


def _seen(found: Found) -> str:
    return "seen once" if found.count == 1 else f"seen {found.count} times"


def _kill(found: Found) -> str:
    if found.kill == FATAL:
        return f"told so, FATAL {printable(found.sqlstate)} “{printable(found.text)}”"
    return _KILLS[found.kill]


def _own(found: Found, facts: Facts) -> list[str]:
    """Whether it is the server's own doing."""
    value = facts.settings.get("idle_session_timeout", "0")
    if found.sqlstate == IDLE_SESSION_TIMEOUT and value != "0":
        return [f"That is the server's own idle_session_timeout = {value}."]
    return []


def _activity(activity: str | None) -> str:
    if activity == PACKETS:
        return "TCP keepalives hold it off: it counts packets."
    if activity == BYTES:
        return "TCP keepalives do not hold it off, only a ping does: it counts bytes."
    return "Whether TCP keepalives hold it off is not known."


def _connections(count: int) -> str:
    return "1 connection" if count == 1 else f"{count} connections"


def settings(policy: Policy) -> list[str]:
    """What follows for a pool, each setting with its reason."""
    if not policy.reasons:
        return ["The defaults are right: nothing was found that asks for others."]
    lines = policy.explain().splitlines()
    return [line for line in lines if line.partition(" ")[0] in policy.reasons]
