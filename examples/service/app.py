"""A guest book on everpool and FastAPI: a service that stays up while its database does not."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI
from psycopg import AsyncConnection

from everpool import AsyncConnectionPool
from everpool.events import Cut, Recovered, StateChanged, describe
from everpool.fastapi import add_handlers, borrow, lifespan, monitoring

# What a request may take in all, in seconds, and what of that for waiting for a connection.
DEADLINE = 2.0
WAIT = 1.5

pool = AsyncConnectionPool(os.environ["DATABASE_URL"], open=False, timeout=WAIT)
pool.subscribe(lambda news: print(" ", describe(news), flush=True), Cut, Recovered, StateChanged)


async def deadline() -> AsyncIterator[None]:
    """A connection may fall silent while a request has it: that must end too."""
    async with asyncio.timeout(DEADLINE):
        yield


app = FastAPI(title="Guest book", lifespan=lifespan(pool), dependencies=[Depends(deadline)])
add_handlers(app)  # 503 with Retry-After where there is no connection
app.mount("/internal", monitoring(pool, metrics=True))

Connection = Annotated[AsyncConnection, borrow(pool)]


@app.get("/")
async def read(conn: Connection) -> dict[str, int]:
    cursor = await conn.execute("select count(*) from visits")
    (visits,) = await cursor.fetchone()
    return {"visits": visits}


@app.post("/", status_code=201)
async def write(conn: Connection) -> None:
    await conn.execute("insert into visits default values")
