"""The page's application without a browser: routes, headers, consent, and who is told what."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from everpool import AsyncConnectionPool, ConnectionPool, events, web
from everpool.events import Cause, Condition, Happening, Trouble
from everpool.lab import FaultProxy, PostgresServer, fatal
from everpool.web.facts import happening_facts
from everpool.web.feed import BEHIND, Client, Feed
from everpool.web.stream import EventStream
from tests.support.aio import eventually

pytestmark = pytest.mark.anyio

MARKER = "marker-7f3a"
PATHS = ["/", "/page.css", "/page.js", "/snapshot.json"]


@asynccontextmanager
async def client(app: Any, root: str = "") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://page{root}") as found:
        yield found


@pytest.mark.parametrize("path", PATHS)
async def test_answers_carry_the_headers_that_keep_a_browser_safe(
    pool: ConnectionPool[Any], path: str
) -> None:
    async with client(web.app(pool)) as http:
        answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    expected = "no-store" if path == "/snapshot.json" else "no-cache"
    assert answer.headers["cache-control"] == expected


async def test_other_methods_and_paths_are_refused(pool: ConnectionPool[Any]) -> None:
    async with client(web.app(pool)) as http:
        for path in [*PATHS, "/stream"]:
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                assert (await http.request(method, path)).status_code == 405
            assert (await http.head(path)).status_code == 200
        for path in ("/nothing", "/static/page.js", "/page.html", "/../application.py"):
            assert (await http.get(path)).status_code == 404


async def test_it_is_mounted_under_any_path_and_refers_to_nothing_outside(
    pool: ConnectionPool[Any],
) -> None:
    app = Starlette(routes=[Mount("/in/here", web.app(pool))])
    async with client(app) as http:
        assert (await http.get("/in/here")).headers["location"].endswith("/in/here/")
        page = (await http.get("/in/here/")).text
        for link in re.findall(r'(?:src|href)="([^"]*)"', page):
            assert link.startswith(("#", "data:")) or "/" not in link
            if link.startswith("page."):
                assert (await http.get(f"/in/here/{link}")).status_code == 200
        for name in ("page.css", "page.js"):
            assert "://" not in (await http.get(f"/in/here/{name}")).text


def test_what_is_no_pool_or_no_consent_is_refused(pool: ConnectionPool[Any]) -> None:
    async def consent(request: Request) -> bool:
        return False

    with pytest.raises(TypeError, match="there must be a pool"):
        web.app()
    with pytest.raises(TypeError, match="not str"):
        web.app("pool")  # type: ignore[arg-type]
    for details in (consent, "yes", 1):
        with pytest.raises(TypeError, match="details"):
            web.app(pool, details=details)  # type: ignore[arg-type]


# -- consent ------------------------------------------------------------------------------------


async def messages(app: Any, count: int = 2, headers: Any = ()) -> str:
    """The stream's first messages. httpx's own transport would wait for the stream's end."""
    got, enough = [], asyncio.Event()

    async def receive() -> Any:
        await enough.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
        else:
            got.append(message["body"].decode())
            if len(got) > count:
                enough.set()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/stream",
        "root_path": "",
        "query_string": b"",
        "headers": list(headers),
    }
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    return "".join(got)


@pytest.fixture
async def troubled(server: PostgresServer, proxy: FaultProxy) -> AsyncIterator[Any]:
    """A pool of which each text that others gave has the marker in it."""
    dsn = f"postgresql://{MARKER}-user@{proxy.host}:{proxy.port}/{MARKER}-database"
    async with AsyncConnectionPool(proxy.via(server.dsn), min_size=1, name="orders") as pool:
        await pool.wait(10)
        proxy.cut(fatal("57P01", f"{MARKER} <script>"))
        await eventually(lambda: pool.snapshot().cuts)
        async with AsyncConnectionPool(dsn, min_size=1, open=False, name="other") as other:
            await eventually(lambda: other.snapshot().open_failed)
            yield pool, other


def showing(app: Any) -> Callable[[], Any]:
    async def everything() -> str:
        async with client(app) as http:
            pages = [(await http.get(path)).text for path in PATHS]
        return "".join(pages) + await messages(app)

    return everything


