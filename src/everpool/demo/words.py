"""All that the demo says in sentences."""

from __future__ import annotations

from everpool import Snapshot
from everpool.demo.contestants import MAX_SIZE, MIN_SIZE
from everpool.demo.lane import AGE_CUT, IDLE_CUT
from everpool.demo.report import Numbers
from everpool.demo.run import Plan
from everpool.demo.timeline import SLOW

__all__ = ["RESERVATION", "cure", "introduction", "own_record", "span", "trouble"]

NEW_LINE = "from everpool import ConnectionPool"

RESERVATION = (
    "The pools' own timers keep real time, so none helps here: neither psycopg_pool's"
    " max_lifetime (1 hour) nor everpool's keepalive (45 s)."
)

_CAUSES = {
    "FIN": "the other side hung up without a word",
    "RST": "the other side hung up without a word",
    "silence": "the other side no longer answered",
}


def introduction(plan: Plan) -> list[str]:
    """What is about to be seen, in paragraphs."""
    if plan.silent:
        cuts = (
            f"A proxy forgets every connection that is quiet for {IDLE_CUT:g} s, without a sign,"
            f" and closes those {AGE_CUT:g} s old"
        )
    else:
        cuts = (
            f"A proxy closes every connection that is quiet for {IDLE_CUT:g} s, or {AGE_CUT:g} s"
            " old, and does not say why"
        )
    return [
        "A connection pool keeps connections open. In a cloud, something on the way cuts them:"
        " Alibaba's database proxy, for one, after about six hours, as its users report.",
        f"Here hours are seconds. {cuts}; never in the middle of a request. Three pools get the"
        " same requests: psycopg_pool, psycopg_pool with its check= option, and everpool. Each has"
        f" {MIN_SIZE} to {MAX_SIZE} connections; the rest is left at its defaults.",
    ]


def own_record(snapshot: Snapshot) -> str:
    """What everpool itself noted about the cuts."""
    total = sum(snapshot.cuts.values())
    if not total:
        return "everpool itself noted no cut."
    whens = {
        f"after {IDLE_CUT:g} s of quiet": 0,
        f"at an age of {AGE_CUT:g} s": 0,
        "at another time": 0,
    }
    quiet, old, other = whens
    for death in snapshot.deaths:
        if death.silent_for >= 0.9 * IDLE_CUT:
            whens[quiet] += 1
        elif death.age >= 0.9 * AGE_CUT:
            whens[old] += 1
        else:
            whens[other] += 1
    when = ", ".join(f"{number} {text}" for text, number in whens.items() if number)
    how = " or ".join(dict.fromkeys(_CAUSES.get(cause, cause) for cause in snapshot.cuts))
    return f"everpool itself noted {_counted(total, 'cut')} ({how}): {when}."


def trouble(plain: Numbers, checking: Numbers) -> str:
    """What went wrong, in one sentence."""
    if plain.failed or plain.unfinished:
        begin = f"psycopg_pool lent out dead connections: {_fate(plain)}"
    else:
        begin = f"Under psycopg_pool, all went well this time: {_fate(plain)}"
    return f"{begin}; with check=, {_fate(checking)}."


def cure(ours: Numbers) -> tuple[str, str, str]:
    """The line that changes it, in one sentence: what comes before the line, the line, the rest."""
    held = not ours.failed and not ours.unfinished
    before = "One line changes that: " if held else "One line should change that: "
    after = f" ({_counted(ours.cuts, 'cut')}, {_fate(ours)})."
    return before, NEW_LINE, after


def _fate(numbers: Numbers) -> str:
    if numbers.failed:
        text = f"{numbers.failed} of {_counted(numbers.requests, 'request')} failed"
    else:
        text = "no request failed"
    if numbers.cut_in_hand:
        text += f" besides {numbers.cut_in_hand} cut in use"
    if numbers.unfinished:
        longest = f"{numbers.longest_unfinished:.0f} s"
        return f"{text}, {numbers.unfinished} had no answer yet after up to {longest}"
    if numbers.failed and numbers.slowest < SLOW:
        return text
    return f"{text}, the slowest took {span(numbers.slowest)}"


def span(seconds: float) -> str:
    """A length of time in a few characters."""
    return f"{1000 * seconds:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
