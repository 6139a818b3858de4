"""Take docs/live-page.png anew: `.venv/bin/python tools/live_page_picture.py`.

It starts a server, a proxy and a pool, lets callers come, cuts connections and takes the database
away for some seconds, and looks at the page with Debian's Chromium. Needs half a minute.
"""

from __future__ import annotations

import random
import shutil
import sys
import threading
from pathlib import Path
from time import sleep

import psycopg
from playwright.sync_api import ViewportSize, sync_playwright

from everpool import ConnectionPool, web
from everpool.lab import FIN, RST, FaultProxy, PostgresServer, fatal

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "live-page.png"

# GitHub shows pictures about 900 pixels wide; more would make the texts too small to read.
VIEWPORT: ViewportSize = {"width": 1120, "height": 1020}


def call(pool: ConnectionPool, stop: threading.Event, seed: int) -> None:
    """One caller: short queries, and now and then a long one."""
    dice = random.Random(seed)
    while not stop.wait(dice.random() * 0.8):
        try:
            with pool.connection(timeout=3) as conn:
                conn.execute("select pg_sleep(%s)", (dice.choice([0.01, 0.02, 0.03, 1.5]),))
        except psycopg.OperationalError:
            pass  # cut in the middle, or refused: what the page is to show


def misbehave(proxy: FaultProxy) -> None:
    """What a bad half minute brings."""
    sleep(9)
    proxy.cut(FIN, link=proxy.links()[0].number)
    sleep(6)
    proxy.cut(fatal("57P01"))
    sleep(9)
    proxy.refuse()
    proxy.cut(RST)
    sleep(5)
    proxy.accept()
    sleep(7)


def main() -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium: apt install chromium")
    stop = threading.Event()
    with (
        PostgresServer() as server,
        FaultProxy(server.host, server.port) as proxy,
        ConnectionPool(
            proxy.via(server.dsn),
            min_size=4,
            max_size=8,
            name="orders",
            kwargs={"autocommit": True},
        ) as pool,
        ConnectionPool(server.dsn, min_size=1, max_size=2, name="reports") as other,
        web.serve(pool, other) as page,
        sync_playwright() as playwright,
    ):
        pool.wait(10)
        callers = [threading.Thread(target=call, args=(pool, stop, n)) for n in range(4)]
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport=VIEWPORT)
        view.goto(f"{page.url}#seconds=60")
        for caller in callers:
            caller.start()
        misbehave(proxy)
        view.screenshot(path=PICTURE)
        browser.close()
        stop.set()
        for caller in callers:
            caller.join()


if __name__ == "__main__":
    main()
