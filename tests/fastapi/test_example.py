"""The example service, as a newcomer starts it, under load while its database fails.

EVERPOOL_TEST_LONG=1 takes the times that were promised: cuts for 30 s, and 10 s without a database.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

from everpool.lab.ports import free_port
from tests.fastapi.load import Answer, asking
from tests.support.figures import Figures

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

logger = logging.getLogger(__name__)

LONG = os.environ.get("EVERPOOL_TEST_LONG") == "1"
EXAMPLE = Path(__file__).parents[2] / "examples" / "service"

CUTS_FOR = 30.0 if LONG else 8.0  # seconds
CUT_EVERY = 2.0
AWAY_FOR = 10.0 if LONG else 4.0

DEADLINE = 2.0  # of the example's requests
BACK_WITHIN = 1.0
CLIENTS = 16  # more than the pool has connections
FEW_CLIENTS = 6  # fewer
PROBE_EVERY = 0.1


@dataclass(frozen=True)
class Service:
    port: int
    faults_port: int

    async def order(self, fault: str) -> str:
        """Have something broken or mended, as ``make cut`` and its like do."""
        return await asyncio.to_thread(self._order, fault)

    def _order(self, fault: str) -> str:
        command = [sys.executable, EXAMPLE / "faults.py", fault, "--port", str(self.faults_port)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout.split()[-1]


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service(free_port(), free_port())
    ports = f"--port {service.port} --faults-port {service.faults_port}"
    process = subprocess.Popen(
        [sys.executable, EXAMPLE / "start.py", "--quiet", *ports.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        await_answer(service, process)
        yield service
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
        logger.info(out)
    assert "Traceback" not in out


def await_answer(service: Service, process: subprocess.Popen[str]) -> None:
    deadline = monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/") as answer:
                assert answer.status == 200
                return
        except OSError:
            assert process.poll() is None and monotonic() < deadline
            sleep(0.1)


def kinds(answers: list[Answer]) -> Counter[str]:
    """How many answers of each kind."""
    return Counter(f"{a.status} {a.code}".strip() for a in answers)


def check(answers: list[Answer], figure: Figures) -> None:
    """What holds for all answers, whatever happens to the database."""
    for answer in answers:
        assert answer.status == 200 or (answer.status == 503 and answer.retry_after >= 1), answer
    figure("slowest request, s", max(answer.took for answer in answers), DEADLINE)


def check_alive(probes: list[Answer]) -> None:
    assert probes and kinds(probes).keys() == {"200"}


async def test_cuts(service: Service, figure: Figures) -> None:
    cuts = []  # when, and how many connections
    async with (
        asking(service.port, "/internal/live", 1, PROBE_EVERY) as probes,
        asking(service.port, "/", CLIENTS) as load,
    ):
        end = monotonic() + CUTS_FOR
        while monotonic() < end:
            await asyncio.sleep(CUT_EVERY)
            moment = monotonic()
            cuts.append((moment, int(await service.order("cut"))))
    seen, cut = kinds(load.answers), sum(count for _, count in cuts)
    logger.info(f"{cut} connections cut; {dict(seen)}; {len(probes.answers)} probes")
    check(load.answers, figure)
    check_alive(probes.answers)
    assert seen.keys() <= {"200", "503 cut"}
    assert cut >= CUTS_FOR / CUT_EVERY
    figure("503 for connections cut in use", seen["503 cut"], cut)
    for moment, count in cuts:
        hit = [a for a in load.answers if a.status != 200 and 0 < a.ended - moment < CUT_EVERY]
        assert len(hit) <= count


async def test_an_outage(service: Service, figure: Figures) -> None:
    async with (
        asking(service.port, "/internal/live", 1, PROBE_EVERY) as probes,
        asking(service.port, "/", CLIENTS) as load,
    ):
        await asyncio.sleep(1)
        await service.order("away")
        gone = monotonic()
        await asyncio.sleep(AWAY_FOR)
        before = monotonic()
        await service.order("back")
        back = monotonic()
        await asyncio.sleep(2 * DEADLINE)
    meanwhile = [a for a in load.answers if a.began > gone and a.ended < before]
    logger.info(f"{dict(kinds(load.answers))}, while it was away {dict(kinds(meanwhile))}")
    check(load.answers, figure)
    check_alive(probes.answers)
    assert kinds(meanwhile).keys() and "200" not in kinds(meanwhile)
    first = min(a.ended for a in load.since(gone) if a.status == 200)
    figure("first 200 after the database was back, s", first - back, BACK_WITHIN)
    assert kinds(load.since(back + BACK_WITHIN)).keys() == {"200"}


async def test_silence(service: Service, figure: Figures) -> None:
    """A request whose connection falls silent ends at its deadline; the others do not notice."""
    async with asking(service.port, "/", FEW_CLIENTS) as load:
        await asyncio.sleep(1)
        silenced = int(await service.order("silence"))
        await asyncio.sleep(2 * DEADLINE)
    seen = kinds(load.answers)
    logger.info(f"{silenced} connections silent; {dict(seen)}")
    check(load.answers, figure)
    assert seen["200"] and silenced
    figure("503 for connections silent in use", sum(seen.values()) - seen["200"], silenced)
