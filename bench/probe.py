"""A process of its own that holds connections, and reports what that takes.

Started by `bench.footprint` as ``python -m bench.probe``, with one line of JSON on its standard
input. It says ``ready``, waits for what is asked, and writes its result as one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from . import cases_threads
from .growth import allow_files
from .setup import load


def cpu_of_threads(library: str, dsn: str, count: int, settle: float, window: float) -> float:
    """CPU seconds per second of a pool of idle connections."""
    with cases_threads.opened(load(library), dsn, count):
        time.sleep(settle)
        print("ready", flush=True)
        wall, cpu = time.perf_counter(), time.process_time()
        time.sleep(window)
        return (time.process_time() - cpu) / (time.perf_counter() - wall)


async def cpu_of_tasks(library: str, dsn: str, count: int, settle: float, window: float) -> float:
    """The same for asyncio."""
    pool = load(library).tasks(dsn, min_size=count, max_size=count, open=False)
    async with pool:
        await pool.wait(timeout=120)
        await asyncio.sleep(settle)
        print("ready", flush=True)
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(window)
        return (time.process_time() - cpu) / (time.perf_counter() - wall)


def traced_bytes() -> int:
    """What Python code allocated and still holds."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def private_bytes() -> int:
    """The memory that belongs to this process alone."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines[1:])
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))


def hold(stack: ExitStack, holder: str, dsn: str, count: int) -> object:
    """Open `count` connections in a pool of the library `holder`, or bare in a list."""
    if holder != "bare":
        return stack.enter_context(cases_threads.opened(load(holder), dsn, count))
    return [stack.enter_context(psycopg.connect(dsn)) for _ in range(count)]


def memory(holder: str, dsn: str, count: int, quiet: float, read: Callable[[], int]) -> float:
    """Bytes per connection held."""
    with ExitStack() as stack:  # what is made once, by the first connection and the first pool
        hold(stack, holder, dsn, 2)
    with ExitStack() as stack:
        before = read()
        held = hold(stack, holder, dsn, count)
        time.sleep(quiet)
        after = read()
        del held
        return (after - before) / count


def main() -> None:
    spec: dict[str, Any] = json.loads(sys.stdin.readline())
    dsn, count, settle = spec["dsn"], spec["count"], spec["settle"]
    allow_files(4 * count + 256)
    result: float
    match spec["what"]:
        case "cpu-threads":
            result = cpu_of_threads(spec["holder"], dsn, count, settle, spec["window"])
        case "cpu-asyncio":
            result = asyncio.run(cpu_of_tasks(spec["holder"], dsn, count, settle, spec["window"]))
        case "memory-traced":
            tracemalloc.start()
            result = memory(spec["holder"], dsn, count, spec["quiet"], traced_bytes)
        case "memory-private":
            result = memory(spec["holder"], dsn, count, spec["quiet"], private_bytes)
        case unknown:
            raise SystemExit(f"cannot measure {unknown!r}")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
