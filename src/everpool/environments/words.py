"""Entries in sentences, for the command and the page."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from ..core.environment import BYTES, CUT, FATAL, FIN, KEPT, LOST, PACKETS, RST, RST_NEXT, SILENCE
from ..core.policy import Policy, build
from .entry import MEASURED, Entry

KILLS = {
    FIN: "it closes the connection in good order, without a word (fin)",
    RST: "it resets the connection at the moment of the cut (rst)",
    RST_NEXT: "it says nothing, and the next packet is answered by a reset (rst-next)",
    SILENCE: "it says nothing, and packets vanish (silence)",
    FATAL: "it says why, then closes the connection (fatal)",
}
COUNTS = {
    PACKETS: "TCP keepalives count as activity",
    BYTES: "only data count as activity, TCP keepalives do not",
}
FAILOVERS = {
    KEPT: "Connections are kept.",
    CUT: "Connections are ended.",
    LOST: "Connections stop answering, and nobody tells.",
}

NOT_KNOWN = "?"
NOTHING = "–"  # nothing to know

# Of these, what is not given is no gap: the text says what happens.
_TOLD_BY_TEXT = ("client", "credentials", "event")


def spelled(seconds: float) -> str:
    """``350`` as ``"350 s"``, ``7440`` as ``"7440 s (2 h 4 min)"``."""
    exact = f"{seconds:.10g} s"
    if seconds < 3600:
        return exact
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    parts = ((days, "d"), (hours, "h"), (rest // 60, "min"))
    return f"{exact} ({' '.join(f'{number} {unit}' for number, unit in parts if number)})"


def row(entry: Entry) -> dict[str, str]:
    """The facts for a table, by heading, in a word each."""
    facts = entry.facts
    spared = NOTHING if _ends_nothing(entry) else NOT_KNOWN
    idle = NOTHING if facts.idle_cut == inf else NOT_KNOWN
    rests = NOTHING if entry.kind in _TOLD_BY_TEXT else NOT_KNOWN
    return {
        "idle cut": _brief(facts.idle_cut),
        "max age": _brief(facts.max_age),
        "ends by": facts.kill or spared,
        "counts": facts.activity or idle,
        "failover": facts.failover or rests,
        "confidence": entry.confidence,
    }


def described(entry: Entry) -> Iterator[tuple[str, str]]:
    """What is known beside the text, and what is not: labels and sentences."""
    facts = entry.facts
    gaps = entry.kind not in _TOLD_BY_TEXT
    if facts.idle_cut is not None or gaps:
        yield "Idle cut", _idle(entry)
    if facts.max_age is not None or gaps:
        yield "Maximum age", _age(facts.max_age)
    if facts.kill:
        yield "How it ends", KILLS[facts.kill]
    elif gaps and not _ends_nothing(entry):
        yield "How it ends", "not known"
    if entry.says or entry.sqlstate:
        said = entry.says and f"“{entry.says}”"
        code = entry.sqlstate and f"SQLSTATE {entry.sqlstate}"
        yield "A client gets", ", ".join(filter(None, (said, code)))
    if facts.failover or entry.failover_text:
        words = [FAILOVERS.get(facts.failover or "", ""), entry.failover_text or ""]
        yield "Failover", " ".join(filter(None, words))
    if facts.sleeps_after:
        yield "Falls asleep", f"after {spelled(facts.sleeps_after)} without use"
    for label, text in (
        ("Limits", entry.limits),
        ("Advice", entry.advice),
        ("Not known", entry.not_known),
    ):
        if text:
            yield label, text


def trust(entry: Entry) -> str:
    """How sure the figures are, and of when: ``"documented (2026-11-22)"``."""
    return f"{entry.confidence} ({entry.date})"


def source(url: str) -> str:
    """A source as people read it."""
    return "a run of our own" if url == MEASURED else url


def settings(entry: Entry) -> tuple[Policy, list[str]]:
    """The policy of a pool in this environment, and a line for each setting that it decides."""
    policy = build(environment=(entry.facts,))
    lines = policy.explain().splitlines()
    return policy, [line for line in lines if line.partition(" ")[0] in policy.reasons]


def _ends_nothing(entry: Entry) -> bool:
    """By itself, as far as is known."""
    facts = entry.facts
    return facts.idle_cut == facts.max_age == inf and facts.failover in (None, KEPT)


def _brief(seconds: float | None) -> str:
    if seconds is None:
        return NOT_KNOWN
    return "never" if seconds == inf else f"{seconds:.10g} s"


def _idle(entry: Entry) -> str:
    cut = entry.facts.idle_cut
    if cut is None:
        words = "not known"
    elif cut == inf:
        words = "none by default" if entry.kind not in _TOLD_BY_TEXT else "none of its own"
    else:
        words = f"after {spelled(cut)}"
        if entry.idle_range:
            low, high = entry.idle_range
            words += f" by default, of {low:g} to {spelled(high)}"
    counts = COUNTS.get(entry.facts.activity or "")
    if counts is None and cut is not None and cut < inf:
        counts = "whether TCP keepalives count as activity is not known"
    return f"{words}; {counts}" if counts else words


def _age(age: float | None) -> str:
    if age is None:
        return "not known"
    return "none" if age == inf else f"{spelled(age)}, however busy"
