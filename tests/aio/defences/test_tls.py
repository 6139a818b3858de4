"""Over TLS the wire shows nothing, and a hang-up comes in a packet of its own: what holds without holds with it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from everpool.lab import FIN, RST, SILENCE, FaultProxy, PostgresServer, ServerError
from everpool.lab.binaries import find_binaries
from tests.aio.defences.measure import cuts, is_whole
from tests.aio.defences.work import Insert, Table
from tests.support.aio import eventually, sleep, spawn

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    if b"libssl" not in Path(find_binaries(), "postgres").read_bytes():
        pytest.skip("this PostgreSQL has no TLS")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    words = [
        "openssl",
        "req",
        "-new",
        "-x509",
        "-days",
        "2",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
    ]
    subprocess.run([*words, key, "-out", certificate], check=True, capture_output=True)
    key.chmod(0o600)
    settings = {"ssl": "on", "ssl_key_file": str(key), "ssl_cert_file": str(certificate)}
    with ExitStack() as stack:
        try:
            server = stack.enter_context(PostgresServer(settings=settings))
        except ServerError as error:
            if "ermission denied" in str(error):  # root's server may have to run as nobody
                pytest.skip("the server cannot read our key")
            raise
        yield server


@pytest.fixture
def dsn(dsn: str) -> str:
    return make_conninfo(dsn, sslmode="require")


async def test_an_idle_connection_that_is_cut_is_replaced_at_once(
    make: Any, proxy: FaultProxy
) -> None:
    async with make(2) as pool:
        await pool.wait(10)
        async with pool.connection() as conn:
            assert conn.pgconn.ssl_in_use
        for number, style in enumerate((FIN, RST), 1):
            proxy.cut(style)
            await eventually(lambda number=number: sum(cuts(pool).values()) == 2 * number)
            await eventually(lambda: is_whole(pool, 2))


@pytest.mark.parametrize("commit", ["xid", "token"])
async def test_commits_are_counted_once(
    make: Any, proxy: FaultProxy, insert: Insert, table: Table, commit: Any
) -> None:
    numbers, done = count(), False

    async def work() -> None:
        while not done:
            await pool.run(insert, next(numbers), commit=commit, attempts=10, deadline=30)

    async with make(3) as pool:
        await pool.wait(10)
        workers = [spawn(work) for _ in range(3)]
        for style in (FIN, RST, SILENCE, RST):
            await sleep(0.3)
            proxy.cut(style)
            if style == SILENCE:
                await sleep(0.2)
                proxy.cut(RST)  # nobody ends it otherwise before the deadline
        await sleep(0.3)
        done = True
        for worker in workers:
            await worker.result()
    assert table.rows() == list(range(next(numbers)))
