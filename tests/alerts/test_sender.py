"""Delivery: a sink that hangs, one that refuses, one that recovers; none is flooded."""

from __future__ import annotations

import logging
from time import monotonic, sleep
from typing import Any

import pytest

from everpool.alerts import Notice, SinkError, Webhook
from everpool.alerts import sender as module
from everpool.alerts.sender import Sender
from tests.alerts.receiver import Receiver, alert, notice, wait_for
from tests.support.net import refusing_port


@pytest.fixture
def quick(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.05)


@pytest.fixture
def senders() -> Any:
    started: list[Sender] = []

    def start(sink: Any) -> Sender:
        started.append(Sender(sink))
        started[-1].start()
        return started[-1]

    yield start
    for sender in started:
        sender.stop()
        sender.join(5.0)
        assert not sender._thread.is_alive()


def test_500_then_well(quick: None, senders: Any, receiver: Receiver, caplog: Any) -> None:
    receiver.statuses = [500] * 5
    sender = senders(Webhook(receiver.url))
    sent = notice(alert())
    sender.put(sent)
    wait_for(lambda: sender.state().delivered)
    assert receiver.bodies == [sent.json()]  # once, and the id has stayed
    state = sender.state()
    assert (state.failed, state.failing, state.error, state.waiting) == (5, 0, "", False)
    lines = [record.getMessage() for record in caplog.records]
    sink = "Webhook(http://127.0.0.1)"
    assert lines == [
        f"{sink} did not deliver an alert: http://127.0.0.1 answered 500",
        f"{sink} did not deliver an alert: http://127.0.0.1 answered 500 (2 failures in a row)",
        f"{sink} did not deliver an alert: http://127.0.0.1 answered 500 (4 failures in a row)",
        f"{sink} delivers again, after 5 failures",
    ]
    assert "s3cret" not in caplog.text


def test_one_that_refuses_is_counted(quick: None, senders: Any) -> None:
    with refusing_port() as port:
        sender = senders(Webhook(f"http://127.0.0.1:{port}/s3cret"))
        sender.put(notice(alert()))
        wait_for(lambda: sender.state().failing >= 3)
        state = sender.state()
        assert state.delivered == 0
        assert state.waiting
        assert state.error == "http://127.0.0.1: connection refused"
        assert state.sink == "Webhook(http://127.0.0.1)"


class Broken:
    refresh = None

    def __init__(self) -> None:
        self.got: list[Notice] = []
        self.error: Exception | None = SinkError("no")

    def send(self, notice: Notice) -> None:
        self.got.append(notice)
        if self.error:
            raise self.error


def test_what_waits_is_one_notice(quick: None, senders: Any) -> None:
    sink = Broken()
    sender = senders(sink)
    for number in range(1000):
        sender.put(notice(alert(), id=str(number)))
    sender.put(notice(resolved=(alert(ended=50.0),), id="last"))
    wait_for(lambda: sink.got and sink.got[-1].id == "last")
    sink.error = None
    wait_for(lambda: sender.state().delivered)
    assert [a.ended for a in sink.got[-1].resolved] == [50.0]
    sleep(0.1)
    assert sender.state().delivered == 1


def test_an_error_of_another_kind_tells_only_its_class(
    quick: None, senders: Any, caplog: Any
) -> None:
    sink = Broken()
    sink.error = RuntimeError("https://example.com/s3cret")
    sender = senders(sink)
    sender.put(notice(alert()))
    wait_for(lambda: sender.state().failed)
    assert "s3cret" not in caplog.text + sender.state().error
    assert "RuntimeError" in sender.state().error


def test_a_dead_sink_is_tried_ever_more_rarely(senders: Any, monkeypatch: Any, caplog: Any) -> None:
    """1 s, 2 s, 4 s … 60 s at most; and the log has ten lines for a thousand failures."""
    limits: list[float] = []

    def uniform(low: float, high: float) -> float:
        limits.append(high)
        return 0.0 if len(limits) < 1000 else 1e6

    monkeypatch.setattr(module.random, "uniform", uniform)
    caplog.set_level(logging.INFO)
    sender = senders(Broken())
    sender.put(notice(alert()))
    wait_for(lambda: sender.state().failed == 1000)
    assert limits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert max(limits) == 60
    assert len(caplog.records) == 10


def test_news_do_not_hurry_a_dead_sink(senders: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 1e6)
    sink = Broken()
    sender = senders(sink)
    sender.put(notice(alert()))
    wait_for(lambda: sink.got)
    for _ in range(20):
        sender.put(notice(alert()))
        sleep(0.005)
    assert len(sink.got) == 1
    sender.stop()  # one last attempt
    sender.join(5.0)
    assert len(sink.got) == 2


def test_put_does_not_wait_for_a_sink_that_hangs(senders: Any, receiver: Receiver) -> None:
    receiver.hanging = True
    sender = senders(Webhook(receiver.url))
    began = monotonic()
    for _ in range(100):
        sender.put(notice(alert()))
    assert monotonic() - began < 0.5
    wait_for(lambda: receiver.times)
    assert sender.state().waiting
    receiver._let_go.set()
