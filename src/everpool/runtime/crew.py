"""Threads that run jobs, for both worlds: what asyncio does with tasks, and listeners that may block."""

from __future__ import annotations

import atexit
import ctypes
import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
logger = logging.getLogger("everpool")

# A worker without work stays so long, to serve the next burst without starting a thread.
LINGER = 5.0

# An exception thrown at a thread arrives at its next step in Python. So many steps are a sign that
# it has arrived and was swallowed, in a finalizer say.
ARRIVAL_STEPS = 20


class Stopped(BaseException):
    """Raised inside a job that has been stopped."""


class Job:
    """A call on a worker thread, which can be stopped while it is ``interruptible``."""

    def __init__(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.stopping = False
        self._call = call
        self._args = args
        self._gate = threading.Lock()
        self._thread = 0  # the thread to interrupt; 0: not now
        self._coming = False  # Stopped has been sent and has not arrived

    def run(self) -> None:
        try:
            self._call(*self._args, self)
        except Stopped:
            pass
        except BaseException:  # a SystemExit of the user's too: others' jobs wait for this thread
            logger.exception("everpool: background job failed")

    def interruptible(self, call: Callable[[], T]) -> T:
        """Make the call; ``stop`` raises Stopped inside it, at its next step in Python.

        psycopg takes such a step every 0.1 s while it connects. A name lookup takes none.
        """
        try:
            with self._gate:
                if self.stopping:
                    raise Stopped
                self._thread = threading.get_ident()
            try:
                return call()
            except Stopped:
                self._coming = False
                raise
            finally:
                with self._gate:
                    self._thread = 0
                for _ in range(ARRIVAL_STEPS):
                    if not self._coming:
                        break
                    sleep(0.001)  # it must arrive here, not in what follows
        except Stopped:
            self._coming = False
            raise

    def stop(self) -> None:
        with self._gate:
            if not self.stopping:
                self.stopping = True
                if self._thread:
                    self._coming = True
                    _raise_in(self._thread)


def _raise_in(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Stopped))


class Crew:
    """Daemon threads that run jobs: started on demand, at most ``most``, gone when idle.

    ``submit`` only queues: `man` starts the threads, and is called by somebody else. CPython up
    to 3.11 delivers an exception thrown at a thread that starts another to the new one, which
    dies of it, and ``Thread.start`` waits for it for ever (seen on 3.11.7). A borrower may be
    thrown at; the pool's own thread is known to nobody.

    An interruption may leave any line undone. So nothing is counted: a thread that is not alive
    is none of the crew's, and what is missing is found anew each time.
    """

    def __init__(self, name: str, most: int) -> None:
        self.most = most
        self._name = name
        self._jobs: deque[Job] = deque()
        # Taken by itself and never through the condition, whose ``__enter__`` is Python: an
        # interruption in there keeps the lock. Reentrant: a pool may be collected, and its crews
        # dismissed, by a thread that holds it.
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._dismissed = False
        self._ended = False
        self._threads: set[threading.Thread] = set()
        self._busy: set[threading.Thread] = set()
        self._starting: set[threading.Thread] = set()
        self._count = 0
        _crews.add(self)

    def submit(self, call: Callable[..., None], *args: Any) -> Job:
        """Run ``call(*args, job)`` soon, in a thread that is free or that `man` starts.

        :raises RuntimeError: the interpreter starts no threads any more.
        """
        if self._ended:
            raise RuntimeError("the interpreter is ending")
        job = Job(call, args)
        with self._mutex:
            self._jobs.append(job)
            self._changed.notify()
        return job

    @property
    def short(self) -> bool:
        """Whether there are jobs for which `man` would start a thread."""
        with self._mutex:
            short = self._is_short()
        return short

    def man(self) -> None:
        """Start the threads that are missing, and wake those that rest beside a job.

        :raises RuntimeError: no more threads can be started; the jobs stay queued.
        """
        if not self._jobs:
            return
        with self._mutex:
            self._changed.notify(len(self._jobs))
        while self.short:
            self._count += 1
            name = f"{self._name}-{self._count}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            try:
                with self._mutex:
                    self._starting.add(thread)
                    if self._ended or not self._is_short():  # looked at last: see `end`
                        return
                    self._threads.add(thread)
                thread.start()
            finally:
                self._starting.discard(thread)

    def end(self) -> None:
        """Start no thread any more; return when none is being started, after 1 s at most."""
        self._ended = True
        self._settle()

    def dismiss(self) -> list[threading.Thread]:
        """Let the threads end when all jobs are done; return them."""
        try:
            self.man()
        except RuntimeError as ex:
            logger.warning("everpool: no thread for a last job: %s", ex)
        with self._mutex:
            self._dismissed = True
            self._changed.notify_all()
        self._settle()
        return [thread for thread in list(self._threads) if thread.is_alive()]

    def _settle(self) -> None:
        """Wait until no thread is being started, by whomever: none can be joined before."""
        deadline = monotonic() + 1.0
        while self._starting and monotonic() < deadline:
            sleep(0.001)

    def _is_short(self) -> bool:
        self._threads = {
            thread for thread in self._threads if thread.is_alive() or thread in self._starting
        }
        self._busy &= self._threads
        free = len(self._threads) - len(self._busy)
        return len(self._jobs) > free and len(self._threads) < self.most

    def _work(self) -> None:
        thread = threading.current_thread()
        with self._mutex:
            self._threads.add(thread)
        while (job := self._next(thread)) is not None:
            job.run()
            del job

    def _next(self, thread: threading.Thread) -> Job | None:
        with self._mutex:
            self._busy.discard(thread)
            if not self._jobs and not self._dismissed:
                self._changed.wait(LINGER)
            if not self._jobs:
                self._threads.discard(thread)
                return None
            self._busy.add(thread)
            return self._jobs.popleft()


_crews: WeakSet[Crew] = WeakSet()


@atexit.register
def _end_crews() -> None:
    # A thread that begins while the interpreter ends can crash it (seen on CPython 3.11.2).
    for crew in list(_crews):
        crew.end()
