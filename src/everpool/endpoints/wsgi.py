"""The endpoints as a WSGI application, to be mounted or served by itself."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING
from wsgiref.types import StartResponse, WSGIEnvironment

from .questions import Endpoints
from .readiness import Readiness

if TYPE_CHECKING:
    from .questions import Pool

__all__ = ["WSGIApp", "wsgi_app"]


class WSGIApp:
    """See `wsgi_app`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        method = environ["REQUEST_METHOD"]
        known = environ.get("HTTP_IF_NONE_MATCH", "")
        reply = self.endpoints.reply(method, environ.get("PATH_INFO", ""), known)
        status = HTTPStatus(reply.code)
        start_response(f"{status.value} {status.phrase}", list(reply.headers))
        return [] if method == "HEAD" or not reply.body else [reply.body]


def wsgi_app(
    pools: Pool | Iterable[Pool], *, readiness: Readiness | None = None, details: bool = False
) -> WSGIApp:
    """A WSGI application that answers ``/live``, ``/ready``, ``/startup`` and ``/health``.

    For Flask, with Werkzeug's ``DispatcherMiddleware(app, {"/internal": wsgi_app(pool)})``.

    The parameters, and what is raised, are those of `Endpoints`.
    """
    return WSGIApp(Endpoints(pools, readiness=readiness, details=details))