async def test_without_consent_nothing_that_others_said_gets_out(troubled: Any) -> None:
    shown = await showing(web.app(*troubled))()
    assert "FATAL 57P01" in shown
    assert "rejected" in shown
    assert MARKER not in shown
    assert "127.0.0.1" not in shown


async def test_with_consent_it_does(troubled: Any) -> None:
    shown = await showing(web.app(*troubled, details=True))()
    assert f"{MARKER} <script>" in shown
    assert f"{MARKER}-user" in shown


async def test_consent_may_depend_on_the_request(troubled: Any) -> None:
    app = web.app(*troubled, details=lambda request: request.headers.get("key") == "right")
    assert MARKER in await messages(app, headers=[(b"key", b"right")])
    assert MARKER not in await messages(app, headers=[(b"key", b"wrong")])
    odd = web.app(*troubled, details=lambda request: "no")  # type: ignore[arg-type, return-value]
    assert MARKER not in await messages(odd)  # only True is consent


def every_kind(text: str) -> list[Happening]:
    """One happening of each kind; what others said is *text*."""
    values: dict[str, Any] = {
        "number": 1,
        "trouble": Trouble.GONE,
        "text": text,
        "cause": Cause("FATAL", text, text),
        "lent": False,
        "late": False,
        "dropped": False,
        "saturated": True,
        "waiting": 1,
        "before": "up",
        "after": Condition.DOWN.value,
        "outcome": "unknown",
        "setting": "keepalive",
        "contradicts": True,
        "attempt": 2,
    }
    found: list[Happening] = []
    public = [getattr(events, name) for name in events.__all__]
    kinds = [kind for kind in public if isinstance(kind, type) and issubclass(kind, Happening)]
    for kind in set(kinds) - {Happening}:
        own = values | {"why": text if kind in (events.Retried, events.Learned) else "rejected"}
        if kind is events.Learned:
            own |= {"before": 1.0, "after": 2.0}
        found.append(kind(**{field.name: own.get(field.name, 1.0) for field in fields(kind)}))
    return found


def test_no_kind_of_happening_tells_what_others_said() -> None:
    for happening in every_kind(MARKER):
        assert MARKER not in json.dumps(happening_facts(1, happening, details=False))
        assert happening_facts(1, happening, details=False)["text"]


def test_foreign_text_is_one_line_and_at_most_200_characters() -> None:
    for happening in every_kind("x\u202e\n\x1b[31m" + 500 * "y"):
        text = happening_facts(1, happening, details=True)["text"]
        assert len(text) <= 200
        assert text.isprintable()


# -- the stream ---------------------------------------------------------------------------------


def parse(stream: str) -> list[dict[str, str]]:
    blocks = [block for block in stream.split("\n\n") if block]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


async def test_the_stream_says_how_to_come_back_and_then_everything(
    pool: ConnectionPool[Any],
) -> None:
    retry, hello, tick = parse(await messages(web.app(pool), 2))[:3]
    assert int(retry["retry"]) > 0
    assert (hello["event"], tick["event"]) == ("hello", "tick")
    assert hello["id"] != tick["id"]
    first, second = json.loads(hello["data"]), json.loads(tick["data"])
    (facts,) = first["pools"]
    assert (facts["name"], facts["state"]) == ("orders", "up")
    assert [view[1] for view in facts["connections"]] == ["idle", "idle"]
    assert {"max_size", "keepalive"} <= {setting["name"] for setting in facts["settings"]}
    assert "settings" not in second["pools"][0]
    assert 0.1 <= second["at"] - first["at"] <= 1.0


