"""Whether a ``with`` block that ends now leads back to its loop.

``for attempt in pool.attempts(): with attempt as conn: return work(conn)`` leaves the function
after the block: if the COMMIT at the end of the block fails, the loop cannot repeat it, and the
failure must be raised. ``__exit__`` is not told of this; the instructions that follow the
call of ``__exit__`` say it.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from itertools import pairwise
from types import CodeType, FrameType

# What may stand between the end of a block and the beginning of the next round: nothing that
# stores, calls or returns. (What awaits `__aexit__` is among them.)
_NOTHING = frozenset(
    """
    CACHE NOP POP_TOP EXTENDED_ARG RESUME
    SEND YIELD_VALUE END_SEND JUMP_BACKWARD_NO_INTERRUPT
    """.split()  # noqa: SIM905
)
_JUMPS = frozenset(("JUMP_BACKWARD", "JUMP_FORWARD", "JUMP_ABSOLUTE"))
_ROUNDS = frozenset(("FOR_ITER", "GET_ANEXT"))


def comes_back(frame: FrameType) -> bool:
    """Whether the block, which `frame` leaves at this moment, is followed by the next round of
    a loop and by nothing else. False if in doubt."""
    return _comes_back(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=1024)
def _comes_back(code: CodeType, at: int) -> bool:
    instructions = {i.offset: i for i in dis.get_instructions(code)}
    offsets = sorted(instructions)
    following = dict(pairwise(offsets))
    seen: set[int] = set()
    # `at` may lie inside an instruction (3.12 points to the cache of SEND).
    offset: int | None = next((each for each in offsets if each > at), None)
    while offset is not None and offset not in seen:
        seen.add(offset)
        instruction = instructions[offset]
        name = instruction.opname
        if name in _ROUNDS:
            return True
        if name == "SEND":
            offset = instruction.argval  # where it goes when what was awaited has ended
        elif name in _JUMPS:
            offset = instruction.argval
        elif name in _NOTHING:
            offset = following.get(offset)
        else:
            return False
    return False
