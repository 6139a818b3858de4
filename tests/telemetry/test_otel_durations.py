"""Counts in buckets become single durations: in the same buckets, with the same sum."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everpool.core.histogram import BOUNDS, Histogram
from everpool.snapshot import Durations
from everpool.telemetry.otel.durations import Ledger, spread

seconds = st.lists(st.floats(0, 100), max_size=30)


def durations(*measured: list[float]) -> Durations:
    histogram = Histogram()
    for some in measured:
        for duration in some:
            histogram.record(duration)
    return Durations(BOUNDS, tuple(histogram.counts), histogram.sum)


@given(seconds)
def test_each_value_lies_in_its_bucket_and_the_sum_is_right(measured: list[float]) -> None:
    now = durations(measured)
    values = spread(BOUNDS, list(now.counts), now.sum)
    for bucket, (count, value) in enumerate(zip(now.counts, values, strict=True)):
        if count:
            assert bisect_left(BOUNDS, value) == bucket
    told = sum(n * value for n, value in zip(now.counts, values, strict=True))
    # A value may not lie on the lower bound itself, so what lies next to it is told a little above.
    assert told == pytest.approx(now.sum, rel=1e-4, abs=1e-4)


def test_a_lone_duration_is_told_as_it_was() -> None:
    assert spread(BOUNDS, list(durations([0.0123]).counts), 0.0123)[3] == pytest.approx(0.0123)
    assert spread(BOUNDS, list(durations([77.0]).counts), 77.0)[-1] == pytest.approx(77.0)


@given(seconds, seconds, seconds)
def test_in_steps_all_is_told_once(one: list[float], two: list[float], three: list[float]) -> None:
    ledger = Ledger()
    steps = [durations(one), durations(one, two), durations(one, two, three)]
    counted, summed = [0] * len(steps[0].counts), 0.0
    for now in steps:
        counts, values = ledger.advance(now)
        counted = [a + b for a, b in zip(counted, counts, strict=True)]
        summed += sum(n * value for n, value in zip(counts, values, strict=True))
    assert counted == list(steps[-1].counts)
    assert summed == pytest.approx(steps[-1].sum, rel=1e-4, abs=1e-4)


def test_a_count_that_seems_to_fall_is_told_when_it_has_risen() -> None:
    ledger = Ledger()
    told = 0
    for count in (5, 4, 5, 6):
        told += sum(ledger.advance(durations([0.0] * count))[0])
    assert told == 6


def test_a_sample_keeps_the_shape_and_rare_durations_too() -> None:
    ledger = Ledger()
    chosen = [0, 0]
    for _ in range(1000):
        chosen = [a + b for a, b in zip(chosen, ledger.sample([100, 1], 0.25), strict=True)]
    assert chosen == [25_000, 250]


def test_a_sample_never_has_more_than_there_was() -> None:
    ledger = Ledger()
    for first, second in pairwise([3, 1, 0, 7, 1, 1, 0, 2]):
        for count, taken in zip((first, second), ledger.sample([first, second], 0.9), strict=True):
            assert 0 <= taken <= count