async def test_a_quiet_stream_carries_comments(
    pool: ConnectionPool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everpool.web.stream.HEARTBEAT", 0.02)
    assert ": still here" in await messages(web.app(pool), 5)


def feed_of(*pools: Any, ending: Callable[[], bool] = lambda: False) -> Feed:
    return Feed(pools, "", ending)


async def test_the_sampler_runs_only_while_somebody_watches(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncConnectionPool(server.dsn, min_size=1) as pool:
        taken = []
        snapshot = pool.snapshot
        monkeypatch.setattr(pool, "snapshot", lambda: taken.append(1) or snapshot())
        feed = feed_of(pool)
        one, other = Client(False), Client(True)
        feed.join(one)
        feed.join(other)
        before = len(taken)
        await asyncio.sleep(1.0)
        assert 3 <= len(taken) - before <= 6  # one sampler for both
        feed.leave(one)
        assert feed.running
        feed.leave(other)
        before = len(taken)
        await asyncio.sleep(0.5)
        assert not feed.running
        assert len(taken) == before
        assert not pool._hub.subscriptions


async def test_a_client_that_falls_behind_loses_its_place_and_harms_nobody(
    pool: ConnectionPool[Any],
) -> None:
    feed = feed_of(pool)
    slow, quick = Client(False), Client(False)
    feed.join(slow)
    feed.join(quick)
    for _ in range(BEHIND + 5):
        feed._take()
        assert await quick.queue.get() is not None
    assert slow.queue.qsize() <= BEHIND
    last = [slow.queue.get_nowait() for _ in range(slow.queue.qsize())]
    assert None in last
    feed.leave(slow)
    feed.leave(quick)


async def test_a_client_whose_network_takes_nothing_is_given_up(
    pool: ConnectionPool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everpool.web.stream.STALLED", 0.2)
    feed = feed_of(pool)

    async def send(message: Any) -> None:
        await asyncio.sleep(0 if message["type"] == "http.response.start" else 60)

    async def receive() -> Any:
        await asyncio.sleep(60)

    began = monotonic()
    scope = {"type": "http", "asgi": {"spec_version": "2.3"}}
    await EventStream(feed, Client(False), {})(scope, receive, send)
    assert monotonic() - began < 5
    assert not feed.clients
    assert not feed.running


async def test_more_streams_than_anybody_needs_are_refused(
    pool: ConnectionPool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("everpool.web.application.MOST_CLIENTS", 0)
    async with client(web.app(pool)) as http:
        answer = await http.get("/stream")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "10"


async def test_what_happens_is_told_once_also_across_a_time_without_watchers(
    pool: ConnectionPool[Any], proxy: FaultProxy
) -> None:
    feed = feed_of(pool)

    async def cuts() -> list[int]:
        watcher = Client(False)
        feed.join(watcher)
        hello = await watcher.queue.get()
        assert hello is not None
        feed.leave(watcher)
        (facts,) = json.loads(parse(hello)[0]["data"])["pools"]
        return [h["id"] for h in facts["happenings"] if h["name"] == "connection.cut"]

    assert await cuts() == []
    proxy.cut(link=proxy.links()[0].number)
    await eventually(lambda: pool.snapshot().cuts)
    first = await cuts()
    assert len(first) == 1
    assert await cuts() == first


async def test_streams_end_when_their_server_does(pool: ConnectionPool[Any]) -> None:
    feed = feed_of(pool, ending=lambda: True)
    watcher = Client(False)
    feed.join(watcher)
    async with asyncio.timeout(2):
        while await watcher.queue.get() is not None:
            pass
    feed.leave(watcher)


# -- the documentation --------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[2] / "docs" / "live-page.md"


async def test_the_documented_login_keeps_strangers_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_PAGE", "Basic b3BzOnNlY3JldA==")
    mounted, guarded = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[:2]
    names: dict[str, Any] = {}
    exec(mounted + guarded, names)
    async with client(names["app"]) as http:
        for path in PATHS:
            assert (await http.get(f"/pool{path}")).status_code == 401
        http.headers["authorization"] = "Basic b3BzOnNlY3JldA=="
        for path in PATHS:
            assert (await http.get(f"/pool{path}")).status_code == 200


def test_the_picture_is_small_enough_to_be_loaded_with_the_page() -> None:
    assert PAGE.with_suffix(".png").stat().st_size < 300_000


async def test_many_who_come_at_once_keep_their_places(pool: ConnectionPool[Any]) -> None:
    """All pages come back in the same second when their server was restarted."""
    feed = feed_of(pool)
    clients = [Client(False) for _ in range(2 * BEHIND)]
    for watcher in clients:
        feed.join(watcher)
    # One message each, and one for each time that something did happen meanwhile.
    assert max(watcher.queue.qsize() for watcher in clients) < BEHIND / 2
    for watcher in clients:
        feed.leave(watcher)
