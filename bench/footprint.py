"""What a pool takes while nothing happens: CPU and memory, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .setup import Case, Figure, Setup

ROOT = Path(__file__).resolve().parent.parent


class Probe:
    """A `bench.probe` under way."""

    def __init__(self, setup: Setup, what: str, holder: str, count: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.probe"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # The connection string goes through the pipe: arguments can be read by everybody.
        spec: dict[str, Any] = {
            "dsn": setup.dsn,
            "what": what,
            "holder": holder,
            "count": count,
            "settle": setup.effort.settle,
            "quiet": setup.effort.quiet,
            "window": setup.effort.window,
        }
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(spec) + "\n")
        self._process.stdin.flush()

    def ready(self) -> None:
        """Wait until the connections are open."""
        if self._line() != "ready":
            raise RuntimeError("a measuring process ended before it began")

    def result(self) -> float:
        """Wait for the end, and return what was measured."""
        line = self._line()
        if self._process.wait() != 0 or not line:
            raise RuntimeError(f"a measuring process failed: {self._process.returncode}")
        return float(json.loads(line))

    def stop(self) -> None:
        """End it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class IdleCpu:
    """Probes that run beside the other cases; the figure is read at the end."""

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        effort = setup.effort
        self._probes = {
            (side, flavour): Probe(setup, f"cpu-{flavour}", library.name, effort.idle)
            for side, library in (("ours", setup.ours), ("theirs", setup.theirs))
            for flavour in ("threads", "asyncio")
        }
        for probe in self._probes.values():
            stack.callback(probe.stop)
        for probe in self._probes.values():
            probe.ready()
        self._window = effort.window

    def figure(self) -> Figure:
        percent = {key: probe.result() * 100 for key, probe in self._probes.items()}
        flavours = ("threads", "asyncio")
        ours = max(percent["ours", flavour] for flavour in flavours)
        return Figure(
            value=ours,
            ours=ours,
            theirs=max(percent["theirs", flavour] for flavour in flavours),
            unit="%",
            statistic=f"over {self._window:g} s",
            detail={
                "threads": [percent["ours", "threads"], percent["theirs", "threads"]],
                "asyncio": [percent["ours", "asyncio"], percent["theirs", "asyncio"]],
            },
        )


@contextmanager
def idle_cpu_beside(setup: Setup) -> Iterator[IdleCpu]:
    """Start the probes of ``idle-cpu``; they end with the block."""
    with ExitStack() as stack:
        yield IdleCpu(setup, stack)


def idle_cpu(setup: Setup) -> Figure:
    with idle_cpu_beside(setup) as probes:
        return probes.figure()


def beyond_bare(setup: Setup, what: str) -> tuple[float, float, float]:
    """KiB of a bare connection, and what each pool adds to it."""
    holders = ("bare", setup.ours.name, setup.theirs.name)
    probes = [Probe(setup, what, holder, setup.effort.held) for holder in holders]
    try:
        bare, ours, theirs = (probe.result() / 1024 for probe in probes)
    finally:
        for probe in probes:
            probe.stop()
    return bare, ours - bare, theirs - bare


def idle_memory(setup: Setup) -> Figure:
    bare, ours, theirs = beyond_bare(setup, "memory-traced")
    private_bare, private_ours, private_theirs = beyond_bare(setup, "memory-private")
    return Figure(
        value=ours,
        ours=ours,
        theirs=theirs,
        unit="KiB",
        statistic="tracemalloc",
        detail={
            "bare_connection": bare,
            "private": {
                "bare_connection": private_bare,
                "everpool": private_ours,
                "psycopg_pool": private_theirs,
            },
        },
    )


CASES = (
    Case("idle-cpu", "CPU of 100 idle connections", 0.2, idle_cpu, "% of a core"),
    Case("idle-memory", "memory per idle connection", 2.0, idle_memory, "KiB"),
)
