"""The two doors of the hot path, written with the events of the table: slow, plainly right."""

from __future__ import annotations

from everpool.core.effects import Close
from everpool.core.machine import Machine
from everpool.core.queue import Waiter
from everpool.core.slot import Event, Slot, State


class PlainMachine(Machine):
    def take(self, now: float) -> Slot | None:
        while self.idle:
            slot = self.idle.pop()
            if now >= slot.expires_at:
                slot.why, slot.since = "max_lifetime", now
                self.effects.append(Close(slot))
                self._fire(slot, Event.RETIRE)
                continue
            self._fire(slot, Event.TAKE)
            slot.since = now
            return slot
        return None

    def give(self, slot: Slot, now: float) -> Waiter | None:
        self._held(now - slot.since)
        if slot.state is not State.LENT:
            self.discard(slot, now)
            self._refill(now)
            return None
        effects = len(self.effects)
        self._fire(slot, Event.GIVE)
        slot.since = now
        usual = slot.generation == self.generation and now < slot.expires_at
        self._settle(slot, now)
        if slot.state is State.LENT:  # granted: the door returns the waiter instead of a Wake
            del self.effects[effects:]
            waiter = slot.waiter
            assert waiter is not None and waiter.slot is slot
            return waiter
        if not usual or slot.state is not State.IDLE:
            self._refill(now)
        return None
