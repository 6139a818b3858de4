"""A guest book on everpool and FastAPI: a service that stays up while its database does not."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from psycopg import AsyncConnection

from everpool import AsyncConnectionPool
from everpool.events import Cut, Recovered, StateChanged, describe
from everpool.fastapi import add_handlers, borrow, lifespan, monitoring

# Seconds. A request waits so long for a connection, and is ended after so long in all. That takes
# a quarter of a second where a connection is silent, so clients have an answer within two.
WAIT = 1.5
LIMIT = 1.6

pool = AsyncConnectionPool(os.environ["DATABASE_URL"], max_size=10, timeout=WAIT, open=False)
pool.subscribe(lambda news: print(" ", describe(news), flush=True), Cut, Recovered, StateChanged)


async def limit() -> AsyncIterator[None]:
    """A connection may fall silent while a request has it: that has to end too."""
    try:
        async with asyncio.timeout(LIMIT):
            yield
    except TimeoutError:
        raise HTTPException(503, "too late", {"Retry-After": "1"}) from None


app = FastAPI(title="Guest book", lifespan=lifespan(pool), dependencies=[Depends(limit)])
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
