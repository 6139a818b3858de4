"""The threads that run a pool's jobs: none is lost, whatever stops those who ask for them, and where."""

from __future__ import annotations

import dis
import gc
import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from types import FrameType
from typing import Any

import pytest

from everpool.core.events import Happening, Slept
from everpool.runtime import crew as rt
from everpool.runtime.crew import Crew, Job
from everpool.subscriptions import Hub
from tests.support.threads import eventually, interrupt, spawn


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost job must not be found by a thread that has rested long enough."""
    monkeypatch.setattr(rt, "LINGER", 30.0)


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew("test-crew", most=1)
    yield crew
    for thread in crew.dismiss():
        thread.join(5)
        assert not thread.is_alive()


@pytest.fixture
def no_collector() -> Iterator[None]:
    """A finalizer that is interrupted can only warn."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Interruption(BaseException):
    pass


TRACED = {rt.__file__, threading.__file__, sys.modules[Hub.__module__].__file__}

# CPython looks for an exception thrown at a thread when it has done one of these.
LOOKS = ("CALL", "RESUME", "JUMP_BACKWARD")


def interrupted_at(last: int, call: Callable[[], Any]) -> bool:
    """Make the call, interrupted at the place number *last* where that can be; False if there are fewer."""
    count = 0
    before: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in TRACED:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            looked = before.get(frame, "").startswith(LOOKS)
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            count += looked
            if looked and count == last:
                raise Interruption
        return trace

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except (Interruption, RuntimeError):  # the latter by `threading` on its way out
        return True
    finally:
        sys.settrace(tracer)
    return False


def test_a_job_that_ends_its_thread_leaves_the_others_a_thread(crew: Crew, caplog: Any) -> None:
    gate, done = threading.Event(), threading.Event()

    def exits(job: Job) -> None:
        gate.wait(5)
        raise SystemExit

    crew.submit(exits)
    crew.man()
    crew.submit(lambda job: done.set())
    crew.man()
    gate.set()
    assert done.wait(2)
    assert "SystemExit" in caplog.text


def test_no_more_threads_than_allowed(crew: Crew) -> None:
    crew.most = 2
    gate = threading.Event()
    at_once: list[int] = []
    running = [0]

    def work(job: Job) -> None:
        running[0] += 1
        at_once.append(running[0])
        gate.wait(5)
        running[0] -= 1

    for _ in range(6):
        crew.submit(work)
        crew.man()
    eventually(lambda: running[0] == 2)
    sleep(0.05)
    assert running[0] == 2
    gate.set()
    eventually(lambda: len(at_once) == 6)
    assert max(at_once) == 2


@pytest.mark.parametrize("resting", [False, True], ids=["no thread", "a thread rests"])
def test_an_interruption_anywhere_leaves_no_job_to_nobody(resting: bool) -> None:
    """At every step of asking for a job: afterwards what was queued runs, and so does what comes next."""
    last, interrupted = 0, True
    while interrupted:
        last += 1
        crew = Crew("test-crew", most=1)
        if resting:
            crew.submit(lambda job: None)
            crew.man()
            eventually(lambda crew=crew: not crew._jobs and crew._changed._waiters)

        def ask(crew: Crew = crew) -> None:
            crew.submit(lambda job: None)
            crew.man()

        interrupted = interrupted_at(last, ask)
        # The lock is free: another thread can have it.
        assert spawn(lambda crew=crew: crew.short).result(2) in (True, False)
        done = threading.Event()
        crew.submit(lambda job, done=done: done.set())
        crew.man()
        assert done.wait(2), f"lost by an interruption at step {last}"
        assert not crew._jobs
        for thread in crew.dismiss():
            thread.join(5)
            assert not thread.is_alive()
    assert last > 20


def test_an_interruption_anywhere_does_not_make_a_listener_deaf() -> None:
    last, interrupted = 0, True
    while interrupted:
        last += 1
        hub, heard = Hub("test"), list[Happening]()
        hub.add(heard.append, ())
        first, second = Slept(1.0, 2.0), Slept(3.0, 4.0)

        def tell(hub: Hub = hub, first: Happening = first) -> None:
            hub.publish(_queue(first))
            hub.dispatch(None)
            hub.man()

        interrupted = interrupted_at(last, tell)
        hub.publish(_queue(second))
        hub.dispatch(None)
        hub.man()
        eventually(lambda heard=heard, second=second: second in heard, timeout=2)
        for thread in hub.dismiss():
            thread.join(5)
    assert last > 20


def test_a_listener_that_exits_hears_on() -> None:
    hub, heard = Hub("test"), list[Happening]()

    def listener(happening: Happening) -> None:
        heard.append(happening)
        raise SystemExit

    hub.add(listener, ())
    for number in (1, 2):
        hub.publish(_queue(Slept(1.0, 2.0)))
        hub.dispatch(None)
        hub.man()
        eventually(lambda number=number: len(heard) == number)
    hub.dismiss()


def test_exceptions_thrown_at_those_who_submit_kill_no_thread(
    crew: Crew, no_collector: None
) -> None:
    """CPython up to 3.11 delivers them to a thread that their target is starting."""
    stop, done = threading.Event(), [0]

    def count(job: Job) -> None:
        done[0] += 1

    def ask() -> None:
        while not stop.is_set():
            try:
                while not stop.is_set():
                    crew.submit(count)
            except KeyboardInterrupt:
                pass

    def man() -> None:
        while not stop.is_set():
            crew.man()
            sleep(0.0005)

    crew.most = 4
    foreman, asker = spawn(man), spawn(ask)
    chance, until = random.Random(1), monotonic() + 1.5
    while monotonic() < until:
        sleep(chance.random() * 0.002)
        interrupt(asker)
        if asker.done:  # interrupted where it had no defence
            asker = spawn(ask)
    stop.set()
    foreman.result()
    try:
        asker.result()
    except KeyboardInterrupt:
        pass
    crew.man()
    eventually(lambda: not crew._jobs, timeout=20)
    assert done[0] > 50


def _queue(*happenings: Happening) -> deque[Happening]:
    return deque(happenings)
