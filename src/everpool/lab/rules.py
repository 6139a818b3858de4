"""Rules: a kind of message, what to do when one comes by, and a handle to follow what happened."""

from __future__ import annotations

import threading
from collections.abc import Callable

from everpool.lab.faults import Action, Message
from everpool.lab.frames import Frame

__all__ = ["Rule"]


class Rule:
    """One fault set off by a message; made by :meth:`everpool.lab.FaultProxy.on`.

    Its methods may be called from any thread.
    """

    def __init__(
        self, message: Message, action: Action, *, link: int | None, skip: int, times: int | None
    ) -> None:
        self.message = message
        self.action = action
        self.link = link
        self.active = True
        self._skip = skip
        self._left = times
        self._hits = 0
        self._changed = threading.Condition()
        self.on_release: Callable[[], None] = lambda: None
        self.on_remove: Callable[[], None] = lambda: None

    @property
    def hits(self) -> int:
        """How often the rule has acted."""
        return self._hits

    def wait(self, timeout: float = 10.0, *, hits: int = 1) -> None:
        """Block until the rule has acted *hits* times.

        Raises :class:`TimeoutError` after *timeout* seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._hits >= hits, timeout):
                raise TimeoutError(
                    f"{self.message} came {self._hits} times within {timeout:g} s, not {hits}"
                )

    def release(self) -> None:
        """Let the messages go that a :class:`everpool.lab.Hold` keeps back, and hold no more."""
        self.on_release()

    def remove(self) -> None:
        """Act no more. What is held stays held until released."""
        self.on_remove()

    def applies(self, link: int, sender: str, frame: Frame) -> bool:
        """Tell whether to act on *frame*, and count that. For the proxy."""
        if not self.active or sender != self.message.sender or self.link not in (None, link):
            return False
        if not self.message.matches(frame):
            return False
        if self._skip:
            self._skip -= 1
            return False
        if self._left is not None:
            self._left -= 1
            self.active = self._left > 0
        return True

    def count(self) -> None:
        """Note that the rule has acted. For the proxy."""
        with self._changed:
            self._hits += 1
            self._changed.notify_all()
