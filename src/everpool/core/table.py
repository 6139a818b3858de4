"""The slot table: what connections there are, and the indices over it.

The table (``slots`` and their states) is the only truth. ``idle``, ``tally`` and ``counted``
are indices; ``reconcile`` rebuilds them after any interruption. Who waits, and what has been
ordered of the shells, is kept here too, because those must agree with the table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from .effects import Abort, Cancel, Close, Effect, Inquire, Open, Ping, Tell, Wake
from .events import Happening
from .queue import Queue, Waiter
from .slot import COUNTED, LIFE, Event, IllegalTransition, Slot, State

IDLE, LENT = State.IDLE, State.LENT
PRESENT = (State.IDLE, State.TESTING, State.LENT, State.RETURNING)
ESTABLISHED = (*PRESENT, State.SUSPECT)

TELL = Tell()


def rested_since(slot: Slot) -> float:
    return slot.since


class Table:
    __slots__ = (
        "_numbers",
        "counted",
        "effects",
        "happenings",
        "hopes",
        "idle",
        "next_wake",
        "queue",
        "slots",
        "tally",
    )

    def __init__(self, now: float) -> None:
        self.slots: dict[Slot, None] = {}  # a set that keeps its order
        self.idle: list[Slot] = []  # oldest rest first; lent from the end
        self.tally = dict.fromkeys(State, 0)  # IDLE and LENT only right as a sum: see the doors
        self.counted = 0  # slots that max_size limits
        self.queue = Queue()
        self.hopes: list[tuple[Callable[[], bool], Waiter]] = []  # who waits for a condition
        self.effects: list[Effect] = []
        self.happenings: deque[Happening] = deque()  # to be told, in this order
        self.next_wake = now  # when the next tick is due
        self._numbers = 0

    def reconcile(self) -> None:
        """Make the indices true again after an interruption in mid-transition.

        What makes this possible is the order of writing: an effect is noted before the table
        confirms it (one that the table does not confirm is struck here), and a hand-over is
        the one assignment to ``waiter.slot``. A slot that was lent to nobody (its connection
        still here, no waiter to claim it) rests again. Those granted one are woken once more.

        The shell repeats an interrupted ``discard``, and calls ``abandon`` for a waiter whose
        ``acquire`` or ``doubt`` was interrupted, before it calls this.
        """
        self.slots = {slot: None for slot in self.slots if slot.state is not State.GONE}
        self.queue.rebuild()
        self.hopes = [hope for hope in self.hopes if not hope[1].gone]
        noted, self.effects = self.effects, []
        for effect in noted:
            if self._confirmed(effect) and effect not in self.effects:
                self.effects.append(effect)
        if self.happenings and TELL not in self.effects:
            self.effects.append(TELL)
        for slot in self.slots:
            if slot.waiter is not None and slot.waiter.slot is not slot:
                slot.waiter = None
            waiter = slot.waiter  # read before `conn`: who wakes clears them in the other order
            if slot.state is LENT and slot.conn is not None:
                if waiter is None:
                    slot.state = IDLE
                else:
                    self.effects.append(Wake(waiter))
        self.idle = sorted((s for s in self.slots if s.state is IDLE), key=rested_since)
        self.tally = dict.fromkeys(State, 0)
        for slot in self.slots:
            self.tally[slot.state] += 1
        self.counted = sum(COUNTED[slot.state] for slot in self.slots)

    def _confirmed(self, effect: Effect) -> bool:
        match effect:
            case Open(slot):
                return slot in self.slots and slot.state in (State.OPENING, State.DISOWNED)
            case Ping(slot):
                return slot.state in (State.TESTING, State.SUSPECT)
            case Close(slot):
                return slot.state in (State.CLOSING, State.DEAD)
            case Cancel(bound):
                return bound.overdue and bound.current
            case Abort(slot):
                return slot.state is State.CORPSE
            case Inquire(inquiry):
                return not inquiry.done
            case Wake(waiter):
                return waiter.gone
            case _:
                return True

    def _add(self, now: float, generation: int) -> None:
        """A new slot, OPENING."""
        self._numbers += 1
        slot = Slot(self._numbers, now, generation)
        self.effects.append(Open(slot))
        self.slots[slot] = None
        self.tally[State.OPENING] += 1
        self.counted += 1

    def _fire(self, slot: Slot, event: Event) -> None:
        old = slot.state
        try:
            new = LIFE[old][event]
        except KeyError:
            raise IllegalTransition(f"{slot!r} knows no {event.value!r}") from None
        slot.state = new
        self.tally[old] -= 1
        self.tally[new] += 1
        self.counted += COUNTED[new] - COUNTED[old]
        if new is State.GONE:
            self.slots.pop(slot, None)

    def _present(self) -> int:
        """Connections that are there and not in doubt, at rest or in use."""
        return sum(self.tally[state] for state in PRESENT)

    def _tell(self, happening: Happening) -> None:
        self.happenings.append(happening)
        if not self.effects or self.effects[-1] is not TELL:
            self.effects.append(TELL)

    def _wake_at(self, when: float) -> None:
        self.next_wake = min(self.next_wake, when)

    def _hope(self, condition: Callable[[], bool], waiter: Waiter) -> None:
        self.hopes.append((condition, waiter))
        self._wake_at(waiter.deadline)
        self._fulfil()

    def _fulfil(self) -> None:
        for hope in list(self.hopes):
            condition, waiter = hope
            if condition():
                self.hopes.remove(hope)
                waiter.gone = True
                self.effects.append(Wake(waiter))

    def lose_hope(self, waiter: Waiter) -> None:
        """The waiter for a condition waits no longer."""
        self.hopes = [hope for hope in self.hopes if hope[1] is not waiter]
