"""The page and its data, as an application to mount."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.resources import files
from inspect import iscoroutinefunction
from weakref import WeakKeyDictionary

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from everpool import AsyncConnectionPool, ConnectionPool

from .feed import AnyPool, Client, Feed, picture, server_is_ending, to_json
from .stream import EventStream

# A page never needs more streams than people look at it; each costs the process a little.
MOST_CLIENTS = 100

Consent = bool | Callable[[Request], bool]

_FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}

_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
# The files change with the version, the data all the time.
_FILE = _SAFE | {"Cache-Control": "no-cache"}
_DATA = _SAFE | {"Cache-Control": "no-store"}


def app(*pools: AnyPool, details: Consent = False, note: str = "") -> Starlette:
    """The live page as an ASGI application, to be mounted under any path.

    It answers to ``GET`` of ``/`` (the page), ``/stream`` (server-sent events) and
    ``/snapshot.json``. It has no login: put yours in front of it.

    :param pools: those to be shown, of either kind.
    :param details: whether hosts, users and what servers said may be shown: to everybody
        (True), to nobody (False), or to those for whom a function of the request returns
        True. What is shown otherwise are numbers, settings, the names of pools, and how
        connections end, in our own words.
    :param note: a line of text to be shown on the page.
    :raises TypeError: there is no pool, or one of another kind, or ``details`` is neither a
        truth value nor a plain function.
    """
    if not pools:
        raise TypeError("there must be a pool to show")
    for pool in pools:
        if not isinstance(pool, ConnectionPool | AsyncConnectionPool):
            raise TypeError(f"a pool must be everpool's, not {type(pool).__name__}")
    given: object = details
    if not isinstance(given, bool) and (not callable(given) or iscoroutinefunction(given)):
        raise TypeError("details must be True, False or a plain function of a request")
    page = _Page(pools, details, note)
    routes = [
        Route(f"/{path}", page.file(name, kind), methods=["GET"])
        for path, (name, kind) in _FILES.items()
    ]
    routes += [
        Route("/stream", page.stream, methods=["GET"]),
        Route("/snapshot.json", page.snapshot, methods=["GET"]),
    ]
    application = Starlette(routes=routes)
    application.state.page = page
    return application


class _Page:
    """What the routes share."""

    def __init__(self, pools: tuple[AnyPool, ...], details: Consent, note: str) -> None:
        self._pools = pools
        self._details = details
        self._note = note
        self.is_ending = server_is_ending
        self._feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = WeakKeyDictionary()

    @property
    def feed(self) -> Feed:
        """The feed of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._feeds:
            self._feeds[loop] = Feed(self._pools, self._note, self.is_ending)
        return self._feeds[loop]

    def file(self, name: str, kind: str) -> Callable[[Request], Response]:
        content = files(__package__).joinpath("static", name).read_bytes()

        async def answer(request: Request) -> Response:
            return Response(content, media_type=kind, headers=_FILE)

        return answer  # type: ignore[return-value]

    async def stream(self, request: Request) -> Response:
        feed = self.feed
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=_DATA)
        if len(feed.clients) >= MOST_CLIENTS:
            return Response(status_code=503, headers=_DATA | {"Retry-After": "10"})
        return EventStream(feed, Client(self._may_see_details(request)), _DATA)

    async def snapshot(self, request: Request) -> Response:
        content = to_json(picture(self._pools, self._may_see_details(request)))
        return Response(content, media_type="application/json", headers=_DATA)

    def _may_see_details(self, request: Request) -> bool:
        if isinstance(self._details, bool):
            return self._details
        # Nothing but True: an awaitable, say, is true as well.
        return self._details(request) is True
