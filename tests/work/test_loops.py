"""Whether a block that ends leads back to its loop: read from the instructions, on every Python we support."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Self

import pytest

from everpool.work.loops import Place, comes_back, place


class Block:
    """A block that notes whether it leads back, and may swallow what ends it."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> bool:
        self.blocks.answer = comes_back(place(sys._getframe(1)), self.blocks.asked)
        return True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> bool:
        here = place(sys._getframe(1))
        await asyncio.sleep(0)
        self.blocks.answer = comes_back(here, self.blocks.asked)
        return True


class Blocks:
    """One block in a loop; the test reads its answer."""

    def __init__(self) -> None:
        self.answer: bool | None = None
        self.asked: Place | None = None
        self.over = False
        self.block = Block(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Block:
        self.asked = place(sys._getframe(1))
        if self.over:
            raise StopIteration
        self.over = True
        return self.block

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Any:
        self.asked = place(sys._getframe(1))
        return self._next()

    async def _next(self) -> Block:
        await asyncio.sleep(0)
        if self.over:
            raise StopAsyncIteration
        self.over = True
        return self.block


def plain(blocks: Blocks) -> None:
    for block in blocks:
        with block as value:
            str(value)


def continues(blocks: Blocks) -> None:
    for block in blocks:
        with block as value:
            if value:
                continue
            str(value)


def in_a_function_that_returns_later(blocks: Blocks) -> int:
    for block in blocks:
        with block:
            x = 1
    return x


def in_a_branch(blocks: Blocks) -> None:
    for block in blocks:
        with block as value:
            if value:
                str(value)
            else:
                repr(value)


def within_try(blocks: Blocks) -> None:
    try:
        for block in blocks:
            with block:
                str(block)
    finally:
        str(blocks)


def with_an_empty_body(blocks: Blocks) -> None:
    for block in blocks:
        with block:
            pass


def returns(blocks: Blocks) -> Any:
    for block in blocks:
        with block as value:
            return value


def returns_a_constant(blocks: Blocks) -> Any:
    for block in blocks:
        with block:
            return 1


def returns_nothing(blocks: Blocks) -> None:
    for block in blocks:
        with block:
            return


def returns_in_a_branch(blocks: Blocks) -> Any:
    for block in blocks:
        with block as value:
            if value:
                return value
            str(value)


def breaks(blocks: Blocks) -> None:
    for block in blocks:
        with block:
            break


def returns_after_it(blocks: Blocks) -> Any:
    for block in blocks:
        with block:
            value = 1
        return value


def works_after_it(blocks: Blocks) -> None:
    for block in blocks:
        with block:
            str(block)
        str(block)


def breaks_after_it(blocks: Blocks) -> None:
    for block in blocks:
        with block:
            str(block)
        break


def without_a_loop(blocks: Blocks) -> None:
    with blocks.block:
        str(blocks)


def in_another_block(blocks: Blocks) -> None:
    for block in blocks:
        with suppress(KeyError):
            with block:
                str(block)


def by_hand(blocks: Blocks) -> None:
    for block in blocks:
        block.__enter__()
        block.__exit__(None, None, None)
        str(block)


def next_by_hand(blocks: Blocks) -> None:
    for _ in (1, 2):
        with next(blocks):
            str(blocks)
        if blocks.over:
            break


def breaks_to_an_outer_loop(blocks: Blocks) -> None:
    for _ in (1, 2):
        for block in blocks:
            with block:
                break


def fails(blocks: Blocks) -> None:
    for block in blocks:
        with block:
            raise KeyError


def fails_in_a_branch_of_try(blocks: Blocks) -> None:
    for block in blocks:
        with block as value:
            try:
                str(value)
            finally:
                raise KeyError


def fails_and_returns_after_it(blocks: Blocks) -> Any:
    for block in blocks:
        with block:
            raise KeyError
        return 1


def fails_and_breaks_after_it(blocks: Blocks) -> None:
    for block in blocks:
        with block:
            raise KeyError
        break


def fails_in_an_outer_loop(blocks: Blocks) -> None:
    for _ in (1, 2):
        for block in blocks:
            with block:
                raise KeyError
            break


async def async_fails(blocks: Blocks) -> None:
    async for block in blocks:
        async with block:
            raise KeyError


async def async_fails_and_returns_after_it(blocks: Blocks) -> Any:
    async for block in blocks:
        async with block:
            raise KeyError
        return 1


async def async_breaks_to_an_outer_loop(blocks: Blocks) -> None:
    for _ in (1, 2):
        async for block in blocks:
            async with block:
                break


async def async_plain(blocks: Blocks) -> None:
    async for block in blocks:
        async with block as value:
            await asyncio.sleep(0)
            str(value)


async def async_continues(blocks: Blocks) -> None:
    async for block in blocks:
        async with block as value:
            if value:
                continue
            str(value)


async def async_returns(blocks: Blocks) -> Any:
    async for block in blocks:
        async with block as value:
            await asyncio.sleep(0)
            return value


async def async_returns_nothing(blocks: Blocks) -> None:
    async for block in blocks:
        async with block:
            return


async def async_breaks(blocks: Blocks) -> None:
    async for block in blocks:
        async with block:
            await asyncio.sleep(0)
            break


async def async_works_after_it(blocks: Blocks) -> None:
    async for block in blocks:
        async with block:
            await asyncio.sleep(0)
        await asyncio.sleep(0)


def in_a_loop(coroutine: Any) -> None:
    """Run it in a thread of its own: in this one, another test may have left a loop running."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, coroutine).result()


BACK = (
    plain,
    continues,
    in_a_branch,
    in_a_function_that_returns_later,
    within_try,
    with_an_empty_body,
)
NOT_BACK = (
    returns,
    returns_a_constant,
    returns_nothing,
    returns_in_a_branch,
    breaks,
    returns_after_it,
    works_after_it,
    breaks_after_it,
    without_a_loop,
    by_hand,
    next_by_hand,
    breaks_to_an_outer_loop,
    fails_and_returns_after_it,
    fails_and_breaks_after_it,
    fails_in_an_outer_loop,
)


@pytest.mark.parametrize("function", BACK)
def test_back_to_the_loop(function: Any) -> None:
    blocks = Blocks()
    function(blocks)
    assert blocks.answer is True


@pytest.mark.parametrize("function", NOT_BACK)
def test_not_back_to_the_loop(function: Any) -> None:
    blocks = Blocks()
    function(blocks)
    assert blocks.answer is False


def test_another_block_in_between_counts_as_something_that_follows() -> None:
    blocks = Blocks()
    in_another_block(blocks)
    assert blocks.answer is False


@pytest.mark.parametrize("function", [async_plain, async_continues, async_fails])
def test_back_to_the_loop_in_tasks(function: Any) -> None:
    blocks = Blocks()
    in_a_loop(function(blocks))
    assert blocks.answer is True


@pytest.mark.parametrize(
    "function",
    [
        async_returns,
        async_returns_nothing,
        async_breaks,
        async_works_after_it,
        async_breaks_to_an_outer_loop,
        async_fails_and_returns_after_it,
    ],
)
def test_not_back_to_the_loop_in_tasks(function: Any) -> None:
    blocks = Blocks()
    in_a_loop(function(blocks))
    assert blocks.answer is False


def test_the_same_while_traced() -> None:
    """Debuggers and coverage replace instructions while they run."""
    sys.settrace(lambda *args: lambda *args: None)
    try:
        test_back_to_the_loop(plain)
        test_not_back_to_the_loop(returns)
    finally:
        sys.settrace(None)
