"""Health for platforms: answers to "shall I restart it?" and "shall I send it traffic?".

All of it reads memory (``pool.health()``) and borrows nothing, so it answers when the pool is
full, closed, or its database is gone. See docs/health.md.

* `HealthServer`: a server in a thread, for processes without one.
* `asgi_app`, `wsgi_app`: to be mounted in a program that has one.
* `everpool.endpoints.grpc.grpc_health`: gRPC's own health service.
* ``everpool check``: a probe as a command.
* `Endpoints`: the answers, for any other server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asgi import asgi_app
    from .payload import Reply
    from .questions import Endpoints
    from .readiness import Readiness
    from .server import HealthServer
    from .wsgi import wsgi_app

__all__ = ["Endpoints", "HealthServer", "Readiness", "Reply", "asgi_app", "wsgi_app"]

# Loaded when they are first used, so that `everpool check`, which lives here, starts fast.
_PLACES = {
    "Endpoints": ".questions",
    "HealthServer": ".server",
    "Readiness": ".readiness",
    "Reply": ".payload",
    "asgi_app": ".asgi",
    "wsgi_app": ".wsgi",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_PLACES[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
