"""An event loop in a thread of its own, and a way to have things done there."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["LoopThread"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class LoopThread:
    """A running loop.

    An error in one of its callbacks is kept and raised by :meth:`stop`, not lost in a log.
    """

    def __init__(self, name: str) -> None:
        # Named, because a policy may be set that makes another kind: the relay needs readers and
        # writers of sockets.
        self.loop = asyncio.SelectorEventLoop()
        self._errors: list[BaseException] = []
        self.loop.set_exception_handler(self._note)
        # A daemon: a program that forgets to close its proxy must still be able to end.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, act: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call *act* in the loop's thread and return what it returns, or raise what it raises.

        The caller blocks for the time that takes: well below a millisecond.
        """
        if threading.current_thread() is self._thread:
            return act(*args, **kwargs)
        done: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(act(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return done.result()

    def stop(self) -> None:
        """End the loop and its thread; raise the first error a callback ended with."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._errors.append(
            error if isinstance(error, BaseException) else RuntimeError(context.get("message"))
        )
