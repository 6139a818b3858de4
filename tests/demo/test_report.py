"""How requests are judged, counted and drawn."""

from __future__ import annotations

import pytest

from everpool.demo.contestants import CONTESTANTS
from everpool.demo.lane import Request, Seen, View
from everpool.demo.report import count
from everpool.demo.timeline import cut_cells, request_cells, spell_cells
from everpool.demo.traffic import Spell
from everpool.lab import FIN
from everpool.lab.faults import Cut

_ERROR = ("OperationalError", "server closed the connection unexpectedly")


def _cut(at: float, backend_pid: int = 7) -> Cut:
    return Cut(1, at, FIN, "age", 0.0, 6.0, False, backend_pid)


def _view(*requests: Seen, at: float = 10.0) -> View:
    return View(CONTESTANTS[0], at, list(requests), [(1.0, "idle"), (9.99, "age")], 3, None)


@pytest.mark.parametrize(
    ("cut_at", "backend_pid", "outcome"),
    [
        (90.0, 7, "failed"),  # dead for ten seconds
        (99.985, 7, "failed"),
        (99.995, 7, "in hand"),  # while it was handed over
        (100.5, 7, "in hand"),
        (100.5, 8, "failed"),  # that was another connection
    ],
)
def test_only_a_cut_that_no_pool_could_know_of_is_counted_apart(
    cut_at: float, backend_pid: int, outcome: str
) -> None:
    request = Request(99.0, lent_at=100.0, backend_pid=7, ended=101.0, error=OSError())
    assert request.outcome([_cut(cut_at, backend_pid)]) == outcome


def test_a_request_that_got_no_connection_has_failed() -> None:
    assert Request(99.0, ended=109.0, error=TimeoutError()).outcome([_cut(100.0)]) == "failed"


def test_a_cut_does_not_turn_an_answer_into_a_failure() -> None:
    assert Request(99.0, lent_at=100.0, backend_pid=7, ended=101.0).outcome([_cut(100.5)]) == "ok"


def test_numbers() -> None:
    numbers = count(
        _view(
            *[Seen(1.0, 1.5, "ok", None)] * 97,
            Seen(2.0, 4.0, "failed", _ERROR),
            Seen(2.0, 2.1, "in hand", _ERROR),
            Seen(3.0, None, "pending", None),
        )
    )
    assert numbers.requests == 100
    assert (numbers.answered, numbers.failed, numbers.cut_in_hand) == (97, 1, 1)
    assert (numbers.unfinished, numbers.longest_unfinished) == (1, 7.0)
    assert (numbers.typical, numbers.p99, numbers.slowest) == (0.5, 2.0, 7.0)
    assert numbers.errors == [{"class": _ERROR[0], "text": _ERROR[1], "count": 1}]
    assert numbers.cut == {"idle": 1, "age": 1}
    assert numbers.noted is None


def test_no_requests_at_all_can_be_counted() -> None:
    assert count(_view()).slowest == 0.0


def test_cells_show_the_worst_of_their_time() -> None:
    view = _view(
        Seen(0.1, 0.2, "ok", None),
        Seen(0.5, 0.6, "failed", _ERROR),
        Seen(2.5, 4.5, "ok", None),
        Seen(8.5, None, "pending", None),
    )
    cells = request_cells(view, 10.0, 10)
    assert cells[:6] == ["failed", "nothing", "waiting", "waiting", "waiting", "nothing"]
    assert cells[6:] == ["nothing", "nothing", "waiting", "waiting"]
    assert [at for at, is_cut in enumerate(cut_cells(view, 10.0, 10)) if is_cut] == [1, 9]


def test_cells_of_the_spells() -> None:
    spells = [Spell(0.0, 2.0, "busy"), Spell(2.0, 6.0, "quiet"), Spell(6.0, 8.0, "few")]
    assert spell_cells(spells, 8.0, 4) == ["busy", "quiet", "quiet", "few"]
