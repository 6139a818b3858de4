"""Folding: one line for one thing, however often it happens. In virtual time."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import fields
from math import inf
from typing import Any

import pytest

from everpool import events
from everpool.core import events as e
from everpool.core.verdict import Cause, Trouble
from everpool.events import describe
from everpool.logs import MOST_FOLDS, JSONFormatter, LogWriter, values
from everpool.words import duration, level

FIN = Cause("FIN")


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="everpool")


def cut(at: float, silent: float = 350.0, cause: Cause = FIN, lent: bool = False) -> e.Cut:
    return e.Cut(at, int(at * 1000), cause, silent, 400.0, lent)


def failed(at: float, text: str = "refused") -> e.OpenFailed:
    return e.OpenFailed(at, 1, Trouble.GONE, text, 0.5)


def play(happenings: list[e.Happening]) -> list[tuple[float, str]]:
    """Feed a writer as the background does: add each, flush when it is due."""
    writer, lines = LogWriter("app"), []

    def flush(until: float) -> None:
        while writer.due <= until:
            now = writer.due
            lines.extend((round(now, 3), line.text()) for line in writer.flush(now))

    for happening in happenings:
        flush(happening.at)
        writer.add(happening, happening.at)
    flush(1e9)
    return lines


def test_a_mass_death_is_one_line() -> None:
    lines = play([cut(10 + i / 1000, 350 + i / 1000) for i in range(20)])
    assert lines == [
        (
            10.1,
            "20 connections were cut while idle, and are replaced: FIN, after 350 s of silence",
        )
    ]


def test_different_silences_are_a_range_and_different_reasons_different_lines() -> None:
    lines = play(
        [cut(1.0, 2.0), cut(1.01, 300.0), cut(1.02, cause=Cause("RST")), cut(1.03, lent=True)]
    )
    assert [text.split(":")[0] for _, text in lines] == [
        "2 connections were cut while idle, and are replaced",
        f"connection {1020} was cut while idle, and is replaced",
        f"connection {1030} was cut while lent",
    ]
    assert "after 2.0 s to 300 s of silence" in lines[0][1]


def test_what_goes_on_is_told_ever_more_rarely_and_nothing_is_lost() -> None:
    happenings: list[e.Happening] = [failed(i * 0.5) for i in range(400)]
    lines = play(happenings)
    times = [at for at, _ in lines]
    assert times[:4] == pytest.approx([0.1, 1.1, 11.1, 71.1], abs=0.51)
    assert len(lines) == 7
    counts = [
        int(text.rpartition("(")[2].split()[0]) if "times" in text else 1 for _, text in lines
    ]
    assert sum(counts) == 400


def test_after_a_quiet_time_it_is_told_at_once_again() -> None:
    lines = play([failed(0.0), failed(0.5), failed(100.0)])
    assert [at for at, _ in lines] == pytest.approx([0.1, 1.1, 100.1])


def test_a_servers_text_cannot_fill_the_memory() -> None:
    writer = LogWriter("app")
    for i in range(10 * MOST_FOLDS):
        writer.add(failed(1.0, f"text {i}"), 1.0)
        if i % MOST_FOLDS == 0:
            writer.flush(1.0)
    assert len(writer._folds) <= MOST_FOLDS + 1


def test_what_nobody_wants_to_read_is_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="everpool")
    writer = LogWriter("app")
    writer.add(cut(1.0), 1.0)
    assert writer.due == inf
    writer.add(cut(1.0, lent=True), 1.0)
    assert writer.due < inf


def one_of_each() -> Iterator[e.Happening]:
    everything = (getattr(events, name) for name in events.__all__)
    kinds = [k for k in everything if isinstance(k, type) and issubclass(k, e.Happening)]
    samples: dict[str, Any] = {
        "cause": Cause("FATAL", "57P05", "idle"),
        "trouble": Trouble.SILENT,
        "text": "so it goes",
        "why": "because",
        "before": 45.0,
        "after": 30.0,
        "outcome": "unknown",
        "setting": "keepalive",
    }
    flags = {"lent", "late", "dropped", "saturated", "contradicts"}
    for kind in kinds:
        if kind is e.Happening:
            continue
        names = [field.name for field in fields(kind)]
        yield kind(**{n: samples.get(n, True if n in flags else 3) for n in names})


@pytest.mark.parametrize("happening", list(one_of_each()), ids=lambda h: h.name)
def test_each_kind_has_words_a_level_and_values(
    happening: e.Happening, caplog: pytest.LogCaptureFixture
) -> None:
    text = describe(happening)
    assert text and "\n" not in text and "{" not in text
    assert level(happening) in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    writer = LogWriter("app")
    writer.add(happening, 1.0)
    for line in writer.flush(inf):
        line.write()
    (record,) = caplog.records
    assert record.event == happening.name and record.pool == "app"  # type: ignore[attr-defined]
    assert record.getMessage() == f"pool 'app': {text}"
    told = json.loads(JSONFormatter().format(record))
    assert told["event"] == happening.name
    assert values(happening).items() <= told.items()


def test_names_are_distinct_and_stay() -> None:
    names = [h.name for h in one_of_each()]
    assert len(set(names)) == len(names) == 21
    assert {"connection.cut", "pool.state", "work.retried", "pool.learned"} <= set(names)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000042, "0.0042 ms"), (0.004, "4 ms"), (0.0996, "0.1 s"), (3.14159, "3.1 s"),
     (350.2, "350 s"), (9000.0, "2.5 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_exception_is_in_the_json() -> None:
    try:
        raise ValueError("ouch")
    except ValueError:
        import sys

        record = logging.makeLogRecord({"msg": "it %s", "args": ("broke",), "exc_info": sys.exc_info(), "name": "everpool", "levelname": "ERROR"})  # fmt: skip
    told = json.loads(JSONFormatter().format(record))
    assert told["message"] == "it broke" and "ValueError: ouch" in told["exception"]


def test_what_others_log_is_json_whatever_it_holds() -> None:
    extra = {"a": inf, "b": "\ud800", "c": {(1, 2): {3}}, "d": [-inf, "\n\x1b[31m\x9b\u2028\u202e"]}
    record = logging.makeLogRecord({"msg": "hi", "stack_info": "Stack: here", **extra})
    line = JSONFormatter().format(record)
    told = json.loads(line.encode(), parse_constant=pytest.fail)
    assert [told[name] for name in "abcd"] == [
        "inf",
        "\\ud800",
        {"(1, 2)": "{3}"},
        ["-inf", "\n\x1b[31m\x9b\u2028\u202e"],
    ]
    assert told["stack"] == "Stack: here"
    assert line.isprintable()
