"""Foreign text is made harmless, whatever it is and however much."""

from __future__ import annotations

from time import perf_counter

import pytest

from everpool.text import printable


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain — naïve ✓", "plain — naïve ✓"),
        ("a\nb\r\x00", r"a\nb\r\x00"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eright to left\u2028", r"\u202eright to left\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_controls_are_escaped(text: str, safe: str) -> None:
    assert printable(text) == safe


@pytest.mark.parametrize("sign", ["x", "\x01", "é"])
def test_long_texts_are_cut(sign: str) -> None:
    cut = printable(sign * 201)
    assert len(cut) == 200 and cut.endswith("…")
    assert len(printable("x" * 200)) == 200 and not printable("x" * 200).endswith("…")


def test_a_megabyte_costs_no_more_than_a_line() -> None:
    text = "\x01" * 1_000_000
    began = perf_counter()
    for _ in range(100):
        printable(text)
    assert perf_counter() - began < 1.0  # looking at all of it took 20 s
