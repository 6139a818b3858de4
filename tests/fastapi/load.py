"""Clients that ask one page over and over, and write down every answer they got."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

__all__ = ["Answer", "Load", "asking"]

# Longer than any deadline here: what has not been answered by then is not going to be.
GIVE_UP = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got: times in seconds (``monotonic``); status 0 is no answer at all.

    :param code: of the body of a 503.
    :param retry_after: the header; 0 if it is missing.
    """

    began: float
    took: float
    status: int
    code: str = ""
    retry_after: int = 0

    @property
    def ended(self) -> float:
        return self.began + self.took


@dataclass
class Load:
    """The answers so far, in the order in which they came."""

    answers: list[Answer] = field(default_factory=list)

    def since(self, moment: float) -> list[Answer]:
        """The answers to what was asked after a moment."""
        return [answer for answer in self.answers if answer.began >= moment]


@asynccontextmanager
async def asking(port: int, path: str, clients: int, pause: float = 0.0) -> AsyncIterator[Load]:
    """Ask with so many clients, each with one request at a time and *pause* seconds in between.

    On leaving, they wait for the answers that are still to come.
    """
    load, going = Load(), [True]
    tasks = [
        asyncio.create_task(_client(port, path, pause, load.answers.append, lambda: going[0]))
        for _ in range(clients)
    ]
    try:
        yield load
    finally:
        going[0] = False
        await asyncio.gather(*tasks)


async def _client(
    port: int, path: str, pause: float, note: Callable[[Answer], None], going: Callable[[], bool]
) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    writer = None
    while going():
        began = monotonic()
        try:
            async with asyncio.timeout(GIVE_UP):
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                status, code, retry_after = await _read(reader)
            note(Answer(began, monotonic() - began, status, code, retry_after))
        except (OSError, EOFError, ValueError):
            note(Answer(began, monotonic() - began, 0))
            if writer is not None:
                writer.close()
                writer = None
        await asyncio.sleep(pause)
    if writer is not None:
        writer.close()
        await writer.wait_closed()


async def _read(reader: asyncio.StreamReader) -> tuple[int, str, int]:
    head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    body = await reader.readexactly(int(headers["content-length"]))
    status = int(head.split()[1])
    code = json.loads(body).get("code", "") if status == 503 else ""
    return status, code, int(headers.get("retry-after", 0))
