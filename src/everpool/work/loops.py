"""Whether a ``with`` block that ends now leads back to its loop.

``for attempt in pool.attempts(): with attempt as conn: return work(conn)`` leaves the function
after the block: if the COMMIT at the end of the block fails, the loop cannot repeat it, and the
failure must be raised. So must any failure, if a ``break`` follows the block. ``__exit__`` is not
told of this; the instructions that follow its call say it.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from itertools import pairwise
from types import CodeType, FrameType

Place = tuple[CodeType, int]
"""Where a frame stands: its code, and the offset of the instruction in it."""

# What may stand between the end of a block and the next round: nothing that stores, calls or
# returns. What drops an exception that `__exit__` swallows is among it.
_NOTHING = frozenset(
    """
    CACHE NOP POP_TOP EXTENDED_ARG END_SEND TO_BOOL POP_EXCEPT
    """.split()  # noqa: SIM905
)
# The last ones: where `__exit__` has answered that it swallows the exception.
_JUMPS = frozenset(
    """
    JUMP_BACKWARD JUMP_FORWARD JUMP_ABSOLUTE
    POP_JUMP_IF_TRUE POP_JUMP_FORWARD_IF_TRUE POP_JUMP_BACKWARD_IF_TRUE
    """.split()  # noqa: SIM905
)
_ROUNDS = frozenset(("FOR_ITER", "GET_ANEXT"))


def place(frame: FrameType) -> Place:
    return frame.f_code, frame.f_lasti


def comes_back(block: Place, loop: Place | None) -> bool:
    """Whether the block that is left at this moment is followed by the next round of its loop and
    by nothing else. False if in doubt.

    :param block: where the frame calls ``__exit__`` of the block.
    :param loop: where it asked for this round.
    """
    return loop is not None and block[0] is loop[0] and _comes_back(block[0], block[1], loop[1])


@lru_cache(maxsize=1024)
def _comes_back(code: CodeType, at: int, head: int) -> bool:
    instructions = {i.offset: i for i in dis.get_instructions(code)}
    offsets = sorted(instructions)
    following = dict(pairwise(offsets))

    def standing(lasti: int) -> int:
        """The instruction at an offset, which may lie inside of it (3.12: in a cache)."""
        return max(each for each in offsets if each <= lasti)

    head = standing(head)
    seen: set[int] = set()
    call = instructions[standing(at)]
    # What awaits `__aexit__` goes on where that has ended.
    offset = call.argval if call.opname == "SEND" else following.get(call.offset)
    while offset is not None and offset not in seen:
        seen.add(offset)
        instruction = instructions[offset]
        name = instruction.opname
        if name in _ROUNDS:
            return offset == head
        if name in _JUMPS:
            offset = instruction.argval
        elif name in _NOTHING:
            offset = following.get(offset)
        else:
            return False
    return False
