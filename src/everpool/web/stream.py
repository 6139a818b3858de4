"""Server-sent events, until the client goes, falls behind or does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Message, Send

from .feed import Client, Feed

# Seconds of silence after which a comment is sent, for proxies that end quiet responses.
HEARTBEAT = 10.0

# Milliseconds after which a browser that lost the stream asks for it again.
RETRY = 1000

# Seconds that a client's network may take no data at all: then it is gone, whatever TCP hopes.
STALLED = 10.0


class EventStream(StreamingResponse):
    """What one client is told."""

    def __init__(self, feed: Feed, client: Client, headers: dict[str, str]) -> None:
        # Nginx would otherwise collect the messages to send them together.
        headers = headers | {"X-Accel-Buffering": "no"}
        super().__init__(_messages(client), headers=headers, media_type="text/event-stream")
        self._feed = feed
        self._client = client

    async def stream_response(self, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(STALLED):
                await send(message)

        self._feed.join(self._client)
        try:
            await super().stream_response(send_in_time)
        except TimeoutError:
            pass  # nobody is there to be told
        finally:
            self._feed.leave(self._client)


async def _messages(client: Client) -> AsyncIterator[str]:
    yield f"retry: {RETRY}\n\n"
    while True:
        try:
            message = await asyncio.wait_for(client.queue.get(), HEARTBEAT)
        except TimeoutError:
            yield ": still here\n\n"
            continue
        if message is None:
            return
        yield message
